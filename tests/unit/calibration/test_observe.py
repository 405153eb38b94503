import time

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.calibration import Observed, StridedTokens, Unread, clip_token_stride, observe
from awq_ref.errors import RangeError
from awq_ref.threads import run_jobs


class Double:
    in_features, out_features, resident_bytes = 2, 2, 16

    def __call__(self, x):
        return x * 2.0


def batches(rng):
    return [rng.integers(-5, 6, (2, 3, 2)).astype(np.float32) for _ in range(3)]


def run_with(windows, outputs=None):
    def run(linears_of):
        for batch, x in enumerate(windows):
            with linears_of(batch) as linears:
                y = linears["second"](linears["first"](x))
            if outputs is not None:
                outputs.append(y)

    return run


def test_statistics_of_what_entered(rng):
    windows, outputs = batches(rng), []
    linears = {"first": Double(), "second": Double()}
    found = observe(run_with(windows, outputs), linears, {"in": "first", "out": "second"})
    x = np.concatenate(windows).reshape(-1, 2)
    assert found.tokens == {}
    assert {site: entry.count for site, entry in found.statistics.items()} == {"in": 18, "out": 18}
    assert_same_bits(found.statistics["in"].abs_sum, np.abs(x).sum(axis=0), dtype=np.float64)
    assert_same_bits(found.statistics["out"].abs_sum, 2 * np.abs(x).sum(axis=0), dtype=np.float64)
    assert_same_bits(np.concatenate(outputs), np.concatenate(windows) * np.float32(4.0))
    assert all(type(linear) is Double for linear in linears.values())


def test_an_unread_layer_shows_its_inputs_and_multiplies_nothing(rng):
    windows, outputs = batches(rng), []
    sites = {"in": "first", "out": "second"}
    whole = observe(run_with(windows), {"first": Double(), "second": Double()}, sites)
    found = observe(run_with(windows, outputs), {"first": Double(), "second": Unread(Double())}, sites)
    for site in sites:
        assert_same_bits(found.statistics[site].gram_sum, whole.statistics[site].gram_sum)
        assert_same_bits(found.statistics[site].abs_sum, whole.statistics[site].abs_sum)
    assert {(y.shape, y.dtype.name, y.any()) for y in outputs} == {((2, 3, 2), "float32", False)}


def test_every_kth_token_is_kept_across_batches(rng):
    windows = batches(rng)
    found = observe(
        run_with(windows), {"first": Double(), "second": Double()}, {"in": "first"}, token_stride=4
    )
    assert_same_bits(found.tokens["in"], np.concatenate(windows).reshape(-1, 2)[::4])


def test_a_site_that_no_token_reaches_may_be_left_out(rng):
    linears = {"first": Double(), "second": Double()}

    def run(linears_of):
        for batch, x in enumerate(batches(rng)):
            with linears_of(batch) as observed:
                observed["first"](x)

    sites = {"in": "first", "out": "second"}
    found = observe(run, linears, sites, token_stride=2, may_miss=["out"])
    assert list(found.statistics) == list(found.tokens) == ["in"]
    with pytest.raises(RangeError, match="count must be at least 1"):
        observe(run, linears, sites)
    assert set(observe(run_with(batches(rng)), linears, sites, may_miss=["out"]).statistics) == {"in", "out"}


def test_batches_that_run_at_the_same_time_are_noted_in_their_order(rng):
    """Odd batches skip the second layer, and the first of all is the slowest: others wait, but not for ever."""
    windows = [rng.standard_normal((40, 2)).astype(np.float32) for _ in range(6)]
    sites = {"in": "first", "out": "second"}

    def run_on(n_threads):
        def run(linears_of):
            def one(batch):
                with linears_of(batch) as linears:
                    time.sleep(0.02 if batch == 0 else 0.0)
                    y = linears["first"](windows[batch])
                    if batch % 2 == 0:
                        linears["second"](y)

            run_jobs(one, range(len(windows)), n_threads=n_threads)

        return observe(run, {"first": Double(), "second": Double()}, sites, token_stride=7)

    alone = run_on(1)
    assert_same_bits(alone.tokens["in"], np.concatenate(windows)[::7])
    for n_threads in (2, 3, 6):
        found = run_on(n_threads)
        for site in sites:
            assert_same_bits(found.statistics[site].gram_sum, alone.statistics[site].gram_sum)
            assert_same_bits(found.statistics[site].abs_sum, alone.statistics[site].abs_sum)
            assert_same_bits(found.tokens[site], alone.tokens[site])


def test_an_observed_layer_looks_like_the_layer():
    observed = Observed(Double(), ())
    assert (observed.in_features, observed.out_features, observed.resident_bytes) == (2, 2, 16)


def test_wrong_arguments(rng):
    with pytest.raises(RangeError, match="site in must name a linear layer; got 'third'. Known: first."):
        observe(run_with(batches(rng)), {"first": Double()}, {"in": "third"})
    with pytest.raises(RangeError, match="stride must lie in"):
        StridedTokens(0)
    with pytest.raises(RangeError, match="count must be at least 1"):
        observe(run_with([]), {"first": Double()}, {"in": "first"})
    bad = [np.full((1, 2), np.nan, dtype=np.float32)]
    with pytest.raises(RangeError, match="inputs of in: the activation must be finite"):
        observe(run_with(bad), {"first": Double(), "second": Double()}, {"in": "first"})


@pytest.mark.parametrize(
    ("tokens", "stride"), [(1, 1), (511, 1), (512, 1), (1023, 1), (1024, 2), (65536, 128)]
)
def test_stride_of_the_clip_tokens(tokens, stride):
    assert clip_token_stride(tokens) == stride
