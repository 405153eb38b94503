import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits

from awq_ref.calibration import (
    SiteStatistics,
    StatisticsAccumulator,
    load_statistics,
    merge,
    save_statistics,
)
from awq_ref.calibration import statistics as module
from awq_ref.errors import DtypeError, FormatError, RangeError, ShapeError

X = np.array([[1.0, -2.0, 0.0], [3.0, 4.0, 0.0]], dtype=np.float32)
GRAM = [[5.0, 5.0, 0.0], [5.0, 10.0, 0.0], [0.0, 0.0, 0.0]]  # half of [[10, 10], [10, 20]]


def test_statistics_of_two_tokens_by_hand():
    found = SiteStatistics.from_inputs(X)
    assert found.count == 2
    assert_same_bits(found.abs_sum, [4.0, 6.0, 0.0], dtype=np.float64)
    assert_same_bits(found.act_mean_abs, [2.0, 3.0, 0.0], dtype=np.float32)
    assert_same_bits(found.gram, GRAM, dtype=np.float32)


def test_leading_axes_are_tokens():
    found = SiteStatistics.from_inputs(X.reshape(2, 1, 1, 3))
    assert found.count == 2
    assert_same_bits(found.gram, GRAM, dtype=np.float32)


def test_panels_make_the_same_matrix_and_it_is_symmetric(rng, monkeypatch):
    monkeypatch.setattr(module, "LEAST_PANEL", 5)
    x = rng.integers(-4, 5, (40, 13)).astype(np.float32)  # whole numbers: every order of additions is exact
    found = SiteStatistics.from_inputs(x)
    expected = sum(np.outer(row, row) for row in x.astype(np.int64))
    assert_same_bits(found.gram_sum, expected, dtype=np.float32)


def test_the_number_of_threads_does_not_change_the_sums(rng, monkeypatch):
    x = rng.normal(0, 1, (300, 600)).astype(np.float32)
    found = []
    for n_threads in (1, 2, 3):
        monkeypatch.setattr(module, "default_threads", lambda n=n_threads: n)
        found.append(SiteStatistics.from_inputs(x))
    for other in found[1:]:
        assert_same_bits(other.gram_sum, found[0].gram_sum)
        assert_same_bits(other.abs_sum, found[0].abs_sum)


def test_merge_adds():
    both = merge(SiteStatistics.from_inputs(X[:1]), SiteStatistics.from_inputs(X[1:]))
    assert both.count == 2
    assert_same_bits(both.abs_sum, [4.0, 6.0, 0.0], dtype=np.float64)
    assert_same_bits(both.gram, GRAM, dtype=np.float32)


def test_merge_of_different_widths():
    with pytest.raises(ShapeError, match=r"second.abs_sum must have shape \(3\)"):
        merge(SiteStatistics.from_inputs(X), SiteStatistics.from_inputs(X[:, :2].copy()))


def test_small_activations_are_not_lost_among_many():
    # 2**24 + 1 is no float32: a float32 sum of |x| would stop growing.
    accumulator = StatisticsAccumulator(1)
    accumulator.add(np.array([[2.0**24]], dtype=np.float32))
    for _ in range(4):
        accumulator.add(np.ones((1, 1), dtype=np.float32))
    assert_same_bits(accumulator.finish().abs_sum, [2.0**24 + 4], dtype=np.float64)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_activation_is_named(bad):
    x = X.copy()
    x[1, 2] = bad
    with pytest.raises(RangeError, match=r"inputs of mlp.down: the activation must be finite; .* \(1, 2\)"):
        StatisticsAccumulator(3, site="mlp.down").add(x)


def test_squares_that_overflow_are_an_error():
    accumulator = StatisticsAccumulator(1, site="mlp.down")
    accumulator.add(np.array([[1e30]], dtype=np.float32))
    with pytest.raises(RangeError, match="inputs of mlp.down: the sum of squares must be finite"):
        accumulator.finish()


def test_wrong_inputs():
    accumulator = StatisticsAccumulator(3, site="mlp.down")
    with pytest.raises(ShapeError, match="mlp.down must have shape"):
        accumulator.add(X[:, :2])
    with pytest.raises(DtypeError, match="mlp.down must be float32; got float64"):
        accumulator.add(X.astype(np.float64))
    with pytest.raises(RangeError, match="count must be at least 1; got 0"):
        accumulator.finish()


def test_a_file_gives_back_the_same_bits(tmp_path, rng):
    sites = {name: SiteStatistics.from_inputs(rng.random((5, 4), dtype=np.float32)) for name in ("a.b", "c")}
    save_statistics(tmp_path / "s.safetensors", sites, source={"windows": 3})
    loaded, source = load_statistics(tmp_path / "s.safetensors")
    assert source == {"windows": 3}
    assert list(loaded) == list(sites)
    for site, entry in sites.items():
        assert loaded[site].count == entry.count
        assert_same_bits(loaded[site].abs_sum, entry.abs_sum)
        assert_same_bits(loaded[site].gram_sum, entry.gram_sum)


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(FormatError, match="must be a file that save_statistics wrote"):
        load_statistics(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_bytes(b"not a tensor file at all")
    with pytest.raises(FormatError, match="SafetensorError"):
        load_statistics(tmp_path / "text.safetensors")
    from safetensors.numpy import save_file

    save_file({"x": X}, tmp_path / "other.safetensors")
    with pytest.raises(FormatError, match="KeyError"):
        load_statistics(tmp_path / "other.safetensors")


def test_gram_is_the_mean():
    assert_close(SiteStatistics.from_inputs(np.concatenate([X, X])).gram, GRAM)
