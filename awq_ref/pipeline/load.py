"""A checkpoint folder becomes a model that computes.

load_model              float or quantized folder -> Model
read_block              one layer's weights -> Block, as the checkpoint stores them
open_tokenizer          the folder's tokenizer, if it has one
"""

from collections import Counter
from pathlib import Path

from awq_ref.checkpoint import Checkpoint, Float8Config, Quantization
from awq_ref.checks import require_one_of
from awq_ref.matmul import RESIDENCIES, DenseLinear, Residency
from awq_ref.model import Block, Decoder, ModelConfig, block_linear_shapes, block_norm_shapes, block_prefix
from awq_ref.pipeline.model import Model
from awq_ref.pipeline.stored import check_complete, open_quantization, read_linear, read_norm, read_table
from awq_ref.text import Tokenizer


def read_block(
    checkpoint: Checkpoint,
    config: ModelConfig,
    layer: int,
    *,
    quantization: Quantization | None = None,
    residency: Residency = "packed",
) -> Block:
    """Read one layer of a checkpoint; of a float one all weights are float32."""
    prefix = block_prefix(config, layer)
    norms = {name: read_norm(checkpoint, config, f"{prefix}{name}") for name in block_norm_shapes(config)}
    names = block_linear_shapes(config)
    return Block(
        norms, {n: read_linear(checkpoint, config, prefix + n, quantization, residency) for n in names}
    )


def _residency_note(blocks: list[Block], quantization: Quantization | None) -> str:
    """Say how many linears stay in memory in which form."""
    linears = [linear for block in blocks for linear in block.linears.values()]
    counts = Counter(getattr(linear, "residency", "dense") for linear in linears)
    parts = [f"{count} {form}" for form, count in counts.most_common()]
    if quantization is None or isinstance(quantization, Float8Config):
        origin = "" if quantization is None else ", from float8"
        return f"float32 linears: {len(linears)}{origin}"
    return f"linears: {', '.join(parts)}"


def open_tokenizer(path: str | Path) -> Tokenizer | None:
    """Return the folder's tokenizer, or None if it has none."""
    return Tokenizer.load(path) if (Path(path) / "tokenizer.json").is_file() else None


def load_model(path: str | Path, *, residency: Residency = "packed") -> Model:
    """Load a float or quantized checkpoint.

    Parameters
    ----------
    path : str or Path
        Folder with config.json, one or several safetensors files, and tokenizer.json if text is wanted; or a name on
        the Hugging Face hub, NAME or NAME@REVISION, if there is no such path.
    residency : "packed", "codes" or "dense"
        How quantized linears stay in memory: their bits, a byte per weight, or float32. Linears whose group size
        does not fit the packed planes are held as codes; `Model.residency_note` says so. A float checkpoint is
        always float32, one of float8 numbers too, and embedding and head of any.

    Raises
    ------
    FormatError, MissingTensorError, ShapeError, DtypeError, RangeError, UnsupportedError
        If the folder is not a complete checkpoint of a known architecture and format; each message names the file
        or tensor and what to try.
    HubError
        If it is a name on the hub and cannot be had from there.

    Examples
    --------
    >>> import numpy as np
    >>> from awq_ref.checkpoint import demo_model_path
    >>> model = load_model(demo_model_path())
    >>> model.logits(np.array([[0, 1, 2]])).shape
    (1, 3, 4096)
    """
    require_one_of("load_model", "residency", residency, RESIDENCIES)
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_json(checkpoint.config)
    quantization = open_quantization(checkpoint)
    check_complete(checkpoint, config, quantization)
    blocks = [
        read_block(checkpoint, config, layer, quantization=quantization, residency=residency)
        for layer in range(config.num_hidden_layers)
    ]
    family = config.family
    embed_tokens = read_table(checkpoint, config, family.embed_tokens, quantization)
    tied = config.tie_word_embeddings
    head = embed_tokens if tied else read_table(checkpoint, config, family.lm_head, quantization)
    norm = read_norm(checkpoint, config, family.final_norm)
    norm_bias = read_norm(checkpoint, config, f"{family.final_norm}.bias") if family.norm_bias else None
    decoder = Decoder(config, embed_tokens, blocks, norm, DenseLinear(head), norm_bias)
    tokenizer = open_tokenizer(checkpoint.folder)
    return Model(decoder, tokenizer, quantization, _residency_note(blocks, quantization))
