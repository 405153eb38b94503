"""The model of the passes, on constants by hand."""

import pytest

from awq_ref.bench.passes import Passes, forecasts

# ns for a weight: 0.02 + 0.08 + 0.06; a packed weight is half a byte; one thread reads 20 GB/s, two 25.
PASSES = Passes(0.02e-9, 0.08e-9, 0.06e-9, 0.05e-9, 0.5, {1: 20e9, 2: 25e9})


def test_by_hand():
    # One thread: reading half a byte takes 0.025 ns, longer than the mask. float32: 4 bytes, 0.2 ns.
    assert PASSES.packed_seconds(1) == pytest.approx(0.165e-9)
    assert PASSES.dense_seconds(1) == pytest.approx(0.2e-9)
    # Two: 0.02 ns for the bytes, and 0.14 / 2; float32: 0.16.
    assert PASSES.packed_seconds(2) == pytest.approx(0.09e-9)
    assert PASSES.dense_seconds(2) == pytest.approx(0.16e-9)


def test_four_threads_under_both_assumptions():
    assert PASSES.packed_seconds(4, "stays") == pytest.approx((0.02 + 0.035) * 1e-9)
    assert PASSES.dense_seconds(4, "stays") == pytest.approx(0.16e-9)
    assert PASSES.packed_seconds(4, "grows") == pytest.approx((0.01 + 0.035) * 1e-9)
    assert PASSES.dense_seconds(4, "grows") == pytest.approx(0.08e-9)


def test_between_measured_numbers_the_bandwidth_is_shared_out():
    four = Passes(0.02e-9, 0.08e-9, 0.06e-9, 0.05e-9, 0.5, {1: 20e9, 4: 60e9})
    assert four.bandwidth_of(2, "stays") == four.bandwidth_of(2, "grows") == 30e9


def test_the_crossing():
    """A machine that reads fast: float32 takes 0.05 and 0.04 ns, packed 0.16 / T: 4 threads if the bus is full."""
    fast = Passes(0.02e-9, 0.08e-9, 0.06e-9, 0.01e-9, 0.5, {1: 80e9, 2: 100e9})
    assert fast.crossing("stays") == 4
    assert fast.crossing("grows") is None
    assert PASSES.crossing("stays") == PASSES.crossing("grows") == 1


def test_forecasts_say_what_is_measured_and_what_is_assumed():
    rows = [(row.threads, row.bus) for row in forecasts(PASSES)]
    assert rows == [(1, "measured"), (2, "measured"), (4, "stays"), (4, "grows"), (8, "stays"), (8, "grows")]
    assert forecasts(PASSES)[0].ratio == pytest.approx(0.2 / 0.165)
