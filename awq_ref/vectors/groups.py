"""Groups of weights that quantizers get wrong: a name, the weights, the rules under which they are asked.

    SpecialGroup   one row of the table
    GROUPS         the table

A weight here is one group per row (group_size = its length).
"""

from dataclasses import dataclass

from awq_ref.vectors.draws import Table, to_float32
from awq_ref.vectors.oracle_quantize import Rule


@dataclass(frozen=True)
class SpecialGroup:
    """Weights, the rules to ask them under, and the bugs that they are about."""

    name: str
    weight: Table
    rules: tuple[Rule, ...]
    flags: tuple[str, ...]
    comment: str


def _rules(*changes: dict[str, object], **common: object) -> tuple[Rule, ...]:
    return tuple(Rule(group_size=8, **{**common, **change}) for change in changes)  # type: ignore[arg-type]


def _row(*values: float) -> list[float]:
    return [to_float32(value) for value in values]


BOTH: tuple[dict[str, object], ...] = ({"range_rule": "zero"}, {"range_rule": "minmax"})
EVERY: tuple[dict[str, object], ...] = (*BOTH, {"symmetric": True})

GROUPS: tuple[SpecialGroup, ...] = (
    SpecialGroup(
        "zeros",
        [_row(*[0.0] * 8), _row(*[-0.0] * 8)],
        _rules(*EVERY, {"bits": 2}, {"bits": 3}, {"bits": 8}, {"scale_dtype": "float32"}),
        ("AllZeroGroup", "ScaleSubnormal"),
        "All weights are 0, or -0: the scale is 1e-5 / steps, rounded, and not 0.",
    ),
    SpecialGroup(
        "constant",
        [_row(*[0.1] * 8), _row(*[-0.1] * 8), _row(*[3.0] * 8)],
        _rules(*EVERY),
        ("ConstantGroup", "OneSidedGroup"),
        "One value eight times. With minmax it is destroyed, and that is what is asked for.",
    ),
    SpecialGroup(
        "one-sided",
        [_row(1.0, 1.25, 1.5, 2.0, 1.1, 1.2, 1.7, 1.9), _row(-3.0, -2.0, -2.3, -2.9, -2.6, -2.1, -2.4, -2.7)],
        _rules(*EVERY, {"bits": 8}),
        ("OneSidedGroup",),
        "All weights have one sign.",
    ),
    SpecialGroup(
        "far-one-sided",
        [_row(10.0, 11.0, 10.5, 10.25, 10.75, 10.9, 10.1, 10.3)],
        _rules(*BOTH),
        ("OneSidedGroup",),
        "Far from 0 and close together.",
    ),
    SpecialGroup(
        "outlier",
        [
            _row(0.01, -0.02, 0.015, 7.9, 0.005, -0.01, 0.02, -0.03),
            _row(0.3, -0.2, 0.1, -50.3, 0.4, 0.2, -0.1, 0.05),
        ],
        _rules(*BOTH, {"symmetric": True}, {"bits": 3}),
        ("Outlier",),
        "One weight is some hundred times as large as the others.",
    ),
    SpecialGroup(
        "tiny",
        [
            _row(0.0, 2e-6, 5e-6, 8e-6, 1e-6, 3e-6, 4e-6, 7e-6),
            _row(*[s * 1e-7 for s in (1, -2, 3, -4, 5, -6, 7, 8)]),
        ],
        _rules(*EVERY),
        ("AllZeroGroup", "ScaleSubnormal"),
        "A range below the floor of 1e-5.",
    ),
    SpecialGroup(
        "subnormal-scale",
        [_row(*[s * 3e-5 for s in (1.1, -2.2, 3.3, -4.4, 5.5, -6.6, 7.7, 8.8)])],
        _rules(*EVERY, {"bits": 8}),
        ("ScaleSubnormal", "ScaleRounded"),
        "The scale is a subnormal float16, with few bits; codes follow the stored one.",
    ),
    SpecialGroup(
        "large",
        [_row(*[s * 1e5 for s in (1.1, -2.2, 3.3, -4.4, 2.5, -3.6, 1.7, 4.1)])],
        _rules({}, {"symmetric": True}, {"scale_dtype": "float32", "bits": 8}),
        ("ScaleOverflow",),
        "A scale near the largest float16, but below it.",
    ),
    SpecialGroup(
        "float32-large",
        [_row(*[s * 1e30 for s in (1.1, -2.2, 3.3, -4.4, 2.5, -3.6, 1.7, 4.1)])],
        _rules({"scale_dtype": "float32"}),
        ("ScaleOverflow",),
        "Far beyond float16, with scales in float32.",
    ),
    SpecialGroup(
        "ties-even-zero",
        [_row(-1.0, -0.9375, -0.0625, 0.0625, 0.1875, 0.3125, 0.6875, 0.875)],
        _rules(*BOTH),
        ("RoundingTie",),
        "The scale is 1/8, the zero point 8; six weights lie halfway between two codes.",
    ),
    SpecialGroup(
        "ties-odd-zero",
        [_row(-0.875, -0.8125, -0.0625, 0.0625, 0.1875, 0.3125, 0.6875, 1.0)],
        _rules(*BOTH),
        ("RoundingTie", "TieBeforeZero"),
        "The scale is 1/8, the zero point 7: rint(x) + 7 is not rint(x + 7).",
    ),
    SpecialGroup(
        "ties-symmetric",
        [_row(-0.875, -0.8125, -0.0625, 0.0625, 0.1875, 0.3125, 0.6875, 0.875)],
        _rules({"symmetric": True}),
        ("RoundingTie", "SymmetricDivisor"),
        "The scale is 1/8 = 0.875 / 7.",
    ),
    SpecialGroup(
        "tie-zero-point",
        [
            _row(-0.4375, 1.4375, 0.25, 0.5, -0.25, 0.75, 1.0, 1.125),
            _row(-0.3125, 1.5625, 0.25, 0.5, -0.25, 0.75, 1.0, 1.125),
        ],
        _rules(*BOTH),
        ("RoundingTie",),
        "lo / scale is -3.5 and -2.5: the zero points are 4 and 2.",
    ),
)
