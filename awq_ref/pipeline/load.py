"""A checkpoint folder becomes a model that computes.

load_model              float or quantized folder -> Model
read_block              one layer's weights -> Block, as the checkpoint stores them
read_weight, read_quantized_linear    one float linear, one linear's integers and their grid
check_complete          all tensors are there, said from the headers
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from awq_ref.checkpoint import Checkpoint, QuantizationConfig, read_quantization_config
from awq_ref.checks import require_one_of
from awq_ref.dtypes import F32
from awq_ref.errors import FormatError
from awq_ref.matmul import RESIDENCIES, DenseLinear, Residency, to_operator
from awq_ref.model import (
    Block,
    ModelConfig,
    block_linear_shapes,
    block_norm_shapes,
    block_prefix,
    block_router_shapes,
    block_stored_shapes,
    block_tensor_shapes,
    outer_tensor_shapes,
    stored_place,
)
from awq_ref.pack import LAYOUTS, unpack_linear
from awq_ref.pipeline.model import Model
from awq_ref.pipeline.reading import open_model, read_decoder, read_norm, read_rows
from awq_ref.quantize import take_rows
from awq_ref.spec import LinearOperator, QuantizedLinear
from awq_ref.text import GenerationDefaults, Tokenizer


def read_quantized_linear(
    checkpoint: Checkpoint, config: ModelConfig, name: str, quantization: QuantizationConfig
) -> QuantizedLinear:
    """Read one linear's integers, scales and zero points, without its bias; name is its whole name."""
    spec, layout, _ = quantization
    place, rows = stored_place(config, name)
    tensors = {end: checkpoint.read_stored(f"{place}.{end}") for end in LAYOUTS[layout].tensor_names(spec)}
    linear = unpack_linear(tensors, spec, layout)
    return linear if isinstance(rows, slice) and rows == slice(None) else take_rows(linear, rows)


def read_weight(checkpoint: Checkpoint, config: ModelConfig, name: str) -> F32:
    """Read the float weight of one linear, by its whole name."""
    place, rows = stored_place(config, name)
    if config.family.transposed:
        return np.ascontiguousarray(checkpoint.read(f"{place}.weight").T[rows])
    return read_rows(checkpoint, f"{place}.weight", rows)


def is_float(checkpoint: Checkpoint, config: ModelConfig, name: str) -> bool:
    """Tell whether a checkpoint stores a linear, by its whole name, as floats."""
    return f"{stored_place(config, name)[0]}.weight" in checkpoint


def _read_linear(
    checkpoint: Checkpoint,
    config: ModelConfig,
    name: str,
    quantization: QuantizationConfig | None,
    residency: Residency,
) -> LinearOperator:
    """Read one linear as it is stored: float under NAME.weight, integers under the names of the layout."""
    place, rows = stored_place(config, name)
    bias = read_rows(checkpoint, f"{place}.bias", rows) if f"{place}.bias" in checkpoint else None
    if quantization is None or is_float(checkpoint, config, name):
        return DenseLinear(read_weight(checkpoint, config, name), bias)
    linear = read_quantized_linear(checkpoint, config, name, quantization)
    return to_operator(replace(linear, bias=bias), residency)


def read_block(
    checkpoint: Checkpoint,
    config: ModelConfig,
    layer: int,
    *,
    quantization: QuantizationConfig | None = None,
    residency: Residency = "packed",
) -> Block:
    """Read one layer of a checkpoint; of a float one all weights are float32."""
    prefix = block_prefix(config, layer)
    norms = {name: read_norm(checkpoint, config, f"{prefix}{name}") for name in block_norm_shapes(config)}
    names = [*block_linear_shapes(config, layer), *block_router_shapes(config, layer)]
    return Block(
        norms, {n: _read_linear(checkpoint, config, prefix + n, quantization, residency) for n in names}
    )


def check_complete(
    checkpoint: Checkpoint, config: ModelConfig, quantization: QuantizationConfig | None
) -> None:
    """Check names, shapes and dtypes from the headers alone; of a quantized linear, its layout checks its tensors."""
    checkpoint.check_complete(outer_tensor_shapes(config))
    for layer in range(config.num_hidden_layers):
        shapes = block_tensor_shapes(config, layer)
        if quantization is not None:
            names = [*block_stored_shapes(config, layer), *block_router_shapes(config, layer)]
            linears = {f"{block_prefix(config, layer)}{name}.weight" for name in names}
            shapes = {
                name: shape for name, shape in shapes.items() if name in checkpoint or name not in linears
            }
        checkpoint.check_complete(shapes)


def _residency_note(blocks: list[Block], quantized: bool) -> str:
    """Say how many linears stay in memory in which form."""
    linears = [linear for block in blocks for linear in block.linears.values()]
    counts = Counter(getattr(linear, "residency", "dense") for linear in linears)
    parts = [f"{count} {form}" for form, count in counts.most_common()]
    return f"linears: {', '.join(parts)}" if quantized else f"float32 linears: {len(linears)}"


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
        always float32.

    Raises
    ------
    FormatError, MissingTensorError, ShapeError, DtypeError, RangeError, UnsupportedError
        If the folder is not a complete checkpoint of a known architecture and format; each message names the file
        or tensor and what to try.
    HubError
        If it is a name on the hub and cannot be had from there.

    Examples
    --------
    >>> from awq_ref.checkpoint import demo_model_path
    >>> model = load_model(demo_model_path())
    >>> model.logits(np.array([[0, 1, 2]])).shape
    (1, 3, 4096)
    """
    require_one_of("load_model", "residency", residency, RESIDENCIES)
    checkpoint, config = open_model(path)
    stored = checkpoint.quantization_config
    quantization = None if stored is None else read_quantization_config(stored)
    check_complete(checkpoint, config, quantization)
    tokenizer = open_tokenizer(checkpoint.folder, config)
    defaults = GenerationDefaults.load(checkpoint.folder)
    blocks = [
        read_block(checkpoint, config, layer, quantization=quantization, residency=residency)
        for layer in range(config.num_hidden_layers)
    ]
    decoder = read_decoder(checkpoint, config, blocks)
    note = _residency_note(blocks, quantization is not None)
    return Model(decoder, tokenizer, quantization, note, defaults)
