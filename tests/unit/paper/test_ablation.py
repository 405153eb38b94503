"""One choice changed at a time."""

import numpy as np
import pytest

from awq_ref.paper.ablation import Largest, largest_inputs, loss_left, replaced, variants
from awq_ref.paper.registry import run_experiment
from awq_ref.pipeline import calibrate
from awq_ref.search import RECIPES


def test_a_listener_keeps_the_largest_magnitude_of_each_channel():
    largest = Largest()
    largest.add(np.array([[[1.0, -2.0]], [[-3.0, 0.5]]], dtype=np.float32))
    largest.add(np.array([[0.0, 1.0]], dtype=np.float32))
    assert largest.values.tolist() == [3.0, 2.0]


def test_largest_inputs_bound_the_mean_and_the_root_mean_square(tiny_bench, calibrated):
    found = largest_inputs(tiny_bench, calibrated.windows)
    assert found.keys() == calibrated.statistics.sites.keys()
    for name, values in found.items():
        entry = calibrated.statistics.sites[name]
        root_mean_square = np.sqrt(entry.gram_sum.diagonal() / entry.count)
        # mean |x| <= sqrt(mean x^2) <= max |x|, to float32 rounding of the sums
        assert (entry.act_mean_abs <= root_mean_square * (1 + 1e-4)).all()
        assert (root_mean_square <= values * (1 + 1e-4)).all()


def test_one_token_has_one_statistic(tiny_bench):
    window = tiny_bench.windows(0)[:1, :1]
    entry = calibrate(tiny_bench.source, calibration=window, shown=False).sites["0.mlp.down"]
    np.testing.assert_allclose(
        entry.act_mean_abs, largest_inputs(tiny_bench, window)["0.mlp.down"], rtol=1e-5
    )


def test_a_replaced_statistic_is_what_the_search_reads(calibrated):
    changed = replaced(calibrated, lambda name, entry: np.full(entry.in_features, 7.0, dtype=np.float32))
    for name, entry in changed.statistics.sites.items():
        assert (entry.act_mean_abs == 7.0).all()
        assert entry.gram_sum is calibrated.statistics.sites[name].gram_sum


def test_every_variant_differs_from_awq_and_from_the_others():
    rows = variants()
    assert rows[0].recipe == RECIPES["awq"]
    assert len({(row.recipe, row.statistic) for row in rows}) == len({row.name for row in rows}) == len(rows)


def test_a_common_factor_of_the_scales_changes_nothing_but_rounding(tiny_bench, calibrated):
    by_name = {row.name: row.recipe for row in variants()}
    (_, one), (_, other) = (
        tiny_bench.quantize(by_name[name], calibrated, bits=3, group_size=32)
        for name in ("awq", "scales not normalized")
    )
    for (_, a), (_, b) in zip(one.sites(), other.sites(), strict=True):
        common = sorted(set(a.alphas) & set(b.alphas))
        left, right = ([dict(zip(s.alphas, s.losses, strict=True))[x] for x in common] for s in (a, b))
        # the steps are rounded to float16 (2^-11), so a few codes and each error differ a little
        np.testing.assert_allclose(left, right, rtol=0.1)


def test_searching_more_never_leaves_more_loss(tiny_bench, calibrated):
    recipes = {row.name: row.recipe for row in variants()}
    left = {
        name: loss_left(tiny_bench.quantize(recipes[name], calibrated, bits=3, group_size=32)[1])
        for name in ("awq", "no clip", "clip, no guard", "clip alone, no scales", "rtn")
    }
    assert left["rtn"] == pytest.approx(1.0)
    assert left["awq"] <= left["no clip"] <= 1.0
    assert left["awq"] <= left["clip, no guard"]
    assert left["clip alone, no scales"] <= 1.0


def test_the_rows_name_variant_and_grid(changes_for, few_variants):
    reference, *rows = run_experiment("ablation", **changes_for("ablation", seeds=2)).rows
    assert reference["variant"] == "fp16"
    assert [(row["variant"], row["seed"]) for row in rows[::4]] == [("awq", 0), ("awq", 1)]
    assert all(row["kl"] > 0.0 and row["group_size"] == 32 for row in rows)
