"""What hypothesis draws: specs, weights with the groups that break quantizers, activations, codes.

specs               QuantSpec, any of its fields pinned by keyword
group_kinds         one group of weights of a named kind (GROUPS)
weights             (out, in) float32 whose groups are of mixed kinds, together with the spec
activations         (tokens, in) float32 with a few outlier channels
quantized_linears   QuantizedLinear with free codes, scales and zero points: no quantizer was involved
with_offsets        the same with a float per group in place of zero points, and scales of both signs
with_signs          the same with scales of both signs
with_orders         the same with its inputs in any order
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from awq_ref.spec import BITS, QuantizedLinear, QuantSpec

F32 = NDArray[np.float32]
Generator = np.random.Generator


def _tie(rng: Generator, size: int) -> F32:
    """Weights on the half steps of the 4-bit grid of scale 1/8 and zero point 8: every quotient is an exact tie."""
    values = (rng.integers(-8, 7, size) + 0.5) / 8
    values[0], values[-1] = -1.0, 0.875
    return values.astype(np.float32)


# The named edge cases of a group; every one of them has broken a published quantizer.
GROUPS: dict[str, Callable[[Generator, int], Any]] = {
    "normal": lambda rng, size: rng.normal(0, 0.05, size),
    "zeros": lambda rng, size: np.zeros(size, dtype=np.float32),
    "constant": lambda rng, size: np.full(size, rng.choice([0.3, -0.3, 10.0]), dtype=np.float32),
    "one_sided_positive": lambda rng, size: rng.uniform(10, 11, size),
    "one_sided_negative": lambda rng, size: rng.uniform(-3, -2, size),
    "tiny_range": lambda rng, size: rng.uniform(-4e-6, 4e-6, size),
    "subnormal": lambda rng, size: rng.uniform(-1e-40, 1e-40, size),
    "outlier": lambda rng, size: np.where(np.arange(size, dtype=np.int64) == size // 2, 300.0, 0.01),
    "large": lambda rng, size: rng.uniform(-2e4, 2e4, size),
    "tie": _tie,
}


def specs(
    *,
    bits: Any = BITS,
    group_size: Any = (8, 16, 32, -1),
    symmetric: Any = (False, True),
    range_rule: Any = ("zero",),
    scale_dtype: Any = ("float16", "float32"),
) -> st.SearchStrategy[QuantSpec]:
    """Draw a QuantSpec; each argument lists what the field may be."""
    return st.builds(
        QuantSpec,
        bits=st.sampled_from(bits),
        group_size=st.sampled_from(group_size),
        symmetric=st.sampled_from(symmetric),
        range_rule=st.sampled_from(range_rule),
        scale_dtype=st.sampled_from(scale_dtype),
    )


@st.composite
def weights(
    draw: st.DrawFn,
    *,
    spec: st.SearchStrategy[QuantSpec] | None = None,
    kinds: tuple[str, ...] = tuple(GROUPS),
    max_rows: int = 4,
    max_groups: int = 3,
) -> tuple[F32, QuantSpec]:
    """Draw (weight, spec): (out, in) float32, every group of one of the kinds; in is a multiple of the group."""
    chosen = draw(specs() if spec is None else spec)
    rows, groups = draw(st.integers(1, max_rows)), draw(st.integers(1, max_groups))
    size = chosen.group_size if chosen.group_size != -1 else 24
    if chosen.group_size == -1:
        groups = 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.sampled_from(kinds), min_size=rows * groups, max_size=rows * groups))
    flat = np.stack([np.asarray(GROUPS[name](rng, size)) for name in names])  # (rows * groups, size)
    return flat.astype(np.float32).reshape(rows, groups * size), chosen


@st.composite
def activations(draw: st.DrawFn, *, in_features: int, max_tokens: int = 12) -> F32:
    """Draw (tokens, in_features) float32: normal, a few channels up to 100 times larger, sometimes a dead one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(0, 1, (draw(st.integers(1, max_tokens)), in_features))
    for _ in range(draw(st.integers(0, 3))):
        x[:, rng.integers(in_features)] *= 10 ** rng.uniform(0, 2)
    if draw(st.booleans()):
        x[:, rng.integers(in_features)] = 0.0
    return x.astype(np.float32)


@st.composite
def quantized_linears(
    draw: st.DrawFn,
    *,
    spec: st.SearchStrategy[QuantSpec] | None = None,
    out_features: tuple[int, ...] = (8, 16, 24),
    max_groups: int = 3,
) -> QuantizedLinear:
    """Draw a QuantizedLinear: every code and zero point of the bit width occurs, the extremes often."""
    chosen = draw(specs() if spec is None else spec)
    rows, groups = draw(st.sampled_from(out_features)), draw(st.integers(1, max_groups))
    if chosen.group_size == -1:
        groups = 1
    size = chosen.group_size if chosen.group_size != -1 else 32
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, chosen.qmax + 1, (rows, groups * size), dtype=np.uint8)
    extremes = rng.random(codes.shape) < 0.2
    codes[extremes] = rng.choice(np.array([0, chosen.qmax], dtype=np.uint8), int(extremes.sum()))
    zero_point = rng.integers(0, chosen.qmax + 1, (rows, groups), dtype=np.uint8)
    if chosen.symmetric:
        zero_point[:] = chosen.symmetric_zero_point
    scales = (2.0 ** rng.uniform(-12, 2, (rows, groups))).astype(chosen.scale_dtype)
    return QuantizedLinear(codes, scales, zero_point, chosen)


@st.composite
def with_offsets(draw: st.DrawFn, linears: st.SearchStrategy[QuantizedLinear]) -> QuantizedLinear:
    """Draw a QuantizedLinear that has an offset in place of zero points, and scales of both signs."""
    linear = draw(linears)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    signs = rng.choice(np.array([-1, 1], dtype=linear.scales.dtype), linear.scales.shape)
    offset = rng.normal(0, 2, linear.scales.shape).astype(linear.scales.dtype)
    zeros = np.zeros_like(linear.zero_point)
    return replace(linear, scales=linear.scales * signs, zero_point=zeros, offset=offset)


@st.composite
def with_signs(draw: st.DrawFn, linears: st.SearchStrategy[QuantizedLinear]) -> QuantizedLinear:
    """Draw a QuantizedLinear with scales of both signs."""
    linear = draw(linears)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    signs = rng.choice(np.array([-1, 1], dtype=linear.scales.dtype), linear.scales.shape)
    return replace(linear, scales=linear.scales * signs)


@st.composite
def with_orders(
    draw: st.DrawFn, linears: st.SearchStrategy[QuantizedLinear], *, sorted_groups: bool = False
) -> QuantizedLinear:
    """Draw a QuantizedLinear whose columns belong to its inputs in any order, or one that rises within each group."""
    linear = draw(linears)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    order = rng.permutation(linear.in_features).astype(np.int64)
    if sorted_groups:  # as files have them, which say no more than the group of an input
        order = np.sort(order.reshape(linear.n_groups, -1), axis=1).reshape(-1)
        if (np.diff(order) > 0).all():
            return linear
    return replace(linear, input_order=order)
