import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits

from awq_ref.calibration import SiteStatistics
from awq_ref.errors import ShapeError
from awq_ref.search import (
    GramObjective,
    LinearFold,
    ModuleObjective,
    direct_loss,
    gram_loss,
    gram_row_losses,
    row_losses,
)
from awq_ref.search import objective as module
from awq_ref.search.objective import FeedbackObjective


def f32(*values):
    return np.array(values, dtype=np.float32)


E = f32(1.0, 2.0, -1.0, 0.0).reshape(2, 2)
C = f32(1.0, 0.5, 0.5, 3.0).reshape(2, 2)


def half_steps(weight, clip=np.inf):
    """A quantizer that one can follow by hand: round to multiples of 1/2."""
    return np.rint(np.clip(weight, -clip, clip) * 2.0) / 2.0


def test_row_losses_by_hand():
    # 1 * 1 + 2 * (1 * 2 * 0.5) + 4 * 3 = 15;  (-1)(-1) * 1 = 1
    assert_same_bits(gram_row_losses(E, C), [15.0, 1.0], dtype=np.float64)
    assert gram_loss(E, C) == 16.0


def test_direct_loss_by_hand():
    x = f32(1.0, 0.0, 1.0, 1.0).reshape(2, 2)  # outputs 1, -1 | 3, -1
    assert direct_loss(E, x) == (1 + 1 + 9 + 1) / 2


def test_panels_make_the_same_sum(rng, monkeypatch):
    x = rng.integers(-3, 4, (20, 13)).astype(np.float32)  # whole numbers: exact in every order
    error = rng.integers(-3, 4, (4, 13)).astype(np.float32)
    gram = x.T @ x
    expected = ((error.astype(np.int64) @ x.T.astype(np.int64)) ** 2).sum(axis=1)
    for panel in (3, 13, 512):
        monkeypatch.setattr(module, "PANEL", panel)
        monkeypatch.setattr(module, "SQUARE", panel)
        assert_same_bits(gram_row_losses(error, gram), expected, dtype=np.float64)
        assert gram_loss(error, gram) == expected.sum()


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"gram must have shape \(2, 2\)"):
        gram_row_losses(E, np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"error must have shape \(any, any\)"):
        gram_row_losses(E[0], C)
    with pytest.raises(ShapeError, match=r"gram must have shape \(2, 2\)"):
        gram_loss(E, np.zeros((3, 3), dtype=np.float32))
    statistics = SiteStatistics.from_inputs(np.ones((4, 3), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"weight must have shape \(any, 3\)"):
        GramObjective([E], statistics, half_steps)


def test_objective_of_two_layers_by_hand():
    x = f32(1.0, 0.0, 1.0, 2.0).reshape(2, 2)
    first, second = f32(0.5, 0.75).reshape(1, 2), f32(0.25, 1.0, 0.75, 0.0).reshape(2, 2)
    loss = GramObjective([first, second], SiteStatistics.from_inputs(x), half_steps)
    # Scales 1: errors (0, 0.25) (-0.25, 0) (0.25, 0); outputs on the tokens 0, 0.5 | -1/4, -1/4 | 1/4, 1/4.
    assert loss(f32(1.0, 1.0)) == (0.25 / 2 + 1 / 16 + 1 / 16) / 3
    # Scales 2: every weight becomes a multiple of 1/2.
    assert loss(f32(2.0, 2.0)) == 0.0


@pytest.mark.parametrize(("rows", "elements"), [(2, 8), (3, 4), (1024, 1 << 18)])
def test_slabs_change_nothing(rng, monkeypatch, rows, elements):
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "QUANTIZER_ELEMENTS", elements)
    weight = (rng.integers(-8, 9, (7, 4)) / 8).astype(np.float32)
    x = rng.integers(-3, 4, (16, 4)).astype(np.float32)
    fold = LinearFold(f32(1.0, 2.0, 0.5, 1.0), f32(1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0), None)
    scaled = weight * [1.0, 2.0, 0.5, 1.0] / np.array([[1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0]]).T
    error = (half_steps(scaled) - scaled) / [1.0, 2.0, 0.5, 1.0]
    error *= np.array([[1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0]]).T
    expected = ((error @ x.T) ** 2).mean(axis=1)  # dyadic fractions of few bits: exact
    assert_same_bits(row_losses(weight, fold, SiteStatistics.from_inputs(x), half_steps), expected)


def test_layers_below_each_other_cost_what_they_cost_alone(rng, monkeypatch):
    x = rng.integers(-3, 4, (16, 4)).astype(np.float32)
    layers = [(rng.integers(-8, 9, (rows, 4)) / 8).astype(np.float32) for rows in (3, 1, 4)]
    statistics, scales = SiteStatistics.from_inputs(x), f32(1.0, 2.0, 0.5, 1.0)
    alone = [GramObjective([layer], statistics, half_steps)(scales) * len(layer) for layer in layers]
    for rows in (1, 2, 5, 8):  # slabs that end inside of layers, and hold several
        monkeypatch.setattr(module, "ROWS", rows)
        assert GramObjective(layers, statistics, half_steps)(scales) == sum(alone) / 8


def test_clipped_weights_are_judged_against_the_unclipped():
    statistics = SiteStatistics.from_inputs(f32(1.0, 1.0).reshape(1, 2))
    fold = LinearFold(clip=f32(1.0).reshape(1, 1))
    losses = row_losses(f32(0.5, 3.0).reshape(1, 2), fold, statistics, half_steps)
    assert_same_bits(losses, [4.0], dtype=np.float64)


def test_module_objective_by_hand():
    x = [f32(1.0, 0.0).reshape(1, 2), f32(1.0, 2.0, 0.0, 0.0).reshape(2, 2)]
    weight = f32(0.5, 0.75).reshape(1, 2)

    def run(replaced):
        for batch in x:
            yield (batch @ replaced.get("a", weight).T) ** 2

    loss = ModuleObjective({"a": weight}, run, half_steps)
    # Outputs 0.25 | 4, 0 become, with 0.75 rounded to 1: 0.25 | 6.25, 0.
    assert loss(f32(1.0, 1.0)) == 2.25**2 / 3
    assert loss(f32(2.0, 2.0)) == 0.0


def test_a_module_that_changes_its_mind():
    batches = [2, 1]

    def run(replaced):
        return [f32(1.0)] * batches.pop(0)

    loss = ModuleObjective({"a": E}, run, half_steps)
    with pytest.raises(ShapeError, match="always yield 2 batches"):
        loss(f32(1.0, 1.0))


def test_float32_losses_are_close_to_float64(rng):
    x = rng.normal(0, 1, (64, 1200)).astype(np.float32)  # more than two panels
    error = rng.normal(0, 1e-2, (3, 1200)).astype(np.float32)
    # P-GRAM's bound: a term is rounded at most 64 + 2 * 1200 + 4 times.
    wide, sizes = np.abs(x.astype(np.float64)), np.abs(error.astype(np.float64))
    bound = 1.01 * (64 + 2400 + 4) * 2.0**-24 * ((sizes @ wide.T) ** 2).sum(axis=1) / 64
    found = row_losses(-error, LinearFold(), SiteStatistics.from_inputs(x), lambda w: w * 0.0)
    assert_close(found, ((error.astype(np.float64) @ x.T) ** 2).sum(axis=1) / 64, atol=bound)


def test_the_feedback_objective_by_hand():
    loss = FeedbackObjective([f32([0.3, 0.6])], f32(2.0, 3.0), half_steps)
    # rounded to 0.5, 0.5: errors 0.2, -0.1
    assert loss(f32(1.0, 1.0)) == pytest.approx(2 * 0.2**2 + 3 * 0.1**2, rel=1e-6)
    # 0.6, 0.6 rounded to 0.5, 0.5: errors -0.1 / 2, -0.1
    assert loss(f32(2.0, 1.0)) == pytest.approx(2 * 0.05**2 + 3 * 0.1**2, rel=1e-6)


def test_the_feedback_objective_is_a_mean_over_outputs():
    rows = [f32([0.3, 0.6]), f32([0.3, 0.6], [0.3, 0.6])]
    alone = FeedbackObjective(rows[:1], f32(2.0, 3.0), half_steps)(f32(1.0, 1.0))
    assert FeedbackObjective(rows, f32(2.0, 3.0), half_steps)(f32(1.0, 1.0)) == pytest.approx(alone, rel=1e-6)


def test_where_channels_do_not_overlap_feedback_and_gram_agree(rng):
    # One channel per token: C is diagonal, U_ii = 1 / sqrt(C_ii), so m is C's diagonal.
    inputs = np.diag(rng.uniform(0.5, 4.0, 8)).astype(np.float32)
    statistics = SiteStatistics.from_inputs(inputs)
    weights = [rng.standard_normal((5, 8)).astype(np.float32) for _ in range(2)]
    by_feedback = FeedbackObjective(weights, statistics.gram.diagonal(), half_steps)
    by_gram = GramObjective(weights, statistics, half_steps)
    for scales in rng.uniform(0.25, 4.0, (3, 8)).astype(np.float32):
        # Two float32 sums of at most 8 products per row, of one sign: relative error below 16 u each.
        assert by_feedback(scales) == pytest.approx(by_gram(scales), rel=32 * 2.0**-24)


def test_the_feedback_objective_wants_an_importance_per_channel():
    with pytest.raises(ShapeError, match=r"weight must have shape \(any, 3\)"):
        FeedbackObjective([E], f32(1.0, 1.0, 1.0), half_steps)
