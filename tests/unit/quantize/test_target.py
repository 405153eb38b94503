import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits

from awq_ref.errors import DtypeError, ShapeError
from awq_ref.quantize import feedback_factor, moved_weight


def streams(seed=0, n=400, in_features=12, out_features=5):
    """Inputs with directions in common, the same after something has moved them, and an error of the stream."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, in_features)) @ (np.eye(in_features) + rng.normal(size=(in_features,) * 2) / 4)
    y = 0.8 * x + 0.1 * rng.normal(size=x.shape)
    return rng.normal(size=(out_features, in_features)), x, y, rng.normal(size=(n, out_features)) / 4


def f32(*arrays):
    return [array.astype(np.float32) for array in arrays]


def test_one_weight_by_hand():
    """Y = x / 2 on every token: the weight doubles, so that the output stays."""
    weight, gram, drift = f32(np.array([[3.0]]), np.array([[1.0]]), np.array([[1.0]]))  # y = 1, x = 2
    assert_same_bits(
        moved_weight(weight, feedback_factor(gram, damping=0.0), drift), [[6.0]], dtype=np.float32
    )


def test_what_the_stream_lacks_is_added_by_hand():
    weight, gram, drift, stream = f32(
        np.array([[3.0]]), np.array([[4.0]]), np.array([[0.0]]), np.array([[2.0]])
    )
    moved = moved_weight(weight, feedback_factor(gram, damping=0.0), drift, stream)  # 3 + 2 / 4
    assert_same_bits(moved, [[3.5]], dtype=np.float32)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("recovers", [False, True])
def test_it_is_the_least_squares_solution(act_order, recovers):
    """Against NumPy's own least squares on the tokens, in float64, the damping as rows of its own."""
    weight, x, y, e = streams()
    gram, drift, stream, rounded = f32(y.T @ y, (x - y).T @ y, e.T @ y, weight)
    factor = feedback_factor(gram, act_order=act_order)
    moved = moved_weight(rounded, factor, drift, stream if recovers else None)
    damping = np.sqrt(0.01 * np.trace(y.T @ y) / 12)
    rows = np.vstack([y, damping * np.eye(12)])
    wanted = np.vstack([x @ weight.T + (e if recovers else 0.0), damping * weight.T])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    # float32 sums of 400 products, C, D, B and U rounded once each, against an eigenvalue of C + lambda I that is at
    # least a hundredth of the mean: 500 u, a hundredfold.
    assert_close(moved, expected, rtol=0.0, atol=500 * 2.0**-24 * 100 * np.abs(expected).max())
    assert np.abs(moved - weight).max() > 0.1


def test_a_channel_that_was_never_active_keeps_its_column():
    weight, x, y, _ = streams()
    x[:, 3] = y[:, 3] = 0.0
    gram, drift, rounded = f32(y.T @ y, (x - y).T @ y, weight)
    moved = moved_weight(rounded, feedback_factor(gram), drift)
    assert_same_bits(moved[:, 3], rounded[:, 3])


def test_inputs_that_have_not_moved_leave_the_weight():
    weight, x, _, _ = streams()
    gram, rounded = f32(x.T @ x, weight)
    assert_same_bits(moved_weight(rounded, feedback_factor(gram), np.zeros_like(gram)), rounded)


def test_arrays_that_do_not_fit():
    weight, gram = f32(np.ones((2, 3)), np.eye(3))
    factor = feedback_factor(gram)
    with pytest.raises(ShapeError, match="drift"):
        moved_weight(weight, factor, gram[:2])
    with pytest.raises(ShapeError, match="stream"):
        moved_weight(weight, factor, gram, gram)
    with pytest.raises(DtypeError, match="drift"):
        moved_weight(weight, factor, gram.astype(np.float64))
