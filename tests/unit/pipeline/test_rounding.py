import numpy as np
import pytest

from awq_ref.calibration import SiteStatistics
from awq_ref.errors import CalibrationWarning
from awq_ref.pipeline.rounding import round_site
from awq_ref.search import LinearFold
from awq_ref.spec import QuantSpec, Rounding

SPEC = QuantSpec(bits=3, group_size=16)
FEEDBACK = Rounding(method="feedback", act_order=True)


@pytest.fixture
def site():
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(200, 32)) @ (np.eye(32) + rng.normal(size=(32, 32)) / 8)).astype(np.float32)
    weights = {name: rng.normal(size=(rows, 32)).astype(np.float32) for name, rows in (("q", 4), ("v", 6))}
    columns = np.exp(rng.normal(size=32)).astype(np.float32)
    rows = np.exp(rng.normal(size=6)).astype(np.float32)
    return x, weights, {"q": LinearFold(columns=columns), "v": LinearFold(columns=columns, rows=rows)}


def test_the_loss_is_that_of_the_outputs_in_the_terms_of_the_float_model(site):
    """Q(W s / r) r / s - W on the tokens themselves, in float64, folds undone by hand."""
    x, weights, folds = site
    found = round_site(weights, folds, SiteStatistics.from_inputs(x), spec=SPEC, rounding=FEEDBACK)
    total, bound = 0.0, 0.0
    for name, linear in found.linears.items():
        codes = linear.int_weight.astype(np.float64) - np.repeat(
            linear.zero_point.astype(np.float64), 16, axis=1
        )
        effective = codes * np.repeat(linear.scales.astype(np.float64), 16, axis=1) / folds[name].columns
        if folds[name].rows is not None:
            effective *= folds[name].rows.astype(np.float64)[:, None]
        error = effective - weights[name]
        total += ((x.astype(np.float64) @ error.T) ** 2).sum()
        bound += ((np.abs(x).astype(np.float64) @ np.abs(error).T) ** 2).sum()
    # Both are the same sum of products over 32 x 32 channels and 200 tokens; in float32 the Gram matrix is off by
    # gamma_200, the products with it by gamma_64, each scaled weight by 3 u: 300 u of the sum of absolute values.
    assert abs(found.loss * 200 * 10 - total) <= 300 * 2.0**-24 * bound


def test_to_nearest_needs_no_statistics_and_states_no_loss(site):
    _, weights, folds = site
    found = round_site(weights, folds, None, spec=SPEC, rounding=Rounding())
    assert set(found.linears) == {"q", "v"}
    assert (found.loss, found.damping) == (None, None)


def test_few_tokens_warn(site):
    x, weights, folds = site
    with pytest.warns(CalibrationWarning, match="saw 20 tokens, fewer than the 32 channels"):
        round_site(weights, folds, SiteStatistics.from_inputs(x[:20]), spec=SPEC, rounding=FEEDBACK)
