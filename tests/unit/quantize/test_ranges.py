import numpy as np
import pytest

from awq_ref.errors import RangeError, ShapeError
from awq_ref.quantize import grid_of_range, group_range, quantize, search_ranges
from awq_ref.quantize.affine import dequantize
from awq_ref.spec import QuantSpec


def weighted_error(weight, importance, low, high, spec):
    """Sum m (w - w_hat)^2 per row and group, in float64, by the slow way through integers."""
    grid = grid_of_range(low, high, spec=spec)
    rounded = dequantize(quantize(weight, *grid, spec=spec), *grid).astype(np.float64)
    squares = importance.astype(np.float64) * (rounded - weight) ** 2
    return squares.reshape(len(weight), low.shape[1], -1).sum(axis=2)


def test_weights_on_a_grid_keep_their_extremes():
    weight = np.array(
        [[-8.0, -3.0, 0.0, 7.0]], dtype=np.float32
    )  # codes 0, 5, 8, 15 of step 1: no error at all
    low, high = search_ranges(weight, np.ones(4, dtype=np.float32), spec=QuantSpec(bits=4, group_size=4))
    assert low.dtype == high.dtype == np.float32
    assert (low.tolist(), high.tolist()) == ([[-8.0]], [[7.0]])


def test_an_outlier_without_importance_is_cut_at_its_end_alone():
    weight = np.array([[-1.0, 0.3, 0.6, 40.0]], dtype=np.float32)
    importance = np.array([1.0, 1.0, 1.0, 0.0], dtype=np.float32)
    low, high = search_ranges(weight, importance, spec=QuantSpec(bits=4, group_size=4))
    assert high[0, 0] < 40.0 * 0.41  # 0.4 is the narrowest common shrink, single moves go on from there
    assert low[0, 0] < 0.0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_never_worse_than_the_extremes(bits, symmetric):
    rng = np.random.default_rng(bits)
    weight = rng.standard_t(3, size=(9, 64)).astype(np.float32)
    importance = np.exp(rng.normal(size=64)).astype(np.float32)
    spec = QuantSpec(bits=bits, group_size=16, symmetric=symmetric)
    found = weighted_error(weight, importance, *search_ranges(weight, importance, spec=spec), spec)
    extremes = weighted_error(weight, importance, *group_range(weight, spec=spec), spec)
    # candidates are compared in float32: sums of 16 terms, each off by a few u of itself
    assert (found <= extremes * (1 + 20 * 2**-24)).all()
    assert (found < 0.9 * extremes).any()


def test_tiles_of_rows_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    weight, importance = rng.normal(size=(10, 32)).astype(np.float32), np.ones(32, dtype=np.float32)
    spec = QuantSpec(bits=3, group_size=8)
    whole = search_ranges(weight, importance, spec=spec)
    monkeypatch.setattr("awq_ref.quantize.ranges.TILE_WEIGHTS", 64)
    for one, other in zip(whole, search_ranges(weight, importance, spec=spec), strict=True):
        assert (one == other).all()


def test_bad_importance():
    weight, spec = np.ones((1, 4), dtype=np.float32), QuantSpec(bits=4, group_size=4)
    with pytest.raises(ShapeError, match=r"importance must have shape \(4\)"):
        search_ranges(weight, np.ones(3, dtype=np.float32), spec=spec)
    with pytest.raises(RangeError, match="importance must be finite and at least 0"):
        search_ranges(weight, np.array([1, 1, -1, 1], dtype=np.float32), spec=spec)
