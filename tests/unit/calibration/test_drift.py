import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.calibration import DriftAccumulator
from awq_ref.errors import RangeError, ShapeError

X = np.array([[[1.0, 2.0]], [[0.0, -1.0]]], dtype=np.float32)
Y = np.array([[[1.0, 1.0]], [[2.0, 0.0]]], dtype=np.float32)
E = np.array([[[3.0, 0.0, 1.0]], [[1.0, 1.0, 0.0]]], dtype=np.float32)


def summed(*batches):
    sums = DriftAccumulator(2)
    for batch in batches:
        sums.add(*batch)
    return sums.finish()


def test_the_sums_by_hand():
    found = summed((X, Y, E))
    assert found.count == 2
    # y y^T: [[1, 1], [1, 1]] + [[4, 0], [0, 0]];  x - y = (0, 1), (-2, -1)
    assert_same_bits(found.gram_sum, [[5.0, 1.0], [1.0, 1.0]], dtype=np.float32)
    assert_same_bits(found.drift_sum, [[-4.0, 0.0], [-1.0, 1.0]], dtype=np.float32)
    assert_same_bits(found.stream_sum, [[5.0, 3.0], [2.0, 0.0], [1.0, 1.0]], dtype=np.float32)


def test_batches_add_up():
    whole, parts = summed((X, Y, E)), summed((X[:1], Y[:1], E[:1]), (X[1:], Y[1:], E[1:]))
    for name in ("gram_sum", "drift_sum", "stream_sum"):
        assert_same_bits(getattr(parts, name), getattr(whole, name))
    assert parts.count == whole.count


def test_without_an_error_of_the_stream_there_is_no_sum_of_it():
    assert summed((X, Y)).stream_sum is None


def test_inputs_that_have_not_moved_have_no_drift():
    assert not summed((X, X)).drift_sum.any()


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite(which):
    pair = [X.copy(), Y.copy()]
    pair[which][1, 0, 1] = np.nan
    with pytest.raises(RangeError, match=r"inputs of x: .* must be finite; got nan"):
        summed(pair)


def test_no_token():
    with pytest.raises(RangeError, match="at least one token must come"):
        summed()


@pytest.mark.parametrize("batch", [(X, Y[:1]), (X[..., :1], Y[..., :1]), (X, Y, E[:1])])
def test_shapes_that_do_not_fit(batch):
    with pytest.raises(ShapeError):
        summed(batch)
