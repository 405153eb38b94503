"""A checkpoint folder becomes a model that computes.

load_model              float or quantized folder -> Model
read_block              one layer's weights -> Block, as the checkpoint stores them
open_tokenizer          the folder's tokenizer, if it has one
"""

from collections import Counter
from pathlib import Path

from awq_ref.checkpoint import Checkpoint, Float8Config, Quantization
from awq_ref.checks import require_one_of
from awq_ref.errors import FormatError
from awq_ref.matmul import RESIDENCIES, Residency
from awq_ref.model import (
    Block,
    ModelConfig,
    block_linear_shapes,
    block_norm_shapes,
    block_prefix,
    block_router_shapes,
    linears_of_one_input,
)
from awq_ref.pipeline.model import Model
from awq_ref.pipeline.operators import block_operators
from awq_ref.pipeline.reading import open_model, read_decoder
from awq_ref.pipeline.stored import check_complete, open_quantization, read_linear, read_norm
from awq_ref.pipeline.tables import HEADS, Head
from awq_ref.text import GenerationDefaults, Tokenizer
from awq_ref.threads import default_threads, map_jobs


def read_block(
    checkpoint: Checkpoint,
    config: ModelConfig,
    layer: int,
    *,
    quantization: Quantization | None = None,
    residency: Residency = "packed",
    joined: bool = False,
) -> Block:
    """Read one layer of a checkpoint; of a float one all weights are float32.

    joined: linears that read one input become one product (`awq_ref.model.joined`).
    """
    prefix = block_prefix(config, layer)
    norms = {name: read_norm(checkpoint, config, f"{prefix}{name}") for name in block_norm_shapes(config)}
    names = [*block_linear_shapes(config, layer), *block_router_shapes(config, layer)]
    linears = map_jobs(
        lambda name: read_linear(checkpoint, config, prefix + name, quantization),
        names,
        n_threads=default_threads() if quantization is None else 1,  # integers are unpacked: one at a time
    )
    together = linears_of_one_input(config, layer) if joined else []
    return Block(norms, block_operators(dict(zip(names, linears, strict=True)), together, residency))


def _residency_note(blocks: list[Block], quantization: Quantization | None) -> str:
    """Say how many linears stay in memory in which form."""
    linears = [linear for block in blocks for linear in block.linears.values()]
    counts = Counter(getattr(linear, "residency", "dense") for linear in linears)
    parts = [f"{count} {form}" for form, count in counts.most_common()]
    if quantization is None or isinstance(quantization, Float8Config):
        origin = "" if quantization is None else ", from float8"
        return f"float32 linears: {len(linears)}{origin}"
    return f"linears: {', '.join(parts)}"


def open_tokenizer(path: str | Path, config: ModelConfig) -> Tokenizer | None:
    """Return the folder's tokenizer, or None if it has none.

    Raises
    ------
    FormatError
        If it cannot be read, or knows a token for which the model has no embedding.
    """
    file = Path(path) / "tokenizer.json"
    if not file.is_file():
        return None
    tokenizer = Tokenizer.load(path)
    if tokenizer.largest_id >= config.vocab_size:
        token = tokenizer.inner.id_to_token(tokenizer.largest_id)
        raise FormatError(
            f"{file}: the tokens' ids must lie in the embedding's [0, {config.vocab_size - 1}]; "
            f"{token!r} has {tokenizer.largest_id}. Is this the tokenizer of another model? Tokens that were added "
            "without rows of the embedding can be taken out of tokenizer.json and the files beside it."
        )
    return tokenizer


def load_model(path: str | Path, *, residency: Residency = "packed", head: Head = "float") -> Model:
    """Load a float or quantized checkpoint.

    Parameters
    ----------
    path : str or Path
        Folder with config.json, one or several safetensors files, and tokenizer.json if text is wanted; or a name on
        the Hugging Face hub, NAME or NAME@REVISION, if there is no such path.
    residency : "packed", "codes" or "dense"
        How quantized linears stay in memory: their bits, a byte per weight, or float32. Linears whose group size
        does not fit the packed planes are held as codes; `Model.residency_note` says so. A float checkpoint is
        always float32, one of float8 numbers too.
    head : "float" or "int8"
        How the head stays in memory: float32, or int8 rows with a step each [AWQ-12]. The embedding stays 16 bits wide
        where it is stored so and no float head shares it.

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
    require_one_of("load_model", "head", head, HEADS)
    checkpoint, config = open_model(path)
    quantization = open_quantization(checkpoint)
    check_complete(checkpoint, config, quantization)
    tokenizer = open_tokenizer(checkpoint.folder, config)
    defaults = GenerationDefaults.load(checkpoint.folder)
    blocks = [
        read_block(checkpoint, config, layer, quantization=quantization, residency=residency, joined=True)
        for layer in range(config.num_hidden_layers)
    ]
    decoder = read_decoder(checkpoint, config, blocks, quantization, head)
    note = _residency_note(blocks, quantization) + ("" if head == "float" else f", head: {head}")
    return Model(decoder, tokenizer, quantization, note, defaults)
