"""Models that are known by their sizes alone: no weights, only the numbers of a config.json.

    SHAPES           name -> ModelConfig, of models that people ask about
    chosen_configs   options -> the configurations that an experiment is about
    read_config      a config.json, or the folder that holds one -> ModelConfig
    require_dense    the model has no experts

Sources: the config.json that each model's makers publish. Only sizes count here, so every row is written as a Llama;
biases, which Qwen2.5 has on q, k and v, are less than a thousandth of the weights and left out.
"""

from pathlib import Path

from awq_ref.checkpoint import model_name, read_json
from awq_ref.checks import require_one_of
from awq_ref.errors import UnsupportedError
from awq_ref.model import ModelConfig
from awq_ref.paper.experiment import Options

# hidden, intermediate, layers, query heads, key-value heads, head_dim, vocabulary, context
SHAPES: dict[str, ModelConfig] = {
    "qwen2.5-0.5b": ModelConfig(896, 4864, 24, 14, 2, 64, 151936, 32768, tie_word_embeddings=True),
    "tinyllama-1.1b": ModelConfig(2048, 5632, 22, 32, 4, 64, 32000, 2048),
    "llama-2-7b": ModelConfig(4096, 11008, 32, 32, 32, 128, 32000, 4096),
    "llama-3-8b": ModelConfig(4096, 14336, 32, 32, 8, 128, 128256, 8192),
    "llama-2-70b": ModelConfig(8192, 28672, 80, 64, 8, 128, 32000, 4096),
}


def read_config(path: Path) -> ModelConfig:
    """Read a config.json, or the one of a folder, which need not hold any weights.

    Raises
    ------
    FormatError
        If there is none, or it lacks a size.
    UnsupportedError
        If the architecture is not known.
    """
    return ModelConfig.from_json(read_json(path / "config.json" if path.is_dir() else path))


def require_dense(config: ModelConfig) -> None:
    """Raise UnsupportedError for a model with experts: the experiments count every linear once for every token."""
    if config.num_experts:
        raise UnsupportedError(
            f"awq-ref paper: a model must be one without experts; got {config.family.architecture} with "
            f"{config.num_experts}. quantize, inspect and perplexity take it."
        )


def chosen_configs(options: Options) -> dict[str, ModelConfig]:
    """Return name -> configuration: the model's, or else those of the shapes named, or else of all shapes.

    Raises
    ------
    RangeError
        If there is no such shape.
    FormatError, UnsupportedError
        As `read_config`.
    """
    if options.model is not None:
        path = options.model.resolve()
        config = read_config(options.model)
        require_dense(config)
        return {model_name(path if path.is_dir() else path.parent): config}
    for name in options.shapes:
        require_one_of("awq-ref paper", "a shape", name, SHAPES)
    return {name: SHAPES[name] for name in options.shapes or SHAPES}
