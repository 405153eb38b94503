"""What the strategies promise of their draws."""

import numpy as np
import pytest
from helpers.strategies import GROUPS, activations, quantized_linears, specs, weights
from hypothesis import given


@pytest.mark.parametrize("kind", sorted(GROUPS))
def test_every_group_kind_is_finite_and_of_its_size(kind, rng):
    group = np.asarray(GROUPS[kind](rng, 16)).astype(np.float32)
    assert group.shape == (16,)
    assert np.isfinite(group).all()


def test_group_kinds_are_what_their_names_say(rng):
    draw = {kind: np.asarray(make(rng, 16)) for kind, make in GROUPS.items()}
    assert draw["one_sided_positive"].min() > 0 > draw["one_sided_negative"].max()
    assert np.ptp(draw["constant"]) == 0 and draw["constant"][0] != 0
    assert not draw["zeros"].any()
    assert np.ptp(draw["tiny_range"]) < 1e-5
    assert np.abs(draw["subnormal"]).max() < np.finfo(np.float32).tiny
    doubled = draw["tie"][1:-1] * 8 * 2
    assert (doubled % 2 == 1).all()  # odd multiples of half a step


@given(weights())
def test_weights_fit_their_spec(drawn):
    weight, spec = drawn
    assert weight.dtype == np.float32
    assert weight.ndim == 2
    assert spec.group_size == -1 or weight.shape[1] % spec.group_size == 0
    assert np.isfinite(weight).all()


@given(weights(spec=specs(bits=(3,), group_size=(8,)), kinds=("one_sided_positive",)))
def test_weights_keep_to_the_kinds_asked_for(drawn):
    weight, spec = drawn
    assert spec.bits == 3
    assert weight.min() >= 10


@given(activations(in_features=6))
def test_activations_have_the_shape_asked_for(x):
    assert x.dtype == np.float32
    assert x.shape[1] == 6
    assert np.isfinite(x).all()


@given(quantized_linears())
def test_quantized_linears_use_the_grid_of_their_spec(linear):
    assert linear.int_weight.max() <= linear.spec.qmax
    assert (linear.scales > 0).all()
    if linear.spec.symmetric:
        assert (linear.zero_point == linear.spec.symmetric_zero_point).all()
