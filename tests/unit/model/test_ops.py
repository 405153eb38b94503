import math

import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.bounded import Bounded, exact, split

from awq_ref.model.ops import (
    ACTIVATIONS,
    NORMS,
    TAIL,
    TAIL_STEP,
    apply_norm,
    causal_mask,
    gelu,
    gelu_tanh,
    layer_norm,
    relu,
    rms_norm,
    silu,
    soft_cap,
    softmax,
    take_exponentials,
    window_mask,
)

U = 2.0**-24


def test_rms_norm_of_a_row_worked_by_hand():
    # mean square (1 + 49) / 2 = 25, root 5; one rounding for the quotient, one for the product
    y = rms_norm(frozen(np.float32([[1, 7], [7, -1]])), frozen(np.float32([1, 10])), eps=0.0)
    assert y.dtype == np.float32
    assert_close(y, [[0.2, 14.0], [1.4, -2.0]], rtol=2 * U)


def test_rms_norm_puts_eps_under_the_root():
    y = rms_norm(np.float32([[0, 0], [3, 3]]), np.float32([1, 2]), eps=7.0)  # root of 9 + 7 is 4
    assert_same_bits(y, [[0.0, 0.0], [0.75, 1.5]], dtype=np.float32)


def test_rms_norm_follows_the_scalar_loop(rng):
    x, weight = rng.normal(0, 3, (5, 33)).astype(np.float32), rng.normal(1, 0.2, 33).astype(np.float32)
    expected, bound = split([oracle.rms_norm(row, exact(weight), 1e-5) for row in exact(x)])
    y = rms_norm(frozen(x), frozen(weight), eps=1e-5)
    assert y.dtype == np.float32
    assert_close(y, expected, atol=bound)


def test_layer_norm_of_a_row_worked_by_hand():
    # mean 4, centred (-3, 3, 0, 0), mean square 4.5; eps 4.5 makes the root 3
    y = layer_norm(frozen(np.float32([[1, 7, 4, 4]])), frozen(np.float32([1, 10, 1, 1])), eps=4.5)
    assert y.dtype == np.float32
    assert_close(y, [[-1.0, 10.0, 0.0, 0.0]], rtol=4 * U)


def test_layer_norm_follows_the_scalar_loop_far_from_zero(rng):
    x, weight = rng.normal(50, 3, (5, 33)).astype(np.float32), rng.normal(1, 0.2, 33).astype(np.float32)
    expected, bound = split([oracle.layer_norm(row, exact(weight), 1e-5) for row in exact(x)])
    y = layer_norm(frozen(x), frozen(weight), eps=1e-5)
    assert y.dtype == np.float32
    assert_close(y, expected, atol=bound)


def test_a_bias_is_added_after_the_norm():
    x, weight, bias = np.float32([[3, 3]]), np.float32([1, 2]), frozen(np.float32([10, 20]))
    assert_same_bits(apply_norm("rms", x, weight, bias, eps=7.0), [[10.75, 21.5]], dtype=np.float32)
    assert_same_bits(apply_norm("rms", x, weight, None, eps=7.0), [[0.75, 1.5]], dtype=np.float32)


def test_silu_of_numbers_worked_by_hand():
    # sigmoid(log 3) = 3/4; at -log 3 it is 1/4
    x = np.float32([0.0, math.log(3), -math.log(3)])
    y = silu(frozen(x))
    assert y.dtype == np.float32
    assert_close(y, [0.0, 0.75 * math.log(3), -0.25 * math.log(3)], rtol=16 * U)


def test_silu_follows_the_scalar_loop(rng):
    x = np.concatenate([rng.normal(0, 4, 200), np.linspace(-80, 80, 33)]).astype(np.float32)
    expected, bound = split([oracle.silu(a) for a in exact(x)])
    assert_close(silu(x), expected, atol=bound)


def test_silu_at_the_ends_of_float32():
    largest = np.finfo(np.float32).max
    y = silu(np.float32([-largest, -200.0, 200.0, largest]))  # warnings are errors: none may come
    assert_same_bits(y, [-0.0, -0.0, 200.0, largest], dtype=np.float32)


def test_silu_writes_into_out(rng):
    x, out = frozen(rng.normal(0, 1, 9).astype(np.float32)), np.empty(9, dtype=np.float32)
    assert silu(x, out=out) is out
    assert_same_bits(out, silu(x))


def test_softmax_of_rows_worked_by_hand():
    log2, inf = math.log(2), math.inf
    y = softmax(frozen(np.float32([[0, log2, log2], [5, 5, -inf], [1e4, 0, -1e4]])))
    assert y.dtype == np.float32
    assert_close(y, [[0.2, 0.4, 0.4], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], rtol=16 * U)


def test_softmax_follows_the_scalar_loop(rng):
    x = rng.normal(0, 5, (4, 19)).astype(np.float32)
    expected, bound = split([oracle.softmax(row) for row in exact(x)])
    assert_close(softmax(x), expected, atol=bound)


def test_take_exponentials_overwrites_the_scores_and_returns_their_sums():
    scores = np.float32([[3, 3, -np.inf, 3]])
    sums = take_exponentials(scores)
    assert_same_bits(scores, [[1, 1, 0, 1]], dtype=np.float32)
    assert_same_bits(sums, [[3]], dtype=np.float32)


def test_causal_mask_hides_the_future():
    inf = math.inf
    expected = [[0, -inf, -inf], [0, 0, -inf], [0, 0, 0]]
    assert_same_bits(causal_mask(3), expected, dtype=np.float32)


def test_window_mask_hides_what_lies_too_far_back():
    inf = math.inf
    expected = [[0, 0, 0, 0], [-inf, 0, 0, 0], [-inf, -inf, 0, 0]]  # the tokens stand in columns 1, 2, 3
    assert_same_bits(window_mask(3, 4, 2), expected, dtype=np.float32)
    assert_same_bits(window_mask(1, 4, 4), np.zeros((1, 4)), dtype=np.float32)


def test_soft_cap_by_hand():
    y = soft_cap(frozen(np.float32([0.0, 2 * math.atanh(0.5), -1e9])), 2.0)
    assert y.dtype == np.float32
    assert_close(y, [0.0, 1.0, -2.0], atol=8 * U)


def test_soft_cap_follows_the_scalar_loop_and_may_overwrite(rng):
    x = rng.normal(0, 60, 99).astype(np.float32)
    expected, bound = split([oracle.soft_cap(a, 50.0) for a in exact(x)])
    assert_close(soft_cap(frozen(x), 50.0), expected, atol=bound)
    assert soft_cap(x, 50.0, out=x) is x
    assert_close(x, expected, atol=bound)


def test_gelu_tanh_follows_the_scalar_loop(rng):
    x, out = frozen(rng.normal(0, 3, 99).astype(np.float32)), np.empty(99, dtype=np.float32)
    expected, bound = split([oracle.gelu_tanh(a) for a in exact(x)])
    y = gelu_tanh(x, out=out)
    assert y is out
    assert y.dtype == np.float32
    assert_close(y, expected, atol=bound)


def test_gelu_tanh_is_nearly_x_times_the_normal_distribution():
    x = np.linspace(-6, 6, 301, dtype=np.float32)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    assert_close(gelu_tanh(x), expected, atol=5e-4)


def test_gelu_tanh_at_the_ends_of_float32():
    largest = np.finfo(np.float32).max
    y = gelu_tanh(np.float32([-largest, -200.0, 200.0, largest]))  # warnings are errors: none may come
    assert_same_bits(y, [-0.0, -0.0, 200.0, largest], dtype=np.float32)


def test_gelu_is_x_times_the_normal_distribution():
    x = np.concatenate([np.linspace(-6, 6, 4801), np.geomspace(1e-30, 1e-3, 50)]).astype(np.float32)
    expected = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()], dtype=np.float64)
    out = np.empty_like(x)
    assert gelu(frozen(x), out=out) is out
    assert out.dtype == np.float32
    assert_close(out, expected, atol=2.4e-7)
    assert_close(out, expected, rtol=3e-6)  # far in the left tail too, where the result is 6e-9


def test_gelu_follows_the_scalar_loop(rng):
    x = frozen(rng.normal(0, 3, 99).astype(np.float32))
    expected, bound = split([oracle.ACTIVATIONS["gelu"](a) for a in exact(x)])
    assert_close(gelu(x), expected, atol=bound)


def test_gelu_at_the_ends_of_float32():
    largest = np.finfo(np.float32).max
    y = gelu(np.float32([-largest, -200.0, 200.0, largest]))  # warnings are errors: none may come
    assert_same_bits(y, [0.0, 0.0, 200.0, largest], dtype=np.float32)


def test_the_polynomial_of_gelu_is_that_of_the_tail():
    """Q(a) = t exp(P(t) - a**2 / 2), to the seventh digit, for as long as float32 can hold it."""
    for a in np.linspace(0, 13, 131).tolist():
        t = 1 / (1 + TAIL_STEP * a)
        tail = t * math.exp(sum(c * t**n for n, c in enumerate(TAIL)) - a * a / 2)
        assert tail == pytest.approx(0.5 * math.erfc(a / math.sqrt(2)), rel=1e-7)


def test_relu_by_hand():
    x, out = frozen(np.float32([-2.0, 0.0, 3.0])), np.empty(3, dtype=np.float32)
    assert relu(x, out=out) is out
    assert_same_bits(out, [0.0, 0.0, 3.0], dtype=np.float32)


def test_kinds_by_their_names():
    assert NORMS == {"rms": rms_norm, "layer": layer_norm}
    assert ACTIVATIONS == {
        "silu": silu,
        "swish": silu,
        "gelu_pytorch_tanh": gelu_tanh,
        "gelu_new": gelu_tanh,
        "gelu": gelu,
        "relu": relu,
    }


def test_the_oracle_itself_by_hand():
    assert oracle.silu(Bounded(math.log(3))).value == pytest.approx(0.75 * math.log(3))
    assert [p.value for p in oracle.softmax(exact([0.0, 0.0]))] == [0.5, 0.5]
    assert [v.value for v in oracle.rms_norm(exact([1.0, 7.0]), exact([1.0, 10.0]), 0.0)] == [0.2, 14.0]
