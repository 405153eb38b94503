"""Oracle of level 3: products whose every term is exact, summed without rounding, with a bound on what others may lose.

    multiply               y and its bound, for each precision
    activation_codes       activations -> int8 codes and scales
    multiply_w4a8          y and its bound, from such codes

A product of a float32 (24 bits), a code difference (9) and a float16 scale (11) has 44 bits: exact in float64. The sum
is `math.fsum`, which rounds once. Bounds: a path from a term to the result passes at most k roundings, so the error is
at most gamma_k times the sum of the absolute terms, whatever the order (Higham 2002, Accuracy and Stability of
Numerical Algorithms, lemma 3.1).
"""

import math
from fractions import Fraction

from awq_ref.vectors.draws import Codes, Table
from awq_ref.vectors.oracle_bits import Linear
from awq_ref.vectors.rounding import fl32, rint

U16, U32 = 2.0**-11, 2.0**-24
SAFETY = 1.01  # the bound's own rounding, and products of two errors

WHY = {
    "float32": (
        "gamma_k sum_j s (q + z) |x| (+ |o x|, + |bias|), k = I + G + 8, u = 2^-24: products, sums over groups and of "
        "groups in any order, fused or not, weights dequantized first or the zero point taken out of the sum"
    ),
    "float16_weights": (
        "as float32, and 2^-11 sum_j |w x| + 2^-25 sum_j |x|: each dequantized weight rounded to float16"
    ),
    "float16": (
        "gamma_k sum_j s (q + z) |x| (+ |o x|, + |bias|), k = I + G + 8, u = 2^-11, and 2^-22 for each term: all in "
        "float16, in any order"
    ),
    "w4a8": (
        "gamma_k sum over groups s d (|q.a| + z |sum a|), k = groups + 8, u = 2^-24: integer sums exact, groups "
        "added in any order"
    ),
}


def gamma(k: int, unit: float) -> float:
    """Return k u / (1 - k u)."""
    return k * unit / (1.0 - k * unit)


def _parts(linear: Linear, o: int, i: int) -> tuple[float, float, float]:
    """Return weight without offset, offset, and s (q + z): exact in float64."""
    g = linear.group_of(i)
    code, scale = linear.codes[o][i], linear.scales[o][g]
    if linear.offsets is not None:
        return code * scale, linear.offsets[o][g], code * scale
    assert linear.zeros is not None
    zero = linear.zeros[o][g]
    return (code - zero) * scale, 0.0, (code + zero) * scale


def _element(x: list[float], linear: Linear, o: int, bias: float, precision: str) -> tuple[float, float]:
    """Return one output and its bound."""
    parts = [_parts(linear, o, i) for i in range(linear.inputs)]
    terms = [xi * w for xi, (w, _, _) in zip(x, parts, strict=True)]
    terms += [xi * offset for xi, (_, offset, _) in zip(x, parts, strict=True)]
    size = math.fsum(abs(xi) * (big + abs(off)) for xi, (_, off, big) in zip(x, parts, strict=True)) + abs(
        bias
    )
    roundings = linear.inputs + linear.groups + 8
    if precision == "float16":
        bound = gamma(roundings, U16) * size + 2.0**-22 * linear.inputs
    else:
        bound = gamma(roundings, U32) * size
    if precision == "float16_weights":
        rounded = math.fsum(abs(xi * (w + off)) for xi, (w, off, _) in zip(x, parts, strict=True))
        bound += U16 * rounded + 2.0**-25 * math.fsum(map(abs, x))
    return math.fsum([*terms, bias]), bound * SAFETY


def multiply(x: Table, linear: Linear, bias: list[float] | None, precision: str) -> tuple[Table, Table]:
    """Return y (T, O) = x w^T + bias and the bounds of its elements."""
    biases = bias or [0.0] * linear.outputs
    rows = [[_element(row, linear, o, biases[o], precision) for o in range(linear.outputs)] for row in x]
    return [[y for y, _ in row] for row in rows], [[bound for _, bound in row] for row in rows]


def activation_codes(x: Table, size: int) -> tuple[Codes, Table, Fraction]:
    """Return codes (T, I), scales (T, I / size), and the least distance of a quotient from a tie."""
    codes: Codes = []
    scales: Table = []
    nearest = Fraction(1, 2)
    for row in x:
        row_codes: list[int] = []
        row_scales: list[float] = []
        for start in range(0, len(row), size):
            group = [Fraction(value) for value in row[start : start + size]]
            scale = fl32(max(map(abs, group)) / 127)
            quotients = [fl32(value / scale) if scale else Fraction(0) for value in group]
            row_codes += [max(-127, min(127, rint(quotient))) for quotient in quotients]
            row_scales.append(float(scale))
            nearest = min([nearest, *(abs(q - math.floor(q) - Fraction(1, 2)) for q in quotients)])
        codes.append(row_codes)
        scales.append(row_scales)
    return codes, scales, nearest


def multiply_w4a8(x: Table, linear: Linear, size: int) -> tuple[Table, Table]:
    """Return y (T, O) of activations in groups of `size`, quantized to int8, and its bounds."""
    assert linear.zeros is not None
    codes, act_scales, _ = activation_codes(x, size)
    n = linear.inputs // size
    values: Table = []
    bounds: Table = []
    for row, row_scales in zip(codes, act_scales, strict=True):
        ys: list[float] = []
        sizes: list[float] = []
        for o in range(linear.outputs):
            terms, magnitude = [], 0.0
            for block in range(n):
                span = range(block * size, (block + 1) * size)
                g = linear.group_of(block * size)
                zero, scale = linear.zeros[o][g], linear.scales[o][g] * row_scales[block]
                dot, total = sum(linear.codes[o][i] * row[i] for i in span), sum(row[i] for i in span)
                terms.append(scale * (dot - zero * total))
                magnitude += scale * (abs(dot) + zero * abs(total))
            ys.append(math.fsum(terms))
            sizes.append(gamma(n + 8, U32) * magnitude * SAFETY)
        values.append(ys)
        bounds.append(sizes)
    return values, bounds
