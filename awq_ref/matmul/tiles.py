"""The two ways to multiply by packed columns, a tile of outputs at a time.

    multiply_factored    few tokens: mask and cast bytes, multiply group by group
    weights_at_once      how many in one call
    apply_grid           scales and zero points, afterwards
    multiply_dequantized many tokens: dequantize some groups, then one product for all tokens
    dequantize_groups    the float weight of some groups, bit for bit that of quantize.dequantize

Weights pass through memory that the thread keeps: a pass finds in the cache what the last one left.

Source: docs/equations.md#awq-10 and #awq-11, which bound the error of both products.
"""

from functools import lru_cache

import numpy as np

from awq_ref.buffers import cache_bytes, scratch
from awq_ref.dtypes import F32, U8
from awq_ref.matmul.columns import Columns, unpack_columns
from awq_ref.matmul.planes import FIELDS

# docs/performance.md has what these were chosen from.
CAST_BYTES = 5  # of a weight as float32 and masked, in a quarter of the cache that the threads share
LEAST_CAST, MOST_CAST = 2**17, 2**20  # weights cast at a time: calls long enough for threads not to queue
DEQUANTIZED_WEIGHTS = (
    2**21
)  # weights dequantized at a time for many tokens: products with thousands of inputs
SMALL_PRODUCT = (
    10**6
)  # tokens x inputs x outputs: up to here OpenBLAS multiplies without copying the weights first
LEAST_WIDTH = 64  # outputs of such a small product, at least


def weights_at_once(n_threads: int) -> int:
    """Return how many weights each of some threads casts at a time: the results do not depend on it."""
    return min(max(cache_bytes() // (4 * CAST_BYTES * n_threads), LEAST_CAST), MOST_CAST)


def _even_steps(n: int, most: int) -> int:
    """Return the step that cuts n into as few parts as steps of at most `most` do, and nearly equal ones."""
    parts = -(-n // max(most, 1))
    return -(-n // parts)


def _multiply(factors: F32, values: F32, dots: F32) -> None:
    """Write factors (g, T, n) times values (g, n, R) to dots (g, T, R), in products of SMALL_PRODUCT at most."""
    n_tokens, n_inputs = factors.shape[1:]
    most = 0 if n_tokens == 1 else SMALL_PRODUCT // (n_tokens * n_inputs * LEAST_WIDTH)
    if most == 0:
        np.matmul(factors, values, out=dots)
        return
    width = min(LEAST_WIDTH * 2 ** (most.bit_length() - 1), dots.shape[2])
    whole = dots.shape[2] // width * width
    cut, out = (
        a[..., :whole].reshape(*a.shape[:2], -1, width).transpose(0, 2, 1, 3)  # (g, R / width, n or T, width)
        for a in (values, dots)
    )
    np.matmul(factors[:, None], cut, out=out)
    if whole < dots.shape[2]:
        np.matmul(factors, values[..., whole:], out=dots[..., whole:])


@lru_cache
def _masks(bits: int) -> tuple[U8, ...]:
    """What leaves the fields up to k, for each k but the highest of each array of bytes: (fields - 1, 1, 1)."""
    return tuple(
        np.array([2**b - 1 for b in range(field_bits, 8, field_bits)], dtype=np.uint8)[:, None, None]
        for field_bits, _ in FIELDS[bits]
    )


def multiply_factored(
    factors: list[F32], weight: Columns, dots: F32, at_once: int, start: int, stop: int
) -> None:
    """Write the sums q x of some groups [AWQ-11]: all that takes time when tokens are few.

    Parameters
    ----------
    factors : list of float32 arrays, shapes (tiles * n_groups, tokens, group_size)
        As made by nest_activations, the same for every tile.
    weight : Columns
    dots : float32 array, shape (tiles * n_groups, tokens, width)
        Written to.
    at_once : int
        Weights to cast at a time (`weights_at_once`).
    start, stop : int
        The groups to compute, counted through all tiles. Calls for different ones may run at the same time; so that
        they do, there is little here but long calls of NumPy, which give up the interpreter's lock.
    """
    group_size, width = weight.group_size, weight.width
    step = _even_steps(stop - start, at_once // (group_size * width))
    more = (step, *dots.shape[1:]) if len(factors) > 1 else (0,)
    n_weights = step * group_size * width
    masked, values, product = scratch(
        ((n_weights,), np.uint8), ((n_weights,), np.float32), (more, np.float32)
    )
    for i, (plane, masks) in enumerate(zip(weight.planes, _masks(weight.bits), strict=True)):
        parts = plane.reshape(-1, 1, *plane.shape[2:])  # (tiles G, 1, n, R)
        v = values.reshape(step, len(masks) + 1, -1, width)  # v_k of [AWQ-11], (g, F, n, R)
        partial, whole, by_group = v[:, :-1], v[:, -1:], values.reshape(step, group_size, width)
        lower = masked[: partial.size].reshape(partial.shape)
        for first in range(start, stop, step):
            part = parts[first : min(first + step, stop)]
            if len(part) < len(whole):
                partial, whole, by_group, lower = (a[: len(part)] for a in (partial, whole, by_group, lower))
            if len(masks):
                np.bitwise_and(part, masks, out=lower)
                np.copyto(partial, lower)  # exact: whole numbers up to 255
            np.copyto(whole, part)
            groups = slice(first, first + len(part))
            if i == 0:
                _multiply(factors[0][groups], by_group, dots[groups])
            else:
                _multiply(factors[i][groups], by_group, product[: len(part)])
                dots[groups] += product[: len(part)]


def apply_grid(dots: F32, x_sums: F32, weight: Columns) -> F32:
    """Return y (tokens, tiles * width) from the sums q x: scales, zero points and offsets of [AWQ-10].

    Parameters
    ----------
    dots : float32 array, shape (tiles * n_groups, tokens, width)
        As written by multiply_factored; overwritten.
    x_sums : float32 array, shape (tokens, n_groups)
        Sum of the activations of each group.
    weight : Columns
    """
    n_tokens = len(x_sums)
    by_tile = dots.reshape(weight.n_tiles, weight.n_groups, n_tokens, -1)
    by_tile *= weight.scales[:, :, None]
    y: F32 = np.add.reduce(by_tile, axis=1)  # (tiles, tokens, width)
    y += np.matmul(x_sums, weight.shift)
    return y.transpose(1, 0, 2).reshape(n_tokens, -1)


def dequantize_groups(weight: Columns, tile: int, groups: slice, part: F32, fields: U8) -> None:
    """Write the dequantized weight [AWQ-4] of some groups of a tile.

    Parameters
    ----------
    weight : Columns
    tile : int
    groups : slice
    part : float32 array, shape (groups, group_size, width)
        Written to.
    fields : uint8 array, shape (planes, groups, group_size, width)
        Working memory.
    """
    np.copyto(part, unpack_columns(weight, tile, groups, fields))
    part -= weight.zero_point[tile, groups, None].astype(np.float32)  # exact
    part *= weight.scales[tile, groups, None]  # the one rounding
    if weight.offset is not None:
        part += weight.offset[tile, groups, None]


def multiply_dequantized(x: F32, weight: Columns, y: F32, start: int, stop: int) -> None:
    """Write tiles start..stop of y: some groups of the dequantized weight at a time, times all tokens at once.

    Parameters
    ----------
    x : float32 array, shape (tokens, in_features)
    weight : Columns
    y : float32 array, shape (tokens, tiles * width)
        Written to.
    start, stop : int
        The tiles to compute. Calls for different ones may run at the same time.
    """
    group_size, width = weight.group_size, weight.width
    at_once = min(max(DEQUANTIZED_WEIGHTS // (group_size * width), 1), weight.n_groups)
    shape = (at_once, group_size, width)
    memory, fields, product = scratch(
        (shape, np.float32), ((len(weight.planes), *shape), np.uint8), ((len(x), width), np.float32)
    )
    for tile in range(start, stop):
        out = y[:, tile * width : (tile + 1) * width]
        for group in range(0, weight.n_groups, at_once):
            groups = slice(group, min(group + at_once, weight.n_groups))
            part = memory[: groups.stop - group]
            dequantize_groups(weight, tile, groups, part, fields[:, : len(part)])
            inputs = x[:, group * group_size : groups.stop * group_size]
            np.matmul(inputs, part.reshape(-1, width), out=product if group else out)
            if group:
                out += product
