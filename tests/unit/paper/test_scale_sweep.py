"""Salient channels scaled before rounding."""

import numpy as np
import pytest

from awq_ref.paper.linears import dense_weight
from awq_ref.paper.registry import run_experiment
from awq_ref.paper.scale_sweep import scaled_linear, scaled_model
from awq_ref.spec import QuantSpec

# One group of four at INT3: range [-7, 7], 7 steps of 2, zero point round(3.5) = 4.
WEIGHT = np.array([[-7.0, 7.0, 0.9, 0.0]], dtype=np.float32)
SPEC = QuantSpec(bits=3, group_size=4)


def test_a_small_weight_gains_and_its_group_keeps_its_step():
    plain, _ = scaled_linear(WEIGHT, np.array([2]), 1.0, SPEC)
    scaled, ratios = scaled_linear(WEIGHT, np.array([2]), 2.0, SPEC)
    assert plain[0, 2] == 0.0  # 0.9 / 2 rounds to 0
    assert scaled[0, 2] == 1.0  # 1.8 / 2 rounds to 1 step of 2, halved
    assert ratios.tolist() == [1.0]


def test_the_largest_weight_makes_its_groups_step_grow():
    _, ratios = scaled_linear(WEIGHT, np.array([1]), 2.0, SPEC)
    assert ratios.tolist() == [1.5]  # the range grows from 14 to 21


@pytest.mark.parametrize("scale", [1.0, 1.25, 4.0])
def test_a_step_grows_by_s_at_most_and_never_shrinks(rng, scale):
    weight = rng.normal(size=(16, 64)).astype(np.float32)
    _, ratios = scaled_linear(weight, np.array([3, 40]), scale, QuantSpec(bits=3, group_size=32))
    half_ulp = 2.0**-10  # both steps are rounded to float16
    assert (ratios >= 1.0 - half_ulp).all()
    assert (ratios <= scale * (1.0 + half_ulp)).all()


def test_with_s_1_it_is_round_to_nearest(tiny_bench, calibrated):
    rounded, _ = tiny_bench.quantize("rtn", calibrated, bits=3, group_size=32)
    model, _ = scaled_model(tiny_bench, calibrated, 1.0, spec=QuantSpec(bits=3, group_size=32))
    for block, wanted in zip(model.decoder.blocks, rounded.decoder.blocks, strict=True):
        for name, linear in block.linears.items():
            np.testing.assert_array_equal(dense_weight(linear), dense_weight(wanted.linears[name]))


def test_the_rows_are_consistent(changes_for):
    reference, first, *others = run_experiment("scale-sweep", **changes_for("scale-sweep")).rows
    assert (first["s"], first["changed"], first["ratio"]) == (1.0, 0.0, 1.0)
    for row in others:
        assert row["error_ratio"] == row["ratio"] / row["s"]
        # the mean over all groups is that of the changed ones and of ones
        mixed = row["changed"] * row["ratio_changed"] + (1.0 - row["changed"])
        assert row["ratio"] == pytest.approx(mixed, rel=1e-12)
        assert row["kl"] >= 0.0
    assert reference["bits"] == 16
