"""Int8Linear against a scalar loop and by hand, and what it refuses."""

import math
from fractions import Fraction

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.matmul import Int8Linear
from awq_ref.matmul import int8 as module
from awq_ref.matmul.int8 import round_rows


def test_codes_by_hand():
    weight = np.float32([[254, -3, 1, 5], [0, 0, 0, 0], [-0.5, 0.25, 0, 0.5]])
    codes, steps = round_rows(frozen(weight))
    # 254 / 127 = 2: -1.5, 0.5 and 2.5 are ties, to even. 0.5 / 127: 0.25 is 63.5 steps, a tie if the step were exact.
    assert codes[:2].tolist() == [[127, -2, 0, 2], [0, 0, 0, 0]]
    assert codes[2, [0, 2, 3]].tolist() == [-127, 0, 127]
    assert codes[2, 1] in (63, 64)
    assert_same_bits(steps, np.float32([2.0, 0.0, np.float32(0.5) / np.float32(127)]))


def test_every_code_is_the_nearest(rng):
    weight = rng.standard_normal((5, 40), dtype=np.float32)
    weight[3] *= np.float32(1e-42)  # subnormal: the step itself is rounded, and 128 of them may fit
    codes, steps = round_rows(weight)
    assert codes.dtype == np.int8
    for row, of_row, step in zip(weight.tolist(), codes.tolist(), steps.tolist(), strict=True):
        for value, code in zip(row, of_row, strict=True):
            # Half a step, and the rounding of the quotient: at most 127 * 2**-24 steps. A subnormal step is off by
            # up to 2**-150, over 127 of them.
            bound = Fraction(step) * (Fraction(1, 2) + 127 * Fraction(1, 2**24)) + 127 * Fraction(1, 2**150)
            assert abs(Fraction(value) - code * Fraction(step)) <= bound
            assert -127 <= code <= 127


def loop(codes, steps, bias, x):
    """The product in exact arithmetic, and the sum of its terms' sizes."""
    sums, sizes = [], []
    for token in x.tolist():
        terms = [
            [Fraction(q) * Fraction(a) for q, a in zip(row, token, strict=True)] for row in codes.tolist()
        ]
        sums.append([Fraction(s) * sum(t) + Fraction(b) for t, s, b in zip(terms, steps, bias, strict=True)])
        sizes.append(
            [
                Fraction(s) * sum(map(abs, t)) + abs(Fraction(b))
                for t, s, b in zip(terms, steps, bias, strict=True)
            ]
        )
    return sums, sizes


@pytest.mark.parametrize("tokens", [1, 3, 17])
@pytest.mark.parametrize("small", [False, True])
def test_the_product_is_that_of_the_codes(rng, monkeypatch, tokens, small):
    if small:  # several tiles and products, the last ones shorter; threads
        for name, value in (("TILE", 64), ("LARGE_TILE", 64), ("THREADED_WEIGHTS", 1)):
            monkeypatch.setattr(module, name, value)
    n = 16
    codes = rng.integers(-127, 128, (23, n)).astype(np.int8)
    steps = rng.uniform(0.01, 0.1, 23).astype(np.float32)
    bias, x = rng.standard_normal(23).astype(np.float32), rng.standard_normal((tokens, n)).astype(np.float32)
    y = Int8Linear(frozen(codes), frozen(steps), frozen(bias))(frozen(x[None]))
    assert (y.dtype, y.shape) == (np.float32, (1, tokens, 23))
    expected, sizes = loop(codes, steps.tolist(), bias.tolist(), x)
    for got, want, size in zip(y[0].ravel().tolist(), sum(expected, []), sum(sizes, []), strict=True):
        # n products and n - 1 sums, the step, the bias: n + 2 roundings of at most 2**-24 of the terms' sizes.
        assert abs(Fraction(got) - want) <= size * ((1 + Fraction(1, 2**24)) ** (n + 2) - 1)


def test_made_part_by_part(rng):
    weight = rng.standard_normal((9, 4), dtype=np.float32)
    codes, steps = round_rows(weight)
    linear = Int8Linear.from_rows((weight[first : first + 4] for first in (0, 4, 8)), (9, 4))
    assert_same_bits(linear.codes, codes)
    assert_same_bits(linear.steps, steps)
    assert (linear.in_features, linear.out_features, linear.residency) == (4, 9, "int8")
    assert linear.resident_bytes == 9 * 4 + 9 * 4


def test_no_float_copy_is_made(rng):
    import tracemalloc

    linear = Int8Linear(
        rng.integers(-127, 128, (20000, 64)).astype(np.int8), np.ones(20000, dtype=np.float32)
    )
    x = rng.standard_normal((1, 64), dtype=np.float32)
    linear(x)  # threads keep their working memory
    tracemalloc.start()
    linear(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 4 * 20000 + 4 * module.TILE + 65536 < 4 * linear.codes.size  # outputs and one tile


def test_refuses():
    codes, steps = np.zeros((2, 3), dtype=np.int8), np.ones(2, dtype=np.float32)
    with pytest.raises(DtypeError, match="Int8Linear: codes must be int8; got uint8"):
        Int8Linear(codes.view(np.uint8), steps)
    with pytest.raises(ShapeError, match=r"Int8Linear: steps must have shape \(2\)"):
        Int8Linear(codes, steps[:1])
    with pytest.raises(DtypeError, match="Int8Linear: x must be float32"):
        Int8Linear(codes, steps)(np.zeros((1, 3)))
    with pytest.raises(RangeError, match="round_rows: weight"):
        round_rows(np.float32([[math.nan]]))
    with pytest.raises(ShapeError, match="the rows of all parts"):
        Int8Linear.from_rows([np.ones((2, 3), dtype=np.float32)], (3, 3))
