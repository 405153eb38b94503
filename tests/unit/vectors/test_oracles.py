"""The oracles' own arithmetic, against NumPy, struct and the mathematical library: other code than theirs."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.vectors import oracle_real
from awq_ref.vectors.draws import Draws, to_float16, to_float32
from awq_ref.vectors.oracle_quantize import Rule, choose_grid, quantize, tie_distance
from awq_ref.vectors.rounding import OutOfFormatError, fl16, fl32, rint
from awq_ref.vectors.running import Bounded, Likely, dot, exact_row, float_weights, total

FINITE = st.floats(-6e4, 6e4)


@given(st.floats(-1e38, 1e38))
def test_fl32_is_what_numpy_rounds_to(value):
    assert float(fl32(Fraction(value))) == np.float32(value) == to_float32(value)


@given(FINITE)
def test_fl16_is_what_numpy_rounds_to(value):
    assert float(fl16(Fraction(value))) == np.float16(value) == to_float16(value)


@pytest.mark.parametrize(
    "value", [2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 3 * 2.0**-25, 2.0**-14 - 2.0**-26, 65519.0]
)
def test_fl16_of_subnormals_and_of_the_largest(value):
    assert float(fl16(Fraction(value))) == np.float16(value)


def test_what_does_not_fit_is_an_error():
    with pytest.raises(OutOfFormatError):
        fl16(Fraction(65520))
    with pytest.raises(OutOfFormatError):
        fl32(Fraction(2) ** 128)


@given(st.fractions(-1000, 1000))
def test_rint_is_pythons_round(value):
    assert rint(value) == round(value)


@given(st.floats(-700, 700))
def test_exp_and_tanh_are_the_librarys(x):
    assert oracle_real.exp(x) == pytest.approx(math.exp(x), rel=1e-15)
    assert oracle_real.tanh(x) == pytest.approx(math.tanh(x), rel=1e-15, abs=1e-30)


@given(st.floats(0, 1e6))
def test_cosine_and_sine_are_the_librarys(angle):
    assert oracle_real.cos_sin(angle) == pytest.approx((math.cos(angle), math.sin(angle)), abs=1e-15)


@given(st.floats(1e-6, 1e6), st.floats(-2, 2))
def test_power_is_the_librarys(base, exponent):
    assert oracle_real.power(base, exponent) == pytest.approx(base**exponent, rel=1e-14)
    assert oracle_real.power(0.0, 0.0) == 1.0
    assert oracle_real.power(0.0, 0.5) == 0.0


def test_a_group_worked_by_hand():
    weight = [[-1.0, -0.5, 0.25, 0.875]]
    for bits, scale, zero, codes in (
        (4, 0.125, 8, [0, 4, 10, 15]),
        (3, float(np.float16(1.875 / 7)), 4, [0, 2, 5, 7]),
    ):
        rule = Rule(bits=bits, group_size=4)
        scales, zeros = choose_grid(weight, rule)
        assert (scales, zeros) == ([[scale]], [[zero]])
        assert quantize(weight, scales, zeros, rule) == [codes]
    assert tie_distance([[-1.0, 0.0625, 0.25, 0.875]], Rule(group_size=4)) == 0


def test_draws_are_the_same_for_ever():
    """The first numbers of a seed, as Python 3.10 and later give them: v1 stands on them."""
    draws = Draws("awq_ref")
    assert draws.codes(1, 8, 4) == DRAWN_CODES
    assert draws.floats(1, 2) == DRAWN_FLOATS


DRAWN_CODES = [[11, 12, 4, 11, 4, 3, 3, 0]]
DRAWN_FLOATS = [[1.4071751832962036, -0.7366641759872437]]


@given(st.lists(st.tuples(st.floats(-9, 9, width=32), st.floats(-9, 9, width=32)), min_size=2, max_size=40))
def test_float32_stays_within_the_bounds(pairs):
    a, b = (list(values) for values in zip(*pairs, strict=True))
    product = dot(exact_row(a), exact_row(b))
    for order in (slice(None), slice(None, None, -1)):
        x, y = np.array(a, dtype=np.float32)[order], np.array(b, dtype=np.float32)[order]
        summed = np.float32(0)
        for p, q in zip(x, y, strict=True):
            summed += p * q
        assert abs(float(summed) - product.value) <= product.error
    assert float_weights([a])(exact_row(b))[0].value == pytest.approx(product.value, abs=1e-12)
    assert total(exact_row(a)).value == math.fsum(a)


@given(st.floats(-20, 20, width=32), st.floats(0.5, 20, width=32))
def test_single_operations_stay_within_the_bounds(a, b):
    x, y = Bounded(a), Bounded(b)
    f, g = np.float32(a), np.float32(b)
    for mine, theirs in (
        (x + y, f + g),
        (x - y, f - g),
        (x * y, f * g),
        (x / y, f / g),
        (y.sqrt(), np.sqrt(g)),
    ):
        assert abs(float(theirs) - mine.value) <= mine.error
    for mine, theirs in ((x.exp(), np.exp(f)), (x.tanh(), np.tanh(f)), (-x, -f)):
        assert abs(float(theirs) - mine.value) <= mine.error


def test_likely_errors_add_in_quadrature():
    assert (Likely(1.0, 3e-3) + Likely(1.0, 4e-3)).error == pytest.approx(5e-3, rel=1e-3)
    assert (Bounded(1.0, 3e-3) + Bounded(1.0, 4e-3)).error == pytest.approx(7e-3, rel=1e-3)
    assert isinstance(Bounded(1.0) + Likely(1.0), Likely)
    assert isinstance(dot(exact_row([1.0]), exact_row([1.0], Likely)), Likely)
