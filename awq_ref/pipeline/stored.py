"""A checkpoint's linears and norms as they are stored: floats, float8 numbers with scales, or integers of some layout.

open_quantization        what the checkpoint says about its weights, as a record
is_float                 a linear is stored as floats (of 8 bits, too)
read_weight, read_quantized_linear   a linear as floats, or as integers and their grid
read_integers            a module of integers, by its own name
read_rows                some rows of a float tensor
read_norm, read_table    a norm; the embedding or the head as floats
read_linear              a linear with its bias
check_complete           all tensors are there, none is left over, said from the headers
"""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from awq_ref.checkpoint import (
    Checkpoint,
    Float8Config,
    Quantization,
    QuantizationConfig,
    read_quantization_config,
    spread_scales,
)
from awq_ref.checks import require_finite
from awq_ref.dtypes import F32, I64, AnyArray
from awq_ref.errors import FormatError, ShapeError
from awq_ref.matmul import DenseLinear
from awq_ref.model import (
    ModelConfig,
    block_prefix,
    block_router_shapes,
    block_stored_shapes,
    block_tensor_shapes,
    norm_tensor,
    outer_tensor_shapes,
    stored_place,
)
from awq_ref.pack import LAYOUTS, unpack_linear
from awq_ref.quantize import dequantize_linear, take_rows
from awq_ref.spec import QuantizedLinear

FLOAT8 = "F8_E4M3"
FLOATS = ("F16", "BF16", "F32", "F64", FLOAT8)
TABLE_LAYOUTS = ("mlx",)  # the layouts in which embeddings are stored too
SHOWN = 4  # tensors named in a message
# Tensors that checkpoints have and models do not read: buffers that are computed, and a head that is tied.
UNREAD = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|rotary_emb\.(cos|sin)_cached|(attn|attention|self_attn|self_attention)\.(masked_)?bias)$"
)


def open_quantization(checkpoint: Checkpoint) -> Quantization | None:
    """Return what a checkpoint says about its weights; None for a float one."""
    stored = checkpoint.quantization_config
    return None if stored is None else read_quantization_config(stored)


def _stored_as_float(checkpoint: Checkpoint, place: str) -> bool:
    """Tell whether a module's weight is there as floats."""
    name = f"{place}.weight"
    return name in checkpoint and checkpoint.info(name).dtype in FLOATS


def read_rows(checkpoint: Checkpoint, name: str, rows: slice | I64) -> F32:
    """Read some rows of a float tensor: a part, of which nothing else is read, or by their numbers."""
    return checkpoint.read(name, rows=rows) if isinstance(rows, slice) else checkpoint.read(name)[rows]


def is_float(checkpoint: Checkpoint, config: ModelConfig, name: str) -> bool:
    """Tell whether a checkpoint stores a linear, by its whole name, as floats."""
    return _stored_as_float(checkpoint, stored_place(config, name)[0])


def read_norm(checkpoint: Checkpoint, config: ModelConfig, name: str) -> F32:
    """Read what a norm multiplies by: its weight, plus 1 in families that store the distance from 1.

    Of a name that ends with ".bias": what it adds.
    """
    values, offset = checkpoint.read(norm_tensor(name)), config.family.norm_offset
    return values + np.float32(offset) if offset and not name.endswith(".bias") else values


def _require_shape(
    checkpoint: Checkpoint, place: str, linear: QuantizedLinear, wanted: tuple[int, int]
) -> None:
    """Raise ShapeError unless a table, or a module of which rows are taken, has this shape."""
    if linear.int_weight.shape != wanted:
        raise ShapeError(
            f"{checkpoint.folder}: {place} must have shape {wanted} by config.json; the file holds "
            f"{linear.int_weight.shape}. Do config.json and the weights belong together?"
        )


def read_integers(checkpoint: Checkpoint, place: str, quantization: QuantizationConfig) -> QuantizedLinear:
    """Read the integers of a module, scales in the dtype in which they are stored."""
    layout, spec = LAYOUTS[quantization.layout], quantization.spec_of(place)
    ends = (*layout.tensor_names(spec), *(e for e in layout.optional if f"{place}.{e}" in checkpoint))
    tensors: dict[str, AnyArray] = {end: checkpoint.read_stored(f"{place}.{end}") for end in ends}
    if tensors[layout.scales].dtype == np.float32:  # float32, or bfloat16, which NumPy does not have
        spec = replace(spec, scale_dtype="float32")
    try:
        return unpack_linear(tensors, spec, quantization.layout)
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from error


def read_quantized_linear(
    checkpoint: Checkpoint, config: ModelConfig, name: str, quantization: QuantizationConfig
) -> QuantizedLinear:
    """Read one linear's integers, scales and zero points, without its bias; name is its whole name."""
    place, rows = stored_place(config, name)
    linear = read_integers(checkpoint, place, quantization)
    if place == name:
        return linear
    fused = block_stored_shapes(config).items()
    wanted = next(shape for stored, shape in fused if place.endswith(f".{stored}"))
    _require_shape(checkpoint, place, linear, wanted)
    return take_rows(linear, rows)


def _read_float8(checkpoint: Checkpoint, place: str, stored: Float8Config) -> F32:
    """Read a float8 weight times its scales."""
    weight = checkpoint.read_stored(f"{place}.weight")
    require_finite(str(checkpoint.folder), f"{place}.weight", weight)
    name = f"{place}.{stored.scale}"
    return spread_scales(name, weight, checkpoint.read(name), stored.block)


def _read_float(
    checkpoint: Checkpoint, place: str, quantization: Quantization | None, rows: slice | I64 | None = None
) -> F32:
    name = f"{place}.weight"
    if isinstance(quantization, Float8Config) and checkpoint.info(name).dtype == FLOAT8:
        weight = _read_float8(checkpoint, place, quantization)
        return weight if rows is None else weight[rows]
    return checkpoint.read(name) if rows is None else read_rows(checkpoint, name, rows)


def read_weight(
    checkpoint: Checkpoint, config: ModelConfig, name: str, quantization: Quantization | None = None
) -> F32:
    """Read the float weight of one linear, by its whole name."""
    place, rows = stored_place(config, name)
    if config.family.transposed:
        return np.ascontiguousarray(_read_float(checkpoint, place, quantization).T[rows])
    return _read_float(checkpoint, place, quantization, None if place == name else rows)


def read_table(
    checkpoint: Checkpoint, config: ModelConfig, place: str, quantization: Quantization | None
) -> F32:
    """Read the embedding or the head as float32, dequantized where it is stored as integers."""
    if not isinstance(quantization, QuantizationConfig) or _stored_as_float(checkpoint, place):
        return _read_float(checkpoint, place, quantization)
    linear = read_integers(checkpoint, place, quantization)
    _require_shape(checkpoint, place, linear, (config.vocab_size, config.embedding_width))
    return dequantize_linear(linear)


def read_linear(
    checkpoint: Checkpoint, config: ModelConfig, name: str, quantization: Quantization | None
) -> QuantizedLinear | DenseLinear:
    """Read one linear as it is stored: float under NAME.weight, integers under the names of the layout."""
    place, rows = stored_place(config, name)
    bias = read_rows(checkpoint, f"{place}.bias", rows) if f"{place}.bias" in checkpoint else None
    if not isinstance(quantization, QuantizationConfig) or _stored_as_float(checkpoint, place):
        return DenseLinear(read_weight(checkpoint, config, name, quantization), bias)
    linear = read_quantized_linear(checkpoint, config, name, quantization)
    return replace(linear, bias=bias)


def _linear_places(config: ModelConfig) -> Iterator[str]:
    """Yield the modules of a checkpoint that hold linears of the blocks, routers of experts among them."""
    for layer in range(config.num_hidden_layers):
        for name in (*block_stored_shapes(config, layer), *block_router_shapes(config, layer)):
            yield f"{block_prefix(config, layer)}{name}"


def _other_tensors(checkpoint: Checkpoint, place: str, quantization: Quantization | None) -> tuple[str, ...]:
    """Return the tensors that stand for a module's weight, where it is not simply a float tensor."""
    if isinstance(quantization, QuantizationConfig) and not _stored_as_float(checkpoint, place):
        ends = LAYOUTS[quantization.layout].tensor_names(quantization.spec_of(place))
        return tuple(f"{place}.{end}" for end in ends)
    weight = f"{place}.weight"
    if (
        isinstance(quantization, Float8Config)
        and weight in checkpoint
        and checkpoint.info(weight).dtype == FLOAT8
    ):
        return (weight, f"{place}.{quantization.scale}")
    return ()


def _check_other(
    checkpoint: Checkpoint,
    place: str,
    shape: tuple[int, ...],
    quantization: Quantization,
    names: tuple[str, ...],
) -> set[str]:
    """Check a module that is not stored as a float tensor; return the tensors that belong to it."""
    if quantization.must_be_float(place):
        raise FormatError(
            f"{checkpoint.folder}: {place} must be float, for the configuration says that it is not quantized; it has "
            f"{names[0]}. Do config.json and the weights belong together?"
        )
    for name in names:
        checkpoint.info(name)  # raises if it is missing
    if isinstance(quantization, Float8Config):
        checkpoint.check_complete({f"{place}.weight": shape}, dtypes=(FLOAT8,))
        return set(names)
    return {*names, *(f"{place}.{end}" for end in LAYOUTS[quantization.layout].optional)}


def _refuse_biases(checkpoint: Checkpoint, biases: set[str]) -> None:
    """Raise FormatError unless biases that the model does not have are 0: AutoGPTQ writes such ones."""
    for name in sorted(biases):
        if name in checkpoint and checkpoint.read(name).any():
            raise FormatError(
                f"{checkpoint.folder}: {name} must be 0 or absent, for by config.json the model has no such bias. Do "
                "config.json and the weights belong together?"
            )


def _refuse_left_over(checkpoint: Checkpoint, config: ModelConfig, known: set[str]) -> None:
    """Raise FormatError if the checkpoint has tensors that nothing reads."""
    left = [name for name in checkpoint.names if name not in known and not UNREAD.search(name)]
    if left:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        raise FormatError(
            f"{checkpoint.folder}: must hold the tensors of the {config.family.architecture} of config.json and no "
            f"others; it has {', '.join(left[:SHOWN])}{more}. Do config.json and the weights belong together?"
        )


def check_complete(checkpoint: Checkpoint, config: ModelConfig, quantization: Quantization | None) -> None:
    """Check names, shapes and dtypes from the headers; of a quantized linear, its layout checks its tensors.

    Raises
    ------
    MissingTensorError, ShapeError, DtypeError
        As `Checkpoint.check_complete`.
    FormatError
        If a module is quantized that the configuration says is not, or the checkpoint has tensors that nothing reads
        (but for buffers that are computed, `UNREAD`, and a head that is tied), or a bias that the model does not have.
    """
    shapes = outer_tensor_shapes(config)
    for layer in range(config.num_hidden_layers):
        shapes |= block_tensor_shapes(config, layer)
    linears, head = list(_linear_places(config)), config.family.lm_head
    places = [*linears, *([head] if f"{head}.weight" in shapes else [])]
    if isinstance(quantization, QuantizationConfig) and quantization.layout in TABLE_LAYOUTS:
        places.append(config.family.embed_tokens)
    known = {f"{head}.weight"}
    for place in places:
        names = _other_tensors(checkpoint, place, quantization)
        if names and quantization is not None:
            shape = shapes.pop(f"{place}.weight")
            known |= _check_other(checkpoint, place, shape, quantization, names)
    checkpoint.check_complete(shapes)
    biases = {f"{place}.bias" for place in linears} - set(shapes)
    _refuse_left_over(checkpoint, config, known | set(shapes) | biases)
    _refuse_biases(checkpoint, biases)
