"""Level 4: the search's inner numbers: statistics, channel scales, losses, choices.

search_cases   all cases of the level
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from awq_ref.vectors.case import Case, Expected, exact, within_bound
from awq_ref.vectors.draws import Draws, Table, to_float32
from awq_ref.vectors.oracle_quantize import Rule, tie_distance
from awq_ref.vectors.oracle_search import (
    MARGIN,
    SCALE_ERROR,
    channel_scales,
    clip_losses,
    gram,
    is_steady,
    loss_of,
    mean_abs,
    scaled,
)

SOURCE = "vectors/oracle_search.py"
SUM_WHY = "gamma_(T + 4) sum |terms| / T, u = 2^-24: float32 sums in any order"
POWER_WHY = "2^-18 of the value: the power by way of exp and log in float32, and the division"
LOSS_WHY = (
    "e is off by 2 u (|w''/s| + |w| + |e|), carried through e C e^T, and gamma_(2 I + 8) of the sum of absolute terms: "
    "float32 in any order; codes are exact, no quotient lies within 2^-12 of a tie"
)
ALPHAS = [0.0, 0.25, 0.5, 0.75, 1.0]
TWENTIETHS = [n / 20 for n in range(20)]  # what llm-awq and AutoAWQ try
RATIOS = [1.0, 0.9, 0.8, 0.7, 0.6]


def _activations(name: str, tokens: int, inputs: int) -> Table:
    """Return correlated activations with two large channels."""
    draws = Draws(name)
    x = draws.floats(tokens, inputs)
    for row in x:
        row[1] = to_float32(row[1] * 0.2 + row[0])
        row[3], row[-1] = to_float32(row[3] * 12.0), to_float32(row[-1] * 5.0)
    return x


def _statistics_cases() -> Iterator[Case]:
    x = _activations("statistics", 24, 16)
    for row in x:
        row[5] = 0.0
    inputs = {"x": np.array(x, dtype=np.float32)}
    rows: tuple[tuple[str, tuple[Any, Any], str, tuple[str, ...]], ...] = (
        ("act_mean_abs", mean_abs(x), "The mean of |x|, not its largest.", ("MeanNotMax", "DeadChannel")),
        ("gram", gram(x), "The mean of x x^T over tokens.", ("FullGram",)),
    )
    for op, (values, bounds), comment, flags in rows:
        outputs = {op: within_bound(values, bounds, SUM_WHY)}
        yield Case(f"L4/{op}/plain", {}, inputs, outputs, comment, SOURCE, flags)


def _scales_cases() -> Iterator[Case]:
    means = [to_float32(value) for value in mean_abs(_activations("scales", 24, 16))[0]]
    dead = [0.0 if i in (2, 7) else value for i, value in enumerate(means)]
    wide = [to_float32(2.0 ** (i - 8)) for i in range(16)] + [1e-30]
    for formula in ("awq", "llm-awq"):
        for name, statistic in (("plain", means), ("dead", dead), ("wide", wide)):
            for alpha in (0.0, 0.35, 1.0):
                values = channel_scales(statistic, alpha, formula)
                bound = [value * SCALE_ERROR for value in values]
                flags = ("Normalized", *(("DeadChannel",) if name == "dead" else ()))
                yield Case(
                    f"L4/channel_scales/{formula}-{name}-{alpha}",
                    {"formula": formula, "alpha": alpha},
                    {"act_mean_abs": np.array(statistic, dtype=np.float32)},
                    {"channel_scales": within_bound(values, bound, POWER_WHY)},
                    f"alpha {alpha}, {name} statistics.",
                    SOURCE,
                    (*flags, "AlphaEnds") if alpha in (0.0, 1.0) else flags,
                )


LOSSES: tuple[tuple[str, Rule], ...] = (
    ("bits-4", Rule(group_size=16)),
    ("bits-3", Rule(bits=3, group_size=8)),
    ("symmetric", Rule(group_size=16, symmetric=True)),
    ("float32-scales", Rule(group_size=32, scale_dtype="float32")),
)


def _problem(name: str, outputs: int, rule: Rule, attempt: int) -> tuple[Table, Table, list[float]]:
    """Return a weight, a Gram matrix and a statistic, float32."""
    inputs = 32
    x = _activations(f"{name} x", 48, inputs)
    weight = Draws(f"{name} {attempt}").floats(outputs, inputs, 0.1)
    matrix = [[to_float32(value) for value in row] for row in gram(x)[0]]
    return weight, matrix, [to_float32(value) for value in mean_abs(x)[0]]


def _loss_case(name: str, rule: Rule) -> Case:
    full = f"L4/search_loss/{name}"
    for attempt in range(200):
        weight, matrix, statistic = _problem(full, 4, rule, attempt)
        scales = [to_float32(s) for s in channel_scales(statistic, 0.5, "awq")]
        if tie_distance(scaled(weight, scales), rule) >= MARGIN:
            break
    else:
        raise AssertionError(f"{full}: no draw keeps its distance from ties")
    loss, bound = loss_of(weight, scales, matrix, rule)
    inputs = {
        "weight": np.array(weight, dtype=np.float32),
        "gram": np.array(matrix, dtype=np.float32),
        "channel_scales": np.array(scales, dtype=np.float32),
    }
    outputs = {"loss": within_bound(loss, bound, LOSS_WHY)}
    comment = f"{rule.bits} bits, group size {rule.group_size}; correlated channels."
    return Case(full, rule.params(), inputs, outputs, comment, SOURCE, ("FullGram", "ScalesUndone"))


def _is_clear(losses: list[tuple[float, float]]) -> bool:
    best = min(range(len(losses)), key=lambda i: losses[i][0])
    limit = sum(losses[best])
    return all(loss - bound > limit for i, (loss, bound) in enumerate(losses) if i != best)


def _search_case(name: str, rule: Rule, formula: str, alphas: list[float]) -> Case:
    full = f"L4/search_scales/{name}"
    for attempt in range(500):
        weight, matrix, statistic = _problem(full, 3, rule, attempt)
        candidates = [[to_float32(s) for s in channel_scales(statistic, alpha, formula)] for alpha in alphas]
        if not all(is_steady(scaled(weight, scales), rule) for scales in candidates):
            continue
        losses = [loss_of(weight, scales, matrix, rule, SCALE_ERROR) for scales in candidates]
        if _is_clear(losses):
            break
    else:
        raise AssertionError(f"{full}: no draw has a clear choice")
    choice = min(range(len(losses)), key=lambda i: losses[i][0])
    inputs = {
        "weight": np.array(weight, dtype=np.float32),
        "gram": np.array(matrix, dtype=np.float32),
        "act_mean_abs": np.array(statistic, dtype=np.float32),
    }
    outputs = {
        "losses": within_bound(
            [v for v, _ in losses], [b for _, b in losses], f"{LOSS_WHY}; scales 2^-18 off"
        ),
        "choice": exact(choice, "int64"),
    }
    params = {**rule.params(), "formula": formula, "alphas": alphas}
    comment = "A change of 2^-17 in the scales changes no code; the best loss is clear of the others."
    flags = ("FullGram", "ScalesUndone", "AlphaEnds", "Normalized")
    return Case(full, params, inputs, outputs, comment, SOURCE, flags)


def _equal_case() -> Case:
    """Return a search in which every alpha gives scales of 1, and the same loss."""
    rule = Rule(group_size=16)
    weight = Draws("equal").floats(2, 32, 0.1)
    matrix = [[float(i == j) for j in range(32)] for i in range(32)]
    loss, bound = loss_of(weight, [1.0] * 32, matrix, rule)
    inputs = {
        "weight": np.array(weight, dtype=np.float32),
        "gram": np.array(matrix, dtype=np.float32),
        "act_mean_abs": np.full(32, 0.5, dtype=np.float32),
    }
    n = len(ALPHAS)
    outputs: dict[str, Expected] = {
        "losses": within_bound([loss] * n, [bound] * n, LOSS_WHY),
        "choice": exact(0, "int64"),
    }
    params = {**rule.params(), "formula": "awq", "alphas": ALPHAS}
    comment = "All channels alike: every alpha gives 1, and the first is taken."
    return Case("L4/search_scales/equal", params, inputs, outputs, comment, SOURCE, ("FirstOfEqual",))


def _clip_case(name: str, rule: Rule) -> Case:
    full = f"L4/search_clip/{name}"
    for attempt in range(500):
        weight, matrix, _ = _problem(full, 3, rule, attempt)
        for row in weight:
            row[4], row[21] = to_float32(row[4] * 4.0), to_float32(row[21] * 3.0)
        values, bounds, choices, clear = clip_losses(weight, matrix, RATIOS, rule)
        if clear:
            break
    else:
        raise AssertionError(f"{full}: no draw has clear choices")
    inputs = {"weight": np.array(weight, dtype=np.float32), "gram": np.array(matrix, dtype=np.float32)}
    outputs = {
        "losses": within_bound(values, bounds, LOSS_WHY),
        "choice": exact(choices, "int64"),
    }
    params = {**rule.params(), "ratios": RATIOS}
    comment = "Every row and group chooses by itself; each choice is clear of the others."
    return Case(full, params, inputs, outputs, comment, SOURCE, ("ClipSearch", "FirstOfEqual"))


def search_cases() -> Iterator[Case]:
    """Yield every case of level 4."""
    yield from _statistics_cases()
    yield from _scales_cases()
    for name, rule in LOSSES:
        yield _loss_case(name, rule)
    yield _search_case("awq", Rule(group_size=16), "awq", ALPHAS)
    yield _search_case("llm-awq", Rule(bits=3, group_size=32), "llm-awq", ALPHAS)
    published = Rule(group_size=32, range_rule="minmax", scale_dtype="float32")
    yield _search_case("llm-awq-float32", published, "llm-awq", TWENTIETHS)
    yield _equal_case()
    yield _clip_case("bits-4", Rule(group_size=16))
    yield _clip_case("bits-3", Rule(bits=3, group_size=32))
