"""Bit planes: packed weights as a processor with registers of 128 bits takes them.

    FIELDS             per bit width, the planes: (bits of a field, place of the field within the code)
    block_size         how many weights of a row one block holds
    pack_planes        codes -> planes of bytes
    unpack_planes      planes -> codes
    split_activations  activations in the order in which the planes hold the weights

A field of f bits shares its byte with 8/f - 1 others. Every block of 16*8/f weights of a row becomes 16
bytes: byte j holds the weights j, j+16, j+32, ... of the block, the first in the lowest bits. One AND and one
shift on a 128-bit register then give 16 neighbouring weights. With f = 4 this is TinyChatEngine's ARM layout
(QM_ARM). `awq_ref.matmul.reference` multiplies from them by AND and shift; NumPy, whose registers are whole arrays,
is faster on `awq_ref.matmul.columns`. Codes of 3 bits, whose width does not divide 8, are two planes: the two low
bits and the high bit.

Sources: TinyChatEngine, llm/tools/quantize_methods.py and kernels/neon; docs/architecture.md.
"""

import numpy as np

from awq_ref.checks import require_dtype, require_one_of, require_shape
from awq_ref.dtypes import F32, U8
from awq_ref.errors import RangeError, ShapeError

LANES = 16  # bytes of a block: one 128-bit register
REGISTER = np.dtype((np.void, LANES))  # 16 bytes that move as one item, many times faster than one by one
FIELDS: dict[int, tuple[tuple[int, int], ...]] = {
    2: ((2, 0),),
    3: ((2, 0), (1, 2)),
    4: ((4, 0),),
    8: ((8, 0),),
}


def _field_block(field_bits: int) -> int:
    """Weights per block of one plane; a field that fills its byte needs no neighbours."""
    return 1 if field_bits == 8 else LANES * 8 // field_bits


def block_size(bits: int) -> int:
    """Return how many weights of a row must stay together: 32 for 4 bits, 64 for 2, 128 for 3, 1 for 8.

    Raises
    ------
    RangeError
        If there are no planes of so many bits.
    """
    require_one_of("block_size", "bits", bits, FIELDS)
    return max(_field_block(field_bits) for field_bits, _ in FIELDS[bits])


def _pack_field(fields: U8, field_bits: int) -> U8:
    """Pack fields (out, in) below 2**field_bits into bytes (out, in * field_bits / 8)."""
    per_byte = 8 // field_bits
    if per_byte == 1:
        return fields.copy()
    out_features, in_features = fields.shape
    blocks = fields.reshape(out_features, in_features // (per_byte * LANES), per_byte, LANES)
    plane = np.zeros_like(blocks[:, :, 0])  # (out, blocks, 16)
    for k in range(per_byte):
        plane |= blocks[:, :, k] << (field_bits * k)
    return plane.reshape(out_features, in_features // per_byte)


def _unpack_field(plane: U8, field_bits: int) -> U8:
    """Unpack bytes (out, n) into fields (out, n * 8 / field_bits)."""
    per_byte = 8 // field_bits
    if per_byte == 1:
        return plane.copy()
    blocks = np.empty((len(plane), plane.shape[1] // LANES, per_byte, LANES), dtype=np.uint8)
    registers = blocks.view(REGISTER)[..., 0]  # (out, blocks, per_byte)
    for k in range(per_byte):
        fields = plane >> (field_bits * k)
        fields &= 2**field_bits - 1
        registers[:, :, k] = fields.view(REGISTER)
    return blocks.reshape(len(plane), plane.shape[1] * per_byte)


def pack_planes(int_weight: U8, bits: int) -> tuple[U8, ...]:
    """Pack codes into planes of bytes, one per entry of FIELDS[bits].

    Parameters
    ----------
    int_weight : uint8 array, shape (out_features, in_features), values in [0, 2**bits - 1]
    bits : int
        2, 3, 4 or 8.

    Returns
    -------
    planes : tuple of uint8 arrays, shapes (out_features, in_features * field_bits / 8)

    Raises
    ------
    ShapeError
        If int_weight is not 2-D, or in_features is no multiple of block_size(bits).
    DtypeError
        If int_weight is not uint8.
    RangeError
        If bits is none of these, or a code needs more bits.

    Examples
    --------
    >>> codes = np.arange(32, dtype=np.uint8)[None] % 16
    >>> (plane,) = pack_planes(codes, 4)
    >>> [hex(byte) for byte in plane[0, :3].tolist()]      # byte j: weight j low, weight j + 16 high
    ['0x0', '0x11', '0x22']
    """
    require_one_of("pack_planes", "bits", bits, FIELDS)
    require_shape("pack_planes", "int_weight", int_weight, (None, None))
    require_dtype("pack_planes", "int_weight", int_weight, np.uint8)
    block = block_size(bits)
    if int_weight.shape[1] % block:
        raise ShapeError(
            f"pack_planes: {bits}-bit planes hold blocks of {block} weights, which do not fill a row of "
            f"{int_weight.shape[1]}. Pad the rows, or keep the codes as they are."
        )
    if int_weight.size and int(int_weight.max()) >= 2**bits:
        raise RangeError(f"pack_planes: codes must be at most {2**bits - 1}; got {int(int_weight.max())}.")
    return tuple(
        _pack_field((int_weight >> place) & (2**field_bits - 1), field_bits)
        for field_bits, place in FIELDS[bits]
    )


def unpack_planes(planes: tuple[U8, ...], bits: int, in_features: int) -> U8:
    """Unpack planes into codes: the inverse of pack_planes.

    Parameters
    ----------
    planes : tuple of uint8 arrays, shapes (out_features, in_features * field_bits / 8)
    bits, in_features : int

    Returns
    -------
    int_weight : uint8 array, shape (out_features, in_features)

    Raises
    ------
    ShapeError
        If the planes are not as many, or not as long, as bits and in_features say.
    RangeError
        If bits is none of 2, 3, 4, 8.
    """
    require_one_of("unpack_planes", "bits", bits, FIELDS)
    if len(planes) != len(FIELDS[bits]):
        raise ShapeError(f"unpack_planes: {bits} bits need {len(FIELDS[bits])} planes; got {len(planes)}.")
    for plane, (field_bits, _) in zip(planes, FIELDS[bits], strict=True):
        require_shape("unpack_planes", "plane", plane, (None, in_features * field_bits // 8))
    int_weight, *others = (
        _unpack_field(plane, field_bits) for plane, (field_bits, _) in zip(planes, FIELDS[bits], strict=True)
    )
    for fields, (_, place) in zip(others, FIELDS[bits][1:], strict=True):
        fields <<= place
        int_weight |= fields
    return int_weight


def split_activations(x: F32, field_bits: int) -> F32:
    """Reorder activations as one plane holds the weights: row k meets the k-th field of every byte.

    Parameters
    ----------
    x : float32 array, shape (tokens, in_features)
    field_bits : int
        1, 2, 4 or 8.

    Returns
    -------
    view of x : float32 array, shape (fields per byte, blocks, lanes, tokens)
        Blocks and lanes together run over the bytes of a plane's row.
    """
    per_byte = 8 // field_bits
    lanes = LANES if per_byte > 1 else x.shape[1]
    blocks = x.shape[1] // (per_byte * lanes)
    return x.reshape(len(x), blocks, per_byte, lanes).transpose(
        2, 1, 3, 0
    )  # (per_byte, blocks, lanes, tokens)
