"""The two ways to multiply by packed columns, a tile of outputs at a time.

    multiply_factored    few tokens: mask and cast bytes, multiply group by group
    apply_grid           scales and zero points, afterwards
    multiply_dequantized many tokens: dequantize some groups, then one product for all tokens
    dequantize_groups    the float weight of some groups, bit for bit that of quantize.dequantize

Weights pass through memory that the thread keeps: a pass finds in the cache what the last one left.

Source: docs/equations.md#awq-10 and #awq-11, which bound the error of both products.
"""

import numpy as np

from awq_ref.dtypes import F32, U8
from awq_ref.matmul.columns import Columns, unpack_columns, widened
from awq_ref.matmul.planes import FIELDS
from awq_ref.matmul.threads import scratch

# docs/performance.md has what these were chosen from.
CAST_WEIGHTS = (
    2**20
)  # weights cast at a time, 4 MiB as float32: calls long enough for two threads not to queue
DEQUANTIZED_WEIGHTS = (
    2**21
)  # weights dequantized at a time for many tokens: products with thousands of inputs
SMALL_PRODUCT = (
    10**6
)  # tokens x inputs x outputs: up to here OpenBLAS multiplies without copying the weights first
LEAST_WIDTH = 64  # outputs of such a small product, at least


def _groups_at_once(weight: Columns, n_weights: int) -> int:
    return min(max(n_weights // (weight.group_size * weight.width), 1), weight.n_groups)


def _cast_fields(part: U8, masks: U8, masked: U8, values: F32) -> F32:
    """Bytes (g, n, R) as v_k of [AWQ-11], float32 (g, F n, R): without the highest fields, and whole."""
    n_groups, n_bytes, width = part.shape
    values = values[: part.size * (len(masks) + 1)].reshape(n_groups, -1, n_bytes, width)
    if len(masks):
        lower = masked[: part.size * len(masks)].reshape(n_groups, -1, n_bytes, width)
        np.bitwise_and(part[:, None], masks, out=lower)
        np.copyto(values[:, :-1], lower)  # exact: whole numbers up to 255
    np.copyto(values[:, -1], part)
    return values.reshape(n_groups, -1, width)


def _multiply(factors: F32, values: F32, dots: F32) -> None:
    """Write factors (g, T, n) times values (g, n, R) to dots (g, T, R), in products of SMALL_PRODUCT at most."""
    n_tokens, n_inputs = factors.shape[1:]
    most = SMALL_PRODUCT // (n_tokens * n_inputs * LEAST_WIDTH)
    if n_tokens == 1 or most == 0:
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


def multiply_factored(factors: list[F32], weight: Columns, dots: F32, start: int, stop: int) -> None:
    """Write the sums q x of tiles start..stop [AWQ-11]: all that takes time when tokens are few.

    Parameters
    ----------
    factors : list of float32 arrays
        As made by nest_activations.
    weight : Columns
    dots : float32 array, shape (tiles, n_groups, tokens, width)
        Written to.
    start, stop : int
        The tiles to compute. Calls for different ones may run at the same time; so that they do, there is little here
        but long calls of NumPy, which give up the interpreter's lock.
    """
    at_once = _groups_at_once(weight, CAST_WEIGHTS)
    n_weights = at_once * weight.group_size * weight.width
    more = (at_once, *dots.shape[2:]) if len(factors) > 1 else (0,)
    masked, values, product = scratch(
        ((n_weights,), np.uint8), ((n_weights,), np.float32), (more, np.float32)
    )
    for i, (plane, (field_bits, _)) in enumerate(zip(weight.planes, FIELDS[weight.bits], strict=True)):
        masks = np.array([2**b - 1 for b in range(field_bits, 8, field_bits)], dtype=np.uint8)[:, None, None]
        for tile in range(start, stop):
            for first in range(0, weight.n_groups, at_once):
                groups = slice(first, first + at_once)
                v = _cast_fields(plane[tile, groups], masks, masked, values)
                out = dots[tile, groups]
                if i == 0:
                    _multiply(factors[i][groups], v, out)
                else:
                    _multiply(factors[i][groups], v, product[: len(v)])
                    out += product[: len(v)]


def apply_grid(dots: F32, x_sums: F32, weight: Columns, spare: F32) -> F32:
    """Return y (tokens, tiles * width) from the sums q x: scales, zero points and offsets of [AWQ-10].

    Parameters
    ----------
    dots : float32 array, shape (tiles, n_groups, tokens, width)
        As written by multiply_factored; overwritten.
    x_sums : float32 array, shape (n_groups, tokens, 1)
        Sum of the activations of each group.
    weight : Columns
    spare : float32 array of the same shape
        Working memory.
    """
    zero_point = weight.zero_point[:, :, None].astype(np.float32)
    np.subtract(dots, np.multiply(zero_point, x_sums, out=spare), out=dots)
    dots *= widened(weight.scales)[:, :, None]
    if weight.offset is not None:
        dots += np.multiply(widened(weight.offset)[:, :, None], x_sums, out=spare)
    y: F32 = np.add.reduce(dots, axis=1).transpose(1, 0, 2)  # (tokens, tiles, width)
    return y.reshape(dots.shape[2], -1)


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
    part *= widened(weight.scales[tile, groups])[:, None]  # the one rounding
    if weight.offset is not None:
        part += widened(weight.offset[tile, groups])[:, None]


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
    at_once, (group_size, width) = (
        _groups_at_once(weight, DEQUANTIZED_WEIGHTS),
        (weight.group_size, weight.width),
    )
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
