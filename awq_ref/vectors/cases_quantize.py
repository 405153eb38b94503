"""Level 2: weights to integers.

    quantize_cases   all cases of the level

Random weights are drawn again until no quotient w / scale lies within MARGIN of a tie, so that a fused or a reordered
operation cannot flip a code; cases about ties say so.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.case import Case, Expected, exact
from awq_ref.vectors.draws import Draws, Table, to_float32
from awq_ref.vectors.groups import GROUPS
from awq_ref.vectors.oracle_quantize import Rule, choose_grid, clipped, quantize, tie_distance

SOURCE = "vectors/oracle_quantize.py"
MARGIN = Fraction(1, 2**12)
APART = "No quotient lies within 2^-12 of a tie."

# (name, rows, columns, rule, flags)
RANDOM: tuple[tuple[str, int, int, Rule, tuple[str, ...]], ...] = (
    ("bits-4", 6, 64, Rule(), ("Basic", "ManyGroups", "ScaleRounded")),
    ("bits-2", 4, 32, Rule(bits=2, group_size=8), ("SmallGroup",)),
    ("bits-3", 5, 48, Rule(bits=3, group_size=16), ("OddRows",)),
    ("bits-8", 3, 64, Rule(bits=8, group_size=32), ("ScaleRounded",)),
    ("bits-8-float32", 2, 32, Rule(bits=8, group_size=16, scale_dtype="float32"), ("Basic",)),
    ("symmetric", 4, 64, Rule(symmetric=True), ("Symmetric", "SymmetricDivisor")),
    ("symmetric-2", 3, 16, Rule(bits=2, group_size=8, symmetric=True), ("Symmetric", "SymmetricDivisor")),
    ("symmetric-3", 3, 32, Rule(bits=3, group_size=16, symmetric=True), ("Symmetric", "SymmetricDivisor")),
    ("symmetric-8", 2, 32, Rule(bits=8, group_size=32, symmetric=True), ("Symmetric", "ScaleRounded")),
    ("minmax", 4, 64, Rule(range_rule="minmax"), ("Basic",)),
    ("minmax-symmetric", 3, 32, Rule(range_rule="minmax", symmetric=True), ("Symmetric",)),
    ("whole-row", 5, 39, Rule(group_size=-1), ("WholeRow", "OddRows")),
    ("group-of-one", 3, 8, Rule(group_size=1), ("SmallGroup",)),
    ("float32-scales", 4, 32, Rule(scale_dtype="float32"), ("Basic",)),
    (
        "symmetric-float32",
        4,
        32,
        Rule(symmetric=True, scale_dtype="float32"),
        ("Symmetric", "SymmetricDivisor"),
    ),
    (
        *("symmetric-3-float32", 3, 32),
        *(Rule(bits=3, symmetric=True, scale_dtype="float32"), ("Symmetric", "SymmetricDivisor")),
    ),
)


def draw_apart(name: str, rows: int, columns: int, rule: Rule, scale: float = 0.05) -> Table:
    """Return random weights all of whose quotients keep their distance from ties."""
    for attempt in range(1000):
        draws = Draws(f"{name} {attempt}")
        weight = draws.floats(rows, columns, scale)
        weight[0] = [to_float32(w * 16.0) for w in weight[0]]  # one row with much larger scales
        if rule.group_size == 1 or tie_distance(weight, rule) >= MARGIN:
            return weight
    raise AssertionError(f"{name}: no draw keeps its distance from ties")


def _inputs(weight: Table, clip: Table | None = None) -> dict[str, AnyArray]:
    inputs: dict[str, AnyArray] = {"weight": np.array(weight, dtype=np.float32)}
    if clip is not None:
        inputs["clip"] = np.array(clip, dtype=np.float32)
    return inputs


def grid_outputs(weight: Table, rule: Rule) -> tuple[dict[str, Expected], Table, list[list[int]]]:
    """Return the expected scales and zero points, and their values."""
    scales, zeros = choose_grid(weight, rule)
    return {"scales": exact(scales, rule.scale_dtype), "zero_point": exact(zeros, "uint8")}, scales, zeros


def _linear_case(
    name: str, weight: Table, rule: Rule, flags: tuple[str, ...], comment: str, clip: Table | None = None
) -> Case:
    """Return a case of the whole way from a weight to integers."""
    inner = weight if clip is None else clipped(weight, clip, rule)
    outputs, scales, zeros = grid_outputs(inner, rule)
    outputs["int_weight"] = exact(quantize(inner, scales, zeros, rule), "uint8")
    params: dict[str, Any] = rule.params()
    return Case(f"L2/quantize_linear/{name}", params, _inputs(weight, clip), outputs, comment, SOURCE, flags)


def _random() -> Iterator[Case]:
    for name, rows, columns, rule, flags in RANDOM:
        weight = draw_apart(f"quantize {name}", rows, columns, rule)
        comment = f"{rule.bits} bits, group size {rule.group_size}. {APART}"
        yield _linear_case(name, weight, rule, flags, comment)
    for name, rule in (("plain", Rule(group_size=16)), ("symmetric", Rule(group_size=16, symmetric=True))):
        weight = draw_apart(f"grid {name}", 4, 48, rule)
        outputs, scales, zeros = grid_outputs(weight, rule)
        yield Case(
            f"L2/choose_grid/{name}",
            rule.params(),
            _inputs(weight),
            outputs,
            "The grid alone.",
            SOURCE,
            ("Basic",),
        )
        codes = exact(quantize(weight, scales, zeros, rule), "uint8")
        inputs = {
            **_inputs(weight),
            "scales": outputs["scales"].array,
            "zero_point": outputs["zero_point"].array,
        }
        params = {"bits": rule.bits, "group_size": rule.group_size}
        comment = f"The codes alone, on a given grid. {APART}"
        yield Case(f"L2/quantize/{name}", params, inputs, {"int_weight": codes}, comment, SOURCE, ("Basic",))


def _clips() -> Iterator[Case]:
    """Yield weights that are clamped first."""
    for name, rule in (
        ("clip", Rule(group_size=16)),
        ("clip-symmetric", Rule(group_size=16, symmetric=True)),
    ):
        weight = draw_apart(f"quantize {name}", 4, 48, rule)
        clip = [
            [
                to_float32(max(map(abs, g)) * r)
                for g, r in zip(rule.groups(row), (0.5, 0.75, 2.0), strict=True)
            ]
            for row in weight
        ]
        clip[3][0] = 0.0
        comment = "Three groups are clamped to half, three quarters and twice their largest weight, one to 0."
        yield _linear_case(name, weight, rule, ("ClippedRange", "AllZeroGroup"), comment, clip)


def _special() -> Iterator[Case]:
    """Yield the groups of `awq_ref.vectors.groups` under every rule that they are about."""
    for group in GROUPS:
        for rule in group.rules:
            name = f"{group.name}-{rule.bits}{'s' if rule.symmetric else ''}-{rule.range_rule}-{rule.scale_dtype}"
            yield _linear_case(name, group.weight, rule, group.flags, group.comment)


def _invalid() -> Iterator[Case]:
    rule = Rule(group_size=8)
    plain = Draws("invalid weight").floats(3, 16, 0.1)
    for name, value in (("nan", float("nan")), ("inf", float("inf")), ("minus-inf", float("-inf"))):
        weight = [list(row) for row in plain]
        weight[1][11] = value
        comment = f"One weight is {value}."
        yield Case(
            f"L2/quantize_linear/invalid-{name}",
            rule.params(),
            _inputs(weight),
            {},
            comment,
            SOURCE,
            ("NotFinite",),
        )
    huge = [[w * 1e7 for w in row] for row in plain]
    yield Case(
        "L2/quantize_linear/invalid-overflow",
        rule.params(),
        _inputs(huge),
        {},
        "Scales above 65504 do not fit float16.",
        SOURCE,
        ("ScaleOverflow",),
    )
    clip = [[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    comment = "A clip below 0."
    yield Case(
        "L2/quantize_linear/invalid-clip",
        rule.params(),
        _inputs(plain, clip),
        {},
        comment,
        SOURCE,
        ("ClippedRange",),
    )
    scales, zeros = np.full((3, 2), 0.1, dtype=np.float16), np.full((3, 2), 8, dtype=np.uint8)
    for name, bad, zero in (("zero-scale", 0.0, 8), ("nan-scale", float("nan"), 8), ("zero-point", 0.1, 16)):
        broken, broken_zeros = scales.copy(), zeros.copy()
        broken[2, 1], broken_zeros[2, 1] = bad, zero
        inputs = {**_inputs(plain), "scales": broken, "zero_point": broken_zeros}
        params = {"bits": 4, "group_size": 8}
        flags = ("BadCode",) if name == "zero-point" else ("NotFinite",)
        comment = "A grid that is none: a scale must be a positive number, a zero point a code."
        yield Case(f"L2/quantize/invalid-{name}", params, inputs, {}, comment, SOURCE, flags)


def quantize_cases() -> Iterator[Case]:
    """Yield every case of level 2."""
    yield from _random()
    yield from _clips()
    yield from _special()
    yield from _invalid()
