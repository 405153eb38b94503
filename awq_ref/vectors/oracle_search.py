"""Oracle of level 4: statistics, channel scales and losses, with a bound on what float32 may make of them.

    mean_abs, gram       of activations
    channel_scales       of one alpha, in both formulas
    scaled_errors        e = Q(w s) / s - w of every row, and how wrong a backend's e may be
    quadratic            e C e^T and its bound

Codes are exact (`oracle_quantize`); what follows them is float64, whose own rounding, 2^-29 of float32's, the factor
SAFETY covers. Source: docs/conformance.md#l4-search.
"""

import math
from fractions import Fraction

from awq_ref.vectors.draws import Table, to_float32
from awq_ref.vectors.oracle_matmul import SAFETY, U32, gamma
from awq_ref.vectors.oracle_quantize import Rule, choose_grid, quantize, tie_distance
from awq_ref.vectors.oracle_real import power
from awq_ref.vectors.rounding import fl16, fl32

SCALE_ERROR = (
    2.0**-18
)  # relative: a power in float32, by way of exp and log, and the division by sqrt(max min)
MARGIN = Fraction(1, 2**12)
Row = list[float]


def mean_abs(x: Table) -> tuple[Row, Row]:
    """Return mean |x| of every channel, and the bound of a float32 sum in any order."""
    means = [math.fsum(map(abs, column)) / len(x) for column in zip(*x, strict=True)]
    return means, [gamma(len(x) + 2, U32) * mean * SAFETY for mean in means]


def gram(x: Table) -> tuple[Table, Table]:
    """Return X^T X / n, and the bound of float32 sums in any order."""
    columns = list(zip(*x, strict=True))
    values, bounds = [], []
    for a in columns:
        products = [[p * q for p, q in zip(a, b, strict=True)] for b in columns]
        values.append([math.fsum(terms) / len(x) for terms in products])
        sizes = [math.fsum(map(abs, terms)) / len(x) for terms in products]
        bounds.append([gamma(len(x) + 4, U32) * size * SAFETY for size in sizes])
    return values, bounds


def channel_scales(act_mean_abs: Row, alpha: float, formula: str) -> Row:
    """Return the channel scales of one alpha, to float64."""
    if formula == "llm-awq":
        powers = [max(power(a, alpha), 1e-4) for a in act_mean_abs]
        middle = math.sqrt(max(powers) * min(powers))
        return [p / middle for p in powers]
    largest = max(act_mean_abs)
    live = [power(max(a / largest, 2.0**-16), alpha) for a in act_mean_abs if a > 0]
    middle = math.sqrt(max(live) * min(live))
    return [power(max(a / largest, 2.0**-16), alpha) / middle if a > 0 else 1.0 for a in act_mean_abs]


def scaled(weight: Table, scales: Row) -> Table:
    """Return fl32(w s)."""
    return [
        [float(fl32(Fraction(w) * Fraction(s))) for w, s in zip(row, scales, strict=True)] for row in weight
    ]


def dequantized(weight: Table, rule: Rule) -> Table:
    """Return the weight after a trip to its codes and back: exact in float64."""
    scales, zeros = choose_grid(weight, rule)
    codes = quantize(weight, scales, zeros, rule)
    size = len(weight[0]) // len(scales[0])
    return [
        [(q - zeros[o][i // size]) * scales[o][i // size] for i, q in enumerate(row)]
        for o, row in enumerate(codes)
    ]


def scaled_errors(weight: Table, scales: Row, rule: Rule, scale_error: float = 0.0) -> tuple[Table, Table]:
    """Return e = Q(w s) / s - w, and how far a float32 backend's may be from it.

    It rounds w s, the quotient and the difference; scale_error is the relative error of its own scales.
    """
    errors, bounds = [], []
    for row, back in zip(weight, dequantized(scaled(weight, scales), rule), strict=True):
        quotients = [b / s for b, s in zip(back, scales, strict=True)]
        e = [q - w for q, w in zip(quotients, row, strict=True)]
        errors.append(e)
        bounds.append(
            [
                (2 * U32 + scale_error) * abs(q) + 2 * U32 * abs(w) + 2 * U32 * abs(d)
                for q, w, d in zip(quotients, row, e, strict=True)
            ]
        )
    return errors, bounds


def quadratic(e: Row, off: Row, matrix: Table) -> tuple[float, float]:
    """Return e C e^T, and the bound where e is off by at most `off` and the sums are float32 in any order."""
    values, sizes, carried = [], [], []
    for i, (ei, oi) in enumerate(zip(e, off, strict=True)):
        for j, (ej, oj) in enumerate(zip(e, off, strict=True)):
            c = matrix[i][j]
            values.append(ei * c * ej)
            sizes.append(abs(ei * c * ej))
            carried.append(abs(c) * (abs(ei) * oj + oi * abs(ej) + oi * oj))
    bound = math.fsum(carried) + gamma(2 * len(e) + 8, U32) * (math.fsum(sizes) + math.fsum(carried))
    return math.fsum(values), bound * SAFETY


def loss_of(
    weight: Table, scales: Row, matrix: Table, rule: Rule, scale_error: float = 0.0
) -> tuple[float, float]:
    """Return the loss of channel scales, and its bound."""
    parts = [
        quadratic(*pair, matrix)
        for pair in zip(*scaled_errors(weight, scales, rule, scale_error), strict=True)
    ]
    n = len(weight)
    loss, bound = math.fsum(v for v, _ in parts) / n, math.fsum(b for _, b in parts) / n
    return loss, bound + gamma(n + 2, U32) * (loss + bound)


def is_steady(weight: Table, rule: Rule) -> bool:
    """Tell whether a relative change of 2^-17 in the weights leaves codes and float16 scales as they are."""
    if tie_distance(weight, rule) < MARGIN:
        return False
    for row in weight:
        for group in rule.groups(row):
            low, high = min([*group, Fraction(0)]), max([*group, Fraction(0)])
            width = max(-low, high) if rule.symmetric else high - low
            delta = width / (rule.middle - 1 if rule.symmetric else rule.qmax)
            near = Fraction(1, 2**17)
            if fl16(delta * (1 - near)) != fl16(delta * (1 + near)):
                return False
    return True


def clip_losses(
    weight: Table, matrix: Table, ratios: Row, rule: Rule
) -> tuple[list[Table], list[Table], list[list[int]], bool]:
    """Return losses and bounds (ratios, O, G), the choices (O, G), and whether all of them are clear."""
    size = len(weight[0]) if rule.group_size == -1 else rule.group_size
    groups = len(weight[0]) // size
    one = Rule(rule.bits, -1, rule.symmetric, rule.range_rule, rule.scale_dtype)
    values = [[[0.0] * groups for _ in weight] for _ in ratios]
    bounds = [[[0.0] * groups for _ in weight] for _ in ratios]
    choices = [[0] * groups for _ in weight]
    clear = True
    for o, row in enumerate(weight):
        for g in range(groups):
            span = range(g * size, (g + 1) * size)
            group, block = [row[i] for i in span], [[matrix[i][j] for j in span] for i in span]
            found = [_clipped_loss(group, block, ratio, one) for ratio in ratios]
            for r, (value, bound, _) in enumerate(found):
                values[r][o][g], bounds[r][o][g] = value, bound
            choices[o][g], is_clear = _choice(found)
            clear = clear and is_clear
    return values, bounds, choices, clear


def _clipped_loss(group: Row, block: Table, ratio: float, rule: Rule) -> tuple[float, float, Row]:
    """Return loss, bound and error of one group under one ratio; an unsteady one has an infinite bound."""
    limit = to_float32(to_float32(ratio) * max(map(abs, group)))
    inside = [max(-limit, min(limit, w)) for w in group]
    back = dequantized([inside], rule)[0]
    e = [b - w for b, w in zip(back, group, strict=True)]
    off = [U32 * (abs(d) + abs(b)) for d, b in zip(e, back, strict=True)]
    value, bound = quadratic(e, off, block)
    return value, bound if tie_distance([inside], rule) >= MARGIN else math.inf, e


def _choice(found: list[tuple[float, float, Row]]) -> tuple[int, bool]:
    """Return the first least loss, and whether no bound could make another one least (equal errors aside)."""
    best = min(range(len(found)), key=lambda r: (found[r][0], r))
    value, bound, e = found[best]
    clear = all(other == e or theirs - their_bound > value + bound for theirs, their_bound, other in found)
    return best, clear
