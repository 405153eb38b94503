"""to_operator: the three residencies, and the fall back to codes."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_close
from helpers.matmul_bounds import dequantized_bound, exact_product, factored_bound, random_linear

from awq_ref.errors import RangeError
from awq_ref.matmul.residency import RESIDENCIES, to_operator, why_not_packed
from awq_ref.spec import QuantSpec


def test_each_residency_holds_what_it_says():
    linear = random_linear(QuantSpec(group_size=128), out_features=16, n_groups=2, bias=True)
    operators = [to_operator(linear, residency) for residency in RESIDENCIES]
    assert [operator.residency for operator in operators] == ["packed", "codes", "dense"]
    per_group, bias = 16 * 2 * (4 + 1 + 4), 16 * 4  # float32 scale, uint8 zero point, float32 shift
    assert [operator.resident_bytes - bias for operator in operators] == [
        16 * 256 // 2 + per_group,
        16 * 256 + per_group,
        16 * 256 * 4,
    ]


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_each_residency_means_the_same(residency):
    linear = random_linear(QuantSpec(group_size=128), out_features=16, n_groups=2, bias=True)
    x = np.random.default_rng(0).normal(0, 1, (3, 256)).astype(np.float32)
    bound = dequantized_bound if residency == "dense" else factored_bound
    y = to_operator(linear, residency)(x)
    assert y.dtype == np.float32
    assert_close(y, exact_product(x, linear), atol=bound(x, linear))


def test_packed_falls_back_to_codes_and_says_why():
    linear = random_linear(QuantSpec(group_size=9), out_features=4, n_groups=2)
    assert to_operator(linear, "packed").residency == "codes"
    assert "do not fill a group of 9" in str(why_not_packed(linear))
    assert why_not_packed(random_linear(QuantSpec(group_size=32), out_features=4, n_groups=2)) is None


def test_a_scale_for_every_weight_is_held_dense():
    linear = random_linear(QuantSpec(group_size=1), out_features=4, n_groups=6)
    operator = to_operator(linear, "packed")
    assert operator.residency == "dense"
    x = np.random.default_rng(0).normal(0, 1, (3, 6)).astype(np.float32)
    assert_close(operator(x), exact_product(x, linear), atol=dequantized_bound(x, linear))


def test_offsets_and_orders_are_counted():
    plain = random_linear(QuantSpec(group_size=32), out_features=4, n_groups=2)
    zeros = np.zeros_like(plain.zero_point)
    order = np.arange(64, dtype=np.int64)[::-1].copy()
    linear = replace(plain, zero_point=zeros, offset=plain.scales, input_order=order)
    assert (
        to_operator(linear).resident_bytes - to_operator(plain).resident_bytes == 4 * 2 * 4 + 64 * 8
    )  # float32, int64


def test_another_word():
    linear = random_linear(QuantSpec(group_size=32), out_features=4, n_groups=1)
    with pytest.raises(RangeError, match="to_operator: residency must be one of 'packed', 'codes', 'dense'"):
        to_operator(linear, "int4")
