"""Oracle of levels 1 and 2: grids, codes and weights in exact arithmetic, one rounding where the text says one.

    Rule            how weights become integers: the parameters of a request
    choose_grid     weight -> scales, zero points
    quantize        weight on a grid -> codes
    dequantize      codes -> weights, exact
    tie_distance    how far the nearest quotient is from a tie

Source: docs/conformance.md#l2-quantize, step by step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from awq_ref.vectors.draws import Codes, Table
from awq_ref.vectors.oracle_bits import Linear
from awq_ref.vectors.rounding import FORMATS, fl32, rint

Row = Sequence[Fraction]
FLOOR = fl32(Fraction("1e-5"))
HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Rule:
    """The parameters of `choose_grid` and `quantize_linear`."""

    bits: int = 4
    group_size: int = 32
    symmetric: bool = False
    range_rule: str = "zero"
    scale_dtype: str = "float16"

    @property
    def qmax(self) -> int:
        return int(2**self.bits) - 1

    @property
    def middle(self) -> int:
        return int(2 ** (self.bits - 1))

    def params(self) -> dict[str, object]:
        """Return them as a request has them."""
        names = ("bits", "group_size", "symmetric", "range_rule", "scale_dtype")
        return {name: getattr(self, name) for name in names}

    def groups(self, row: Sequence[float]) -> Iterator[list[Fraction]]:
        """Yield the groups of a row, as exact numbers."""
        size = len(row) if self.group_size == -1 else self.group_size
        for start in range(0, len(row), size):
            yield [Fraction(w) for w in row[start : start + size]]


def _clamp(value: Fraction, low: Fraction, high: Fraction) -> Fraction:
    return max(low, min(high, value))


def grid_of_group(group: Row, rule: Rule) -> tuple[Fraction, int]:
    """Return scale and zero point of one group."""
    low, high = min(group), max(group)
    if rule.range_rule == "zero":
        low, high = min(low, Fraction(0)), max(high, Fraction(0))
    if rule.symmetric:
        width, steps = max(-low, high), rule.middle - 1
    else:
        width, steps = fl32(high - low), rule.qmax
    delta = fl32(max(width, FLOOR) / steps)
    scale = FORMATS[rule.scale_dtype](delta)
    if rule.symmetric:
        return scale, rule.middle
    return scale, max(0, min(rule.qmax, -rint(fl32(low / scale))))


def code_of(weight: Fraction, scale: Fraction, zero: int, qmax: int) -> int:
    """Return the code of one weight: rounded first, then shifted, then held to the grid."""
    return max(0, min(qmax, rint(fl32(weight / scale)) + zero))


def clipped(weight: Table, clip: Table, rule: Rule) -> Table:
    """Return the weight with every group clamped to [-c, c]."""
    rows = []
    for row, limits in zip(weight, clip, strict=True):
        groups = [
            [float(_clamp(w, -Fraction(c), Fraction(c))) for w in group]
            for group, c in zip(rule.groups(row), limits, strict=True)
        ]
        rows.append([w for group in groups for w in group])
    return rows


def choose_grid(weight: Table, rule: Rule) -> tuple[Table, Codes]:
    """Return scales and zero points of every group."""
    grids = [[grid_of_group(group, rule) for group in rule.groups(row)] for row in weight]
    return [[float(s) for s, _ in row] for row in grids], [[z for _, z in row] for row in grids]


def quantize(weight: Table, scales: Table, zeros: Codes, rule: Rule) -> Codes:
    """Return the codes of a weight on a grid."""
    return [
        [
            code_of(w, Fraction(scale), zero, rule.qmax)
            for group, scale, zero in zip(rule.groups(row), row_scales, row_zeros, strict=True)
            for w in group
        ]
        for row, row_scales, row_zeros in zip(weight, scales, zeros, strict=True)
    ]


def weight_of(linear: Linear, o: int, i: int) -> tuple[Fraction, Fraction]:
    """Return product and offset of one weight, exact: w is their sum."""
    g = linear.group_of(i)
    scale = Fraction(linear.scales[o][g])
    if linear.offsets is not None:
        return linear.codes[o][i] * scale, Fraction(linear.offsets[o][g])
    assert linear.zeros is not None
    return (linear.codes[o][i] - linear.zeros[o][g]) * scale, Fraction(0)


def tie_distance(weight: Table, rule: Rule) -> Fraction:
    """Return the least distance of a quotient w / scale (or lo / scale) from half an integer."""
    nearest = HALF
    for row in weight:
        for group in rule.groups(row):
            scale, _ = grid_of_group(group, rule)
            for w in group:
                quotient = w / scale
                nearest = min(nearest, abs(quotient - quotient.numerator // quotient.denominator - HALF))
    return nearest
