"""Columns kept in FP16."""

import numpy as np
import pytest

from awq_ref.paper.experiment import select
from awq_ref.paper.linears import dense_weight, exchanged, salient, site_of
from awq_ref.paper.salient import WAYS, choose, keep, kept_rows, variants


def test_the_largest_are_salient_at_least_one_of_them():
    values = np.array([0.0, 5.0, 1.0, 4.0], dtype=np.float32)
    assert salient(values, 0.5).tolist() == [1, 3]
    assert salient(values, 0.001).tolist() == [1]
    assert sorted(salient(values, 1.0).tolist()) == [0, 1, 2, 3]


def test_every_linear_has_its_site(tiny_bench):
    sites = site_of(tiny_bench.model)
    assert set(sites) == set(tiny_bench.model.decoder.blocks[0].linears)
    assert sites["mlp.up_proj"] == "mlp.gate_up"


def test_exchanged_weights_take_the_place_of_all_linears(tiny_bench):
    twice = exchanged(tiny_bench.model, lambda layer, name, weight: 2 * weight)
    for block, original in zip(twice.decoder.blocks, tiny_bench.model.decoder.blocks, strict=True):
        for name, linear in block.linears.items():
            np.testing.assert_array_equal(dense_weight(linear), 2 * dense_weight(original.linears[name]))


def test_the_ways_to_choose_are_what_they_say(tiny_bench, calibrated):
    weight = np.array([[3.0, 0.0, 1.0], [4.0, 1.0, 1.0]], dtype=np.float32)
    norms = choose("weight norm", tiny_bench.model, calibrated)(0, "mlp.down_proj", weight)
    np.testing.assert_allclose(norms, [5.0, 1.0, 2**0.5])
    means = choose("activation", tiny_bench.model, calibrated)(1, "mlp.down_proj", weight)
    np.testing.assert_array_equal(means, calibrated.statistics.sites["1.mlp.down"].act_mean_abs)
    one, same, other = (
        choose("random", tiny_bench.model, calibrated, seed=seed)(0, "x", weight) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("way", WAYS)
def test_columns_are_put_back_and_the_others_stay(way, tiny_bench, calibrated):
    quantized, _ = tiny_bench.quantize("rtn", calibrated, bits=2, group_size=32)
    mixed = keep(quantized, tiny_bench.model, choose(way, tiny_bench.model, calibrated), 0.25)
    original, rounded, result = (
        dense_weight(model.decoder.blocks[1].linears["mlp.down_proj"])
        for model in (tiny_bench.model, quantized, mixed)
    )
    is_original = (result == original).all(axis=0)
    assert is_original.sum() == 24  # a quarter of 96
    np.testing.assert_array_equal(result[:, ~is_original], rounded[:, ~is_original])


@pytest.mark.parametrize("way", WAYS)
def test_keeping_all_channels_is_the_float_model(way, tiny_bench, options, calibrated):
    rows = kept_rows(tiny_bench, options(), calibrated, shares=(1.0,))
    full = select(rows, kept="all")[0]
    row = select(rows, kept=way)[0]
    # The same weights; as parts of one product sums of n <= 256 numbers may round otherwise, by n 2**-24 each.
    assert row["perplexity"] == pytest.approx(full["perplexity"], rel=256 * 2.0**-24)
    assert row["kl"] == pytest.approx(0.0, abs=2 * 256 * 2.0**-24)


def test_only_what_is_random_is_repeated():
    assert list(variants(2, [0.5])) == [
        (0.5, "activation", 0),
        (0.5, "weight norm", 0),
        (0.5, "random", 0),
        (0.5, "random", 1),
    ]
