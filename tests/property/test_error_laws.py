"""Laws of the error analysis: docs/equations.md, P-SHARE."""

import numpy as np
from helpers.assertions import assert_close, frozen
from helpers.strategies import activations, weights
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.calibration import SiteStatistics
from awq_ref.report.errors import channel_contributions, linear_errors
from awq_ref.search import LinearFold, direct_loss

U = 2.0**-24


@st.composite
def layers(draw):
    """A weight, an error of up to a tenth of its largest number, and inputs."""
    weight, _ = draw(weights(kinds=("normal", "zeros", "constant", "outlier", "large", "tie")))
    x = draw(activations(in_features=weight.shape[1]))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).uniform(-0.1, 0.1, weight.shape)
    return weight, (np.abs(weight).max() * noise).astype(np.float32), x


def bound(error, x):
    """A term e_i x_ti x_tj e_j is rounded once per token in C and in_features + 2 times in what follows."""
    wide, sizes = np.abs(x.astype(np.float64)), np.abs(error.astype(np.float64))
    return 1.01 * (len(x) + x.shape[1] + 2) * U * ((sizes @ wide.T) ** 2).sum() / len(x)


@given(drawn=layers())
def test_channel_shares_add_up_to_the_output_error(drawn):
    """P-SHARE: sum_i phi_i = tr(E C E^T) = |X E^T|^2 / n; a permutation of channels permutes the shares."""
    error, x = frozen(drawn[1]), frozen(drawn[2])
    statistics = SiteStatistics.from_inputs(x)
    found = channel_contributions(error, statistics.gram_sum) / statistics.count
    tolerance = bound(error, x)
    assert_close(found.sum(), np.float64(direct_loss(error, x)), atol=tolerance)
    order = np.random.default_rng(0).permutation(x.shape[1])
    permuted = SiteStatistics.from_inputs(x[:, order])
    shuffled = channel_contributions(error[:, order], permuted.gram_sum) / statistics.count
    assert_close(shuffled, found[order], atol=2 * tolerance)


@given(drawn=layers())
def test_the_output_error_is_that_of_the_tokens(drawn):
    """P-SHARE: the relative error from statistics alone is the one that running both layers would show."""
    weight, error, x = drawn
    effective = weight + error
    error = effective - weight  # as float32 holds it
    grid = np.ones((len(weight), 1), dtype=np.float16)
    statistics = SiteStatistics.from_inputs(x)
    found = linear_errors(
        frozen(weight), frozen(effective), frozen(weight), statistics,
        delta=grid, delta_rounded=grid, fold=LinearFold(),
    )  # fmt: skip
    energy, loss = direct_loss(weight, x), direct_loss(error, x)
    if energy <= 4 * bound(weight, x):
        return  # the outputs are rounding noise themselves: a ratio says nothing
    relative = bound(weight, x) / energy
    tolerance = (bound(error, x) + 2 * relative * loss) / energy
    assert abs(found.output_error - loss / energy) <= 2 * tolerance
    assert np.isclose(found.shares().sum(), 1.0) or found.output_error == 0.0
