"""Laws of the statistics: docs/equations.md, P-CHUNK and P-INPUT."""

import numpy as np
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.strategies import activations
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.calibration import SiteStatistics, StatisticsAccumulator, merge, token_windows

U = 2.0**-24
U64 = 2.0**-53


@given(x=activations(in_features=12, max_tokens=24), data=st.data())
def test_statistics_of_parts_are_those_of_the_whole(x, data):
    """P-CHUNK: batch by batch, merged, and at once."""
    cuts = sorted(data.draw(st.lists(st.integers(1, max(1, len(x) - 1)), max_size=4)))
    parts = [part for part in np.split(x, cuts) if len(part)]
    accumulator = StatisticsAccumulator(12)
    for part in parts:
        accumulator.add(part)
    merged = SiteStatistics.from_inputs(parts[0])
    for part in parts[1:]:
        merged = merge(merged, SiteStatistics.from_inputs(part))
    # A term of either sum passes through at most one product and n additions, n <= 24 tokens + 5 parts; two orders
    # differ by at most 2 gamma_(n+1) times the sum of absolute values, and gamma_k <= 1.01 k u here.
    n = len(x) + len(parts) + 1
    whole = SiteStatistics.from_inputs(x)
    wide = np.abs(x.astype(np.float64))
    for found in (accumulator.finish(), merged):
        assert found.count == whole.count == len(x)
        assert_close(found.abs_sum, whole.abs_sum, atol=2.02 * n * U64 * wide.sum(axis=0))
        assert_close(found.gram_sum, whole.gram_sum, atol=2.02 * n * U * (wide.T @ wide))
        assert_same_bits(found.gram_sum, found.gram_sum.T.copy())


@given(x=activations(in_features=8))
def test_inputs_are_not_written_to(x):
    """P-INPUT, for calibration."""
    first = SiteStatistics.from_inputs(frozen(x))
    held = SiteStatistics(first.count, frozen(first.abs_sum), frozen(first.gram_sum))
    merge(held, held)
    assert held.act_mean_abs.shape == (8,)
    assert held.gram.shape == (8, 8)
    token_windows(frozen(np.arange(9, dtype=np.int64)), seq_len=2, samples=3)
