"""Columns: how a packed weight lies in memory while a model runs, so that a product has few passes over it.

    Columns            a packed weight, as the products in `awq_ref.matmul.tiles` read it
    fits               why a layer cannot be held so, or None
    in_tiles           outputs cut into tiles
    shift_of           what each group adds per unit of its activations' sum
    pack_columns       codes -> bytes
    unpack_columns     bytes -> codes, of some groups of a tile
    nest_activations   activations as they meet the bytes of which nothing but high fields has been masked away

A byte holds codes of one output, an even part of a group apart: with F fields to a byte, field k of byte (group, j,
output) is input j + k n of the group, n = group_size / F. Neighbouring bytes are neighbouring *outputs*, thousands of
them, so that every call of NumPy runs over long rows whatever the group size. The outputs are cut into tiles of equal
width, and a tile's bytes lie together: a strided row costs a quarter more. Codes of 3 bits are two arrays of bytes, as
in `awq_ref.matmul.planes`: the two low bits and the high bit.

Source: docs/equations.md#awq-11.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from awq_ref.checks import require_one_of
from awq_ref.dtypes import F32, U8, AnyArray
from awq_ref.matmul.planes import FIELDS


@dataclass(frozen=True)
class Columns:
    """A packed weight: bytes, scales and zero points, outputs last. What fills the last tile up has the scale 0.

    planes     : uint8, (tiles, n_groups, group_size * field_bits / 8, width), one per entry of FIELDS[bits]
    scales     : float32, (tiles, n_groups, width)
    zero_point : uint8, (tiles, n_groups, width)
    shift      : float32, (tiles, n_groups, width), o - delta z of [AWQ-10]
    bits       : width of the codes as they are held: 2, 3, 4 or 8
    offset     : float32, (tiles, n_groups, width), or None
    """

    planes: tuple[U8, ...]
    scales: F32
    zero_point: U8
    shift: F32
    bits: int
    offset: F32 | None = None

    @property
    def nbytes(self) -> int:
        arrays = (*self.planes, self.scales, self.zero_point, self.shift, self.offset)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def n_tiles(self) -> int:
        return len(self.scales)

    @property
    def n_groups(self) -> int:
        return int(self.scales.shape[1])

    @property
    def width(self) -> int:
        """Outputs of a tile."""
        return int(self.scales.shape[2])

    @property
    def group_size(self) -> int:
        return int(self.planes[0].shape[2]) * 8 // FIELDS[self.bits][0][0]


def fits(in_features: int, group_size: int, bits: int) -> str | None:
    """Return why columns of bytes cannot hold a layer of this shape, or None if they can.

    Parameters
    ----------
    in_features, group_size : int
        Sizes of the layer; group_size is the number of weights in a group, never -1.
    bits : int
        2, 3, 4 or 8.

    Raises
    ------
    RangeError
        If bits is another number.
    """
    require_one_of("fits", "bits", bits, FIELDS)
    per_byte = max(8 // field_bits for field_bits, _ in FIELDS[bits])
    if group_size % per_byte:
        return (
            f"bytes of {bits}-bit codes hold {per_byte} of a group, which do not fill a group of {group_size}"
        )
    if in_features % group_size:
        return f"the group size {group_size} does not divide in_features={in_features}"
    return None


def in_tiles(values: AnyArray, n_tiles: int) -> AnyArray:
    """Cut (..., outputs) into tiles (n_tiles, ..., width), the last filled up with zeros."""
    width = -(-values.shape[-1] // n_tiles)
    tiles = np.zeros((n_tiles, *values.shape[:-1], width), dtype=values.dtype)
    for tile, first in zip(tiles, range(0, values.shape[-1], width), strict=False):
        part = values[..., first : first + width]
        tile[..., : part.shape[-1]] = part
    return tiles


def pack_columns(int_weight: U8, bits: int, *, n_groups: int, n_tiles: int) -> tuple[U8, ...]:
    """Pack codes (out_features, in_features) that fit into bytes, one array per entry of FIELDS[bits].

    Returns
    -------
    planes : tuple of uint8 arrays, shapes (n_tiles, n_groups, group_size * field_bits / 8, width)

    Examples
    --------
    >>> (plane,) = pack_columns(np.array([[1, 2, 3, 4]], dtype=np.uint8), 4, n_groups=1, n_tiles=1)
    >>> [hex(byte) for byte in plane.ravel().tolist()]      # input 0 low, input 2 high; input 1 low, input 3 high
    ['0x31', '0x42']
    """
    planes = []
    for field_bits, place in FIELDS[bits]:
        fields = (int_weight >> place) & (2**field_bits - 1)
        fields = fields.reshape(len(int_weight), n_groups, 8 // field_bits, -1)  # (O, G, F, n)
        plane = np.zeros_like(fields[:, :, 0])
        for k in range(8 // field_bits):
            plane |= fields[:, :, k] << (field_bits * k)
        planes.append(in_tiles(plane.transpose(1, 2, 0), n_tiles))  # (G, n, O) -> (N, G, n, R)
    return tuple(planes)


def unpack_columns(weight: Columns, tile: int, groups: slice, fields: U8) -> U8:
    """Return the codes of some groups of a tile, in (group, group_size, output) order: AND and shift.

    Parameters
    ----------
    weight : Columns
    tile : int
    groups : slice
    fields : uint8 array, shape (planes, groups, group_size, width)
        Working memory, overwritten.

    Returns
    -------
    codes : uint8 array, shape (groups, group_size, width), a view of fields
    """
    for plane, (field_bits, place), cut in zip(weight.planes, FIELDS[weight.bits], fields, strict=True):
        part = plane[tile, groups]  # (G, n, R)
        shifts = np.arange(0, 8, field_bits, dtype=np.uint8)[:, None, None]
        by_field = cut.reshape(len(part), len(shifts), *part.shape[1:])  # (G, F, n, R)
        np.right_shift(part[:, None], shifts, out=by_field)
        if field_bits < 8:
            cut &= 2**field_bits - 1
        if place:
            cut <<= place
    codes: U8 = fields[0]
    for other in fields[1:]:
        codes |= other
    return codes


def shift_of(scales: F32, zero_point: U8, offset: F32 | None) -> F32:
    """Return o - delta z, what a group adds to the output for each unit of the sum of its activations [AWQ-10].

    Exact for scales that were float16 and no offset: 11 bits times 8.
    """
    shift: F32 = scales * -zero_point.astype(np.float32)
    return shift if offset is None else shift + offset


@lru_cache
def _powers(bits: int) -> tuple[F32, ...]:
    """2**(place - b k) for each field k of each array of bytes, (fields, 1)."""
    return tuple(
        np.ldexp(np.float32(2.0**place), -np.arange(0, 8, field_bits, dtype=np.int32))[:, None]
        for field_bits, place in FIELDS[bits]
    )


def nest_activations(x: F32, weight: Columns) -> list[F32]:
    """Return, for each array of bytes, the factors that take the place of the activations.

    Equation [AWQ-11]  sum_k q_k x_k = sum_k v_k c_k
                         with v_k = sum_{l <= k} 2**(b l) q_l,
                              c_k = 2**(-b k) x_k - 2**(-b (k + 1)) x_{k + 1},   x_F = 0
        q_k -> the fields of a byte, b bits each, F of them
        v_k -> the byte with its fields above k masked away; v_{F-1} is the byte itself
        x_k -> the activations that they meet
    Source: docs/equations.md#awq-11.

    Parameters
    ----------
    x : float32 array, shape (tokens, in_features)
    weight : Columns

    Returns
    -------
    factors : list of float32 arrays, shapes (n_groups, tokens, group_size)
    """
    factors = []
    for powers in _powers(weight.bits):
        split = x.reshape(len(x), weight.n_groups, len(powers), -1).transpose(1, 0, 2, 3)  # (G, T, F, n)
        c = np.multiply(split, powers, dtype=np.float32, order="C")
        c[:, :, :-1] -= c[:, :, 1:]
        factors.append(c.reshape(weight.n_groups, len(x), weight.group_size))
    return factors
