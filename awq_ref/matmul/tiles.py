"""The two ways to multiply by packed rows, a tile at a time.

    Planes               a packed weight as the loops below read it
    multiply_factored    few tokens: cast masked bytes, multiply group by group, apply scales afterwards
    multiply_dequantized many tokens: dequantize a tile once, then one BLAS product for all tokens
    unpack_rows          the codes of some rows
    dequantize_rows      the float weight of some rows, bit for bit that of quantize.dequantize

Source: docs/equations.md#awq-10, which bounds the error of both products.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from awq_ref.dtypes import F16, F32, U8
from awq_ref.matmul.planes import FIELDS, split_activations, unpack_planes
from awq_ref.matmul.threads import run_in_shares, scratch

SEGMENT_BYTES = 128  # most bytes of a row in one small product, where the group can be divided so
PRODUCT_BYTES = 8192  # rows x bytes of one small product: from 9216 on OpenBLAS starts threads of its own
FACTORED_TILE = 2**19  # weights cast at a time, 2 MiB as float32; nearly the same speed from 2**17 to 2**20
DEQUANTIZED_TILE = 2**21  # weights multiplied at a time, 8 MiB as float32: few calls of BLAS
UNPACKED_TILE = (
    2**16
)  # weights unpacked and dequantized at a time: a pass finds in the cache what the last one left
_PLACES = {bits: np.arange(0, 8, bits, dtype=np.uint8)[:, None, None, None] for bits in (1, 2, 4, 8)}
# Per width of a field: the masks that leave field k of a byte, and 2**(-bits * k), by which that byte is the field.
MASKS = {bits: (2**bits - 1 << places).astype(np.uint8) for bits, places in _PLACES.items()}
POWERS = {bits: np.ldexp(np.float32(1.0), -places.astype(np.int32)) for bits, places in _PLACES.items()}


@dataclass(frozen=True)
class Planes:
    """A packed weight, group by group, in the order in which a product reads it.

    planes     : uint8, (segments, out_features, bytes); a segment is a group's bytes or an even part of them
    scales     : float16 or float32, (n_groups, out_features)
    zero_point : uint8, (n_groups, out_features)
    bits       : width of the codes as they are held: 2, 3, 4 or 8
    offset     : float16 or float32, (n_groups, out_features), or None
    """

    planes: tuple[U8, ...]
    scales: F16 | F32
    zero_point: U8
    bits: int
    offset: F16 | F32 | None = None

    @property
    def n_groups(self) -> int:
        return int(self.scales.shape[0])


def segment_bytes(group_bytes: int) -> int:
    """Return the largest divisor of a group's bytes up to SEGMENT_BYTES, or all if only tiny ones divide."""
    divisors = (n for n in range(min(group_bytes, SEGMENT_BYTES), 7, -1) if group_bytes % n == 0)
    return next(divisors, group_bytes)


def _row_tiles(start: int, stop: int, *, per_tile: int, per_product: int) -> Iterator[slice]:
    """Slices of at most per_tile rows: each a whole number of products, the last less than one."""
    while start < stop:
        rows = min(per_tile, stop - start)
        rows -= rows % per_product if rows > per_product else 0
        yield slice(start, start + rows)
        start += rows


def reorder_activations(x: F32, weight: Planes) -> list[F32]:
    """Activations as each plane meets them: arrays (fields, segments, 1, bytes, tokens).

    A masked byte is its field times a power of 2; that power is taken from x, once, and not from every weight.
    """
    reordered = []
    for plane, (field_bits, place) in zip(weight.planes, FIELDS[weight.bits], strict=True):
        n_segments, _, n_bytes = plane.shape
        view = split_activations(x, field_bits)  # (fields, blocks, lanes, T)
        out = np.empty(view.shape, dtype=np.float32)
        np.multiply(view, POWERS[field_bits] * 2.0**place, out=out)
        reordered.append(out.reshape(len(out), n_segments, 1, n_bytes, len(x)))
    return reordered


@dataclass(frozen=True)
class _Tile:
    """Where a thread masks and casts bytes.

    rows, per_product : rows of the whole tile, and of one small product in it
    masked, values    : uint8 and float32, flat
    """

    rows: int
    per_product: int
    masked: U8
    values: F32

    @classmethod
    def for_weight(cls, weight: Planes, most_rows: int) -> "_Tile":
        per_product = max(PRODUCT_BYTES // max(plane.shape[2] for plane in weight.planes), 1)
        row_size = max(
            plane.shape[0] * plane.shape[2] * len(MASKS[field_bits])
            for plane, (field_bits, _) in zip(weight.planes, FIELDS[weight.bits], strict=True)
        )
        rows = min(max(FACTORED_TILE // (row_size * per_product), 1) * per_product, most_rows)
        size = rows * row_size
        memory = scratch(5 * size)
        return cls(rows, per_product, masked=memory[4 * size :], values=memory[: 4 * size].view(np.float32))


def _dots(plane: U8, field_bits: int, x: F32, tile: _Tile, n_groups: int) -> F32:
    """Sum q x over each group, for some rows (segments, rows, bytes) of one plane: (groups, rows, T)."""
    # F fields, S segments, R rows, n bytes, T tokens
    masks = MASKS[field_bits]
    (S, R, n), F = plane.shape, len(masks)
    values = tile.values[: F * plane.size].reshape(F, S, R, n)
    if F == 1:
        values[0] = plane
    else:
        masked = tile.masked[: values.size].reshape(values.shape)
        np.bitwise_and(plane, masks, out=masked)
        np.copyto(values, masked)  # exact: whole numbers up to 255
    products = np.matmul(values.reshape(F, S, max(R // tile.per_product, 1), -1, n), x)
    dots: F32 = products.reshape(F, n_groups, -1, R, x.shape[-1]).sum(axis=(0, 2))  # (G, R, T)
    return dots


def multiply_factored(x: list[F32], x_sums: F32, weight: Planes, y: F32, start: int, stop: int) -> None:
    """Write rows start..stop of y (out_features, tokens): the factored product [AWQ-10] for a few tokens.

    Parameters
    ----------
    x : list of float32 arrays
        As made by reorder_activations.
    x_sums : float32 array, shape (n_groups, 1, tokens)
        Sum of the activations of each group.
    weight : Planes
    y : float32 array, shape (out_features, tokens)
        Written to.
    start, stop : int
        The rows to compute. Calls for different rows may run at the same time.
    """
    tile = _Tile.for_weight(weight, stop - start)
    for rows in _row_tiles(start, stop, per_tile=tile.rows, per_product=tile.per_product):
        dots = -(weight.zero_point[:, rows, None] * x_sums)  # (G, rows, T)
        for plane, (field_bits, _), x_plane in zip(weight.planes, FIELDS[weight.bits], x, strict=True):
            dots += _dots(plane[:, rows], field_bits, x_plane, tile, weight.n_groups)
        dots *= weight.scales[:, rows, None]
        if weight.offset is not None:
            dots += weight.offset[:, rows, None] * x_sums
        np.add.reduce(dots, axis=0, out=y[rows])  # (rows, T)


def unpack_rows(weight: Planes, start: int, stop: int) -> U8:
    """Return the codes of rows start..stop, uint8 (rows, in_features)."""
    rows = [plane[:, start:stop].transpose(1, 0, 2) for plane in weight.planes]  # (rows, segments, bytes)
    planes = tuple(plane.reshape(stop - start, -1) for plane in rows)  # (rows, row bytes)
    field_bits, _ = FIELDS[weight.bits][0]
    return unpack_planes(planes, weight.bits, planes[0].shape[1] * 8 // field_bits)


def dequantize_rows(weight: Planes, tile: F32, start: int, stop: int) -> None:
    """Write rows start..stop of the dequantized weight [AWQ-4] into a tile (rows, in_features)."""
    step = max(UNPACKED_TILE // tile.shape[1], 1)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        part = tile[first - start : last - start].reshape(last - first, weight.n_groups, -1)
        np.copyto(part, unpack_rows(weight, first, last).reshape(part.shape))  # (rows, n_groups, group_size)
        part -= weight.zero_point[:, first:last].T.astype(np.float32)[:, :, None]  # exact
        part *= weight.scales[:, first:last].T.astype(np.float32)[:, :, None]  # the one rounding
        if weight.offset is not None:
            part += weight.offset[:, first:last].T[:, :, None]


def _fill(weight: Planes, tile: F32, offset: int, start: int, stop: int) -> None:
    """Dequantize rows start..stop of a tile that begins at row `offset` of the weight."""
    dequantize_rows(weight, tile[start:stop], offset + start, offset + stop)


def multiply_dequantized(x: F32, weight: Planes, y: F32, *, n_threads: int) -> None:
    """Write y (tokens, out_features): tiles of the dequantized weight, each times all tokens at once.

    Parameters
    ----------
    x : float32 array, shape (tokens, in_features)
    weight : Planes
    y : float32 array, shape (tokens, out_features)
        Written to.
    n_threads : int
        Threads that dequantize a tile; BLAS brings its own for the product.
    """
    out_features, in_features = y.shape[1], x.shape[1]
    step = min(max(DEQUANTIZED_TILE // in_features, 1), out_features)
    memory = scratch(4 * step * in_features).view(np.float32).reshape(step, in_features)
    for start in range(0, out_features, step):
        tile = memory[: min(step, out_features - start)]
        run_in_shares(partial(_fill, weight, tile, start), len(tile), n_threads=n_threads)
        np.matmul(x, tile.T, out=y[:, start : start + len(tile)])
