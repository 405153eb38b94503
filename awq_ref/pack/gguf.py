"""GGUF's blocks Q4_0, Q4_1 and Q8_0: 32 weights along the inputs, their scale before their codes.

    Kind                       what a type is: its number in the file, its bits, its bytes
    KINDS                      name -> Kind
    tensor_names, obstacle, pack, unpack   the functions of their rows in `awq_ref.pack.layouts`

    weight  uint8 (out_features, in_features / 32 * block bytes)   rows of blocks

    q4_0  18 bytes: float16 d;            byte e = q[e] + 16 q[e + 16]   w = (q - 8) d
    q4_1  20 bytes: float16 d, float16 m; bytes as q4_0                  w = q d + m: the offset
    q8_0  34 bytes: float16 d;            int8 q - 128                   w = (q - 128) d

A group of more than 32 weights is several blocks with the same scale. Everything is little-endian.
Sources: ggml, ggml-common.h (block_q4_0, block_q4_1, block_q8_0) and docs/gguf.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from awq_ref.dtypes import F16, U8, AnyArray, AnyFloat
from awq_ref.errors import FormatError
from awq_ref.pack.offsets import offset_of
from awq_ref.pack.tensor_checks import groups_of, require_finite_scales, require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec

BLOCK = 32
HALF_BLOCK = BLOCK // 2


@dataclass(frozen=True)
class Kind:
    """A type of blocks.

    number : what stands for it in a file
    bits   : of a code
    offset : a float16 that is added stands behind the scale
    """

    number: int
    bits: int
    offset: bool = False

    @property
    def head(self) -> int:
        """Bytes before the codes."""
        return 4 if self.offset else 2

    @property
    def block_bytes(self) -> int:
        return self.head + BLOCK * self.bits // 8


KINDS = {"q4_0": Kind(2, 4), "q4_1": Kind(3, 4, offset=True), "q8_0": Kind(8, 8)}


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the end of the one tensor's name."""
    return ("weight",)


def obstacle(out_features: int, in_features: int, spec: QuantSpec, *, name: str) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    group = in_features if spec.group_size == -1 else spec.group_size
    if group % BLOCK:
        return f"{name} has blocks of {BLOCK} weights, which groups of {group} are no multiple of"
    return None


def _bytes_of(codes: U8, bits: int) -> U8:
    """Return the bytes of codes (..., 32)."""
    if bits == 8:
        return codes ^ np.uint8(128)  # q - 128, as an int8
    return codes[..., :HALF_BLOCK] | codes[..., HALF_BLOCK:] << np.uint8(4)


def _codes_of(stored: U8, bits: int) -> U8:
    """Return the codes (..., 32) of the bytes of blocks."""
    if bits == 8:
        return stored ^ np.uint8(128)
    return np.concatenate([stored & np.uint8(15), stored >> np.uint8(4)], axis=-1)


def _half_bytes(values: AnyFloat, repeats: int) -> U8:
    """Return float16 values (out, groups) as bytes (out, blocks, 2)."""
    repeated = np.repeat(values, repeats, axis=1)
    return repeated.astype("<f2")[..., None].view(np.uint8)


def pack(linear: QuantizedLinear, *, name: str) -> dict[str, AnyArray]:
    """Return the rows of blocks."""
    kind, rows = KINDS[name], linear.out_features
    repeats = linear.group_size // BLOCK
    parts = [_half_bytes(linear.scales, repeats)]
    if kind.offset:
        offset = (
            linear.offset if linear.offset is not None else offset_of(linear) + np.float16(0)
        )  # -0 becomes 0
        parts.append(_half_bytes(offset, repeats))
    parts.append(_bytes_of(linear.int_weight.reshape(rows, -1, BLOCK), kind.bits))
    return {"weight": np.concatenate(parts, axis=2).reshape(rows, -1)}


def _per_group(halves: U8, what: str, name: str, repeats: int) -> F16:
    """Return one float16 for each group (out, groups) of bytes (out, blocks, 2); its blocks must agree."""
    values = np.ascontiguousarray(halves).view("<f2")[..., 0].astype(np.float16)
    require_finite_scales(name, what, values)
    grouped = values.reshape(len(values), -1, repeats)
    if (grouped.view(np.uint16) != grouped[..., :1].view(np.uint16)).any():
        raise FormatError(
            f"{name}: the {repeats} blocks of a group must have the same {what}; they differ. Read it with "
            f"group_size={BLOCK}."
        )
    return np.ascontiguousarray(grouped[..., 0])


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec, *, name: str) -> QuantizedLinear:
    """Return the linear that the blocks hold."""
    kind, weight = KINDS[name], tensors["weight"]
    require_tensor(name, "weight", weight, "uint8", (None, None))
    if spec.scale_dtype != "float16":
        raise FormatError(f"{name}: scales are float16; the spec says {spec.scale_dtype}. Say float16.")
    rows, columns = weight.shape
    if columns % kind.block_bytes:
        raise FormatError(
            f"{name}: rows of weight must be whole blocks of {kind.block_bytes} bytes; got {columns} bytes. "
            "Is it another type?"
        )
    in_features = columns // kind.block_bytes * BLOCK
    n_groups = groups_of(name, in_features, spec)
    if reason := obstacle(rows, in_features, spec, name=name):
        raise FormatError(f"{name}: {reason}. Read it with group_size={BLOCK}.")
    repeats = in_features // n_groups // BLOCK
    blocks = weight.reshape(rows, -1, kind.block_bytes)
    scales = _per_group(blocks[..., :2], "scale", name, repeats)
    offset = _per_group(blocks[..., 2:4], "offset", name, repeats) if kind.offset else None
    codes = _codes_of(blocks[..., kind.head :], kind.bits).reshape(rows, in_features)
    zero = 0 if kind.offset else spec.symmetric_zero_point
    zero_point = np.full(scales.shape, zero, dtype=np.uint8)
    return QuantizedLinear(codes, scales, zero_point, spec, offset=offset)
