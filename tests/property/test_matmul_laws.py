"""Laws of the packed product: P-MATMUL, P-PACK for planes, P-INPUT. helpers/matmul_bounds.py derives the bounds."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.matmul_bounds import dequantized_bound, exact_product, factored_bound, in_order
from helpers.strategies import activations, quantized_linears, specs, with_offsets, with_orders
from hypothesis import given, settings
from hypothesis import strategies as st

from awq_ref.matmul import (
    FIELDS,
    PackedLinear,
    block_size,
    pack_planes,
    packed_matmul_reference,
    to_operator,
    unpack_planes,
)
from awq_ref.matmul.packed import FEW_TOKENS

PACKABLE = specs(group_size=(128, 256, 384))  # what the readable planes hold at every width
ANY = specs(group_size=(1, 8, 24, 32, 64, 128, -1))


@st.composite
def cases(draw, spec, *, max_tokens=12):
    """Draw (x, linear): free codes, scales and zero points, or offsets, or another order; sometimes a bias."""
    plain = quantized_linears(spec=spec, out_features=(1, 8, 17))
    linear = draw(st.one_of(plain, plain, with_offsets(plain), with_orders(plain)))
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        bias = rng.normal(0, 10, linear.out_features).astype(np.float32)
        linear = replace(linear, bias=bias)
    return draw(activations(in_features=linear.in_features, max_tokens=max_tokens)), linear


@st.composite
def codes(draw):
    """Draw (codes, bits) of a size that planes can hold."""
    bits = draw(st.sampled_from(sorted(FIELDS)))
    shape = draw(st.integers(0, 4)), block_size(bits) * draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, 2**bits, shape, dtype=np.uint8), bits


@given(codes())
@settings(max_examples=50, deadline=None)
def test_unpack_is_the_inverse_of_pack(case):
    """P-PACK for the planes in memory; P-INPUT."""
    int_weight, bits = case
    planes = pack_planes(frozen(int_weight), bits)
    assert sum(plane.nbytes for plane in planes) * 8 == int_weight.size * bits
    assert_same_bits(unpack_planes(tuple(map(frozen, planes)), bits, int_weight.shape[1]), int_weight)


@pytest.mark.parametrize("residency", ["packed", "codes"])
@given(case=cases(PACKABLE))
@settings(max_examples=50, deadline=None)
def test_factored_product_within_its_bound(residency, case):
    """P-MATMUL, few tokens; P-INPUT."""
    x, linear = case
    y = PackedLinear.from_quantized(linear, residency=residency)(frozen(x))
    assert y.dtype == np.float32
    assert_close(y, exact_product(x, linear), atol=factored_bound(x, linear))


@given(case=cases(ANY))
@settings(max_examples=50, deadline=None)
def test_any_group_size_within_its_bound(case):
    """P-MATMUL, where some groups do not fill bytes and codes are held instead."""
    x, linear = case
    y = to_operator(linear, "packed")(frozen(x))
    assert_close(y, exact_product(x, linear), atol=factored_bound(x, linear))


@pytest.mark.parametrize("residency", ["packed", "codes", "dense"])
@given(case=cases(PACKABLE))
@settings(max_examples=20, deadline=None)
def test_dequantized_product_within_its_bound(residency, case):
    """P-MATMUL, many tokens; P-INPUT."""
    x, linear = case
    x = np.tile(x, (FEW_TOKENS + 1, 1))  # (> FEW_TOKENS, in_features)
    y = to_operator(linear, residency)(frozen(x))
    assert_close(y, exact_product(x, linear), atol=dequantized_bound(x, linear))


@given(case=cases(PACKABLE))
@settings(max_examples=50, deadline=None)
def test_readable_product_within_the_same_bound(case):
    """P-MATMUL for the AND/shift reference."""
    x, linear = case
    planes = pack_planes(linear.int_weight, linear.spec.bits)
    grid = (linear.scales, linear.zero_point, linear.spec.bits, linear.offset)
    y = packed_matmul_reference(frozen(np.ascontiguousarray(in_order(x, linear))), planes, *grid)
    if linear.bias is not None:
        y = y + linear.bias
    assert_close(y, exact_product(x, linear), atol=factored_bound(x, linear, nested=False))
