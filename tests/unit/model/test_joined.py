"""Linears that read one input, as one product."""

import numpy as np
from helpers.assertions import assert_same_bits
from helpers.float_linear import FloatLinear

from awq_ref.model import JoinedPart, parts_of
from awq_ref.model.joined import project


def whole_numbers(rng, rows):
    """A linear whose products with whole numbers are exact in any order."""
    return FloatLinear(rng.integers(-9, 10, (rows, 4)).astype(np.float32), np.arange(rows, dtype=np.float32))


class Counted(FloatLinear):
    calls = 0

    def __call__(self, x):
        self.calls += 1
        return super().__call__(x)


def test_parts_are_linears_of_their_own(rng):
    whole = whole_numbers(rng, 7)
    first, second = parts_of(whole, (2, 5))
    x = rng.integers(-9, 10, (2, 3, 4)).astype(np.float32)
    assert (second.in_features, second.out_features, second.residency) == (4, 5, "dense")
    assert_same_bits(second(x), whole(x)[..., 2:])
    assert_same_bits(first.weight, whole.weight[:2])
    assert_same_bits(second.bias, whole.bias[2:])
    assert first.resident_bytes + second.resident_bytes == whole.resident_bytes


def test_bytes_add_up_where_rows_do_not_divide_them():
    class Odd:
        resident_bytes, out_features = 101, 7

    assert sum(part.resident_bytes for part in parts_of(Odd(), (1, 2, 4))) == 101


def test_one_product_where_all_are_parts_of_one(rng):
    whole = Counted(*vars(whole_numbers(rng, 7)).values())
    linears = dict(zip("abc", parts_of(whole, (2, 2, 3)), strict=True))
    x = rng.integers(-9, 10, (1, 4)).astype(np.float32)
    a, b, c = project(x, linears, "abc")
    assert whole.calls == 1
    assert_same_bits(np.concatenate([a, b, c], axis=1), whole(x))


def test_a_part_that_is_replaced_is_asked_itself(rng):
    whole, other = whole_numbers(rng, 7), Counted(*vars(whole_numbers(rng, 2)).values())
    linears = dict(zip("abc", parts_of(whole, (2, 2, 3)), strict=True))
    x = rng.integers(-9, 10, (1, 4)).astype(np.float32)
    for name in "abc":
        changed = {**linears, name: other}
        found = project(x, changed, "abc")
        assert [y.tolist() for y in found] == [changed[part](x).tolist() for part in "abc"]
    elsewhere = {**linears, "c": JoinedPart(whole_numbers(rng, 7), 4, 7)}
    assert_same_bits(project(x, elsewhere, "abc")[2], elsewhere["c"](x))
