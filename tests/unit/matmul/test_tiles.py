"""The pieces of the fast loops that can be checked alone."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.matmul_bounds import random_linear

from awq_ref.matmul import packed, tiles
from awq_ref.matmul.tiles import dequantize_groups
from awq_ref.quantize.affine import dequantize_linear
from awq_ref.spec import QuantSpec


def dequantized(weight, groups):
    """The weight of some groups of the first tile, (outputs, inputs)."""
    shape = (groups.stop - groups.start, weight.group_size, weight.width)
    part = np.empty(shape, dtype=np.float32)
    fields = np.empty((len(weight.planes), *shape), dtype=np.uint8)
    dequantize_groups(weight, 0, groups, part, fields)
    return np.ascontiguousarray(part.reshape(-1, weight.width).T)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_groups_of_the_weight(bits):
    linear = random_linear(QuantSpec(bits=bits, group_size=128), out_features=10, n_groups=3)
    steps = linear.int_weight.astype(np.float64) - np.repeat(linear.zero_point, 128, axis=1)
    exact = steps * np.repeat(linear.scales.astype(np.float64), 128, axis=1)
    part = dequantized(packed.PackedLinear.from_quantized(linear).weight, slice(1, 3))
    assert_same_bits(part, exact[:, 128:].astype(np.float32))  # float16 scales: no rounding


def test_the_dequantized_weight_is_that_of_quantize():
    spec = QuantSpec(group_size=128, scale_dtype="float32")
    linear = random_linear(spec, out_features=300, n_groups=4)
    weight = packed.PackedLinear.from_quantized(linear, n_threads=1).weight
    assert_same_bits(dequantized(weight, slice(0, 4)), dequantize_linear(linear))


@pytest.mark.parametrize("n_tokens", [1, 2, 9, 40, 2000])
def test_small_products_are_the_product(monkeypatch, n_tokens):
    # Small whole numbers: sums below 2**24 are exact in any order, so every way to cut must give the same bits.
    monkeypatch.setattr(tiles, "SMALL_PRODUCT", 64 * 24 * 20)
    rng = np.random.default_rng(0)
    factors = rng.integers(-8, 8, (3, n_tokens, 24)).astype(np.float32)
    values = rng.integers(0, 16, (3, 24, 301)).astype(np.float32)
    dots = np.empty((3, n_tokens, 301), dtype=np.float32)
    tiles._multiply(factors, values, dots)
    expected = np.einsum("gtn,gnr->gtr", factors.astype(np.int64), values.astype(np.int64))
    assert_same_bits(dots, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("cache", "n_threads", "expected"),
    [  # a quarter of the cache, 5 bytes a weight
        (20 * 2**19, 1, 2**19),
        (20 * 2**19, 2, 2**18),
        (20 * 2**19, 8, 2**17),  # 2**16 would be too few
        (2**30, 1, 2**20),
        (2**15, 1, 2**17),
    ],
)
def test_weights_at_once_fill_a_quarter_of_the_cache_within_bounds(monkeypatch, cache, n_threads, expected):
    monkeypatch.setattr(tiles, "cache_bytes", lambda: cache)
    assert tiles.weights_at_once(n_threads) == expected


@pytest.mark.parametrize(
    ("n", "most", "step"), [(10, 4, 4), (9, 4, 3), (8, 3, 3), (10, 10, 10), (10, 100, 10), (5, 0, 1)]
)
def test_even_steps_by_hand(n, most, step):
    # 10 in steps of 4 are three parts: 4, 4, 2; 9 are three of 3. Less than one at a time is one.
    assert tiles._even_steps(n, most) == step


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("n_tokens", [1, 5])
def test_how_many_weights_are_cast_at_once_changes_nothing(monkeypatch, bits, n_tokens):
    linear = random_linear(QuantSpec(bits=bits, group_size=64), out_features=70, n_groups=7)
    operator = packed.PackedLinear.from_quantized(linear)
    x = np.random.default_rng(1).normal(0, 1, (n_tokens, linear.in_features)).astype(np.float32)
    found = []
    for groups in (7, 3, 2, 1, 0):  # all seven; 3, 3, 1; 2, 2, 2, 1; one by one; less than one is one
        monkeypatch.setattr(packed, "weights_at_once", lambda n_threads, n=groups: n * 64 * 70)
        found.append(operator(x))
    for y in found[1:]:
        assert_same_bits(y, found[0])
