"""Laws of the search: docs/equations.md, P-SCALE, P-FOLD, P-GRAM, P-CHOICE and P-INPUT."""

from functools import partial

import numpy as np
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.strategies import activations, specs, weights
from helpers.toy_block import block_sites, make_block
from hypothesis import given, settings
from hypothesis import strategies as st

from awq_ref.calibration import SiteStatistics
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import (
    GramObjective,
    LinearFold,
    candidate,
    diagonal_blocks,
    direct_loss,
    fold_into_linear,
    fold_into_norm,
    gram_loss,
    gram_row_losses,
    keep_better_rows,
    plan_for,
    query_head_tie,
    recipe_named,
    row_losses,
    scale_consumer,
    scaled_gram,
    search_block,
    search_channel_scales,
    search_clip,
)
from awq_ref.spec import QuantSpec

U = 2.0**-24
RECIPE = recipe_named("awq")
seeds = st.integers(0, 2**32 - 1)


def draw_scales(rng, n):
    return (2.0 ** rng.uniform(-8, 8, n)).astype(np.float32)


@given(seed=seeds, n=st.integers(1, 40))
def test_scales_cancel(seed, n):
    """P-SCALE: (W s)(x / s) = W x; bit for bit when s is a power of two."""
    rng = np.random.default_rng(seed)
    weight, x = rng.normal(0, 1, (3, n)).astype(np.float32), rng.normal(0, 1, n).astype(np.float32)
    powers = (2.0 ** rng.integers(-8, 9, n)).astype(np.float32)
    assert_same_bits(scale_consumer(weight, powers) * (x / powers), weight * x)
    scales = draw_scales(rng, n)
    found = (scale_consumer(weight, scales) * (x / scales)).sum(axis=1)
    # w s, x / s and their product are rounded: 3; the sum adds at most n: gamma_(n+3) sum |w x|.
    wide = weight.astype(np.float64) * x
    assert_close(found, wide.sum(axis=1), atol=1.01 * (n + 3) * U * np.abs(wide).sum(axis=1))


@given(seed=seeds, storage=st.sampled_from(["float32", "float16", "bfloat16"]))
def test_folds_cancel(seed, storage):
    """P-FOLD, per site, in float64: norm -> linear, linear -> linear, values -> output under grouped queries."""
    rng = np.random.default_rng(seed)
    n = 8
    normed = rng.normal(0, 1, (5, n))
    norm, scales = rng.uniform(-2, 2, n).astype(np.float32), draw_scales(rng, n)
    norm[rng.integers(n)] = 0.0
    consumer = rng.normal(0, 1, (3, n)).astype(np.float32)
    stored, effective = fold_into_norm(norm, scales, storage_dtype=storage)
    before = (normed * norm) @ consumer.T.astype(np.float64)
    after = (normed * stored) @ scale_consumer(consumer, effective).T.astype(np.float64)
    # gamma / gamma' and w s' are rounded to float32: a term changes by at most 2.01 u of itself.
    assert_close(after, before, atol=2.01 * U * (np.abs(normed * norm) @ np.abs(consumer.T)) + 1e-15)

    tie = query_head_tie(n_heads=4, n_kv_heads=2, head_dim=2)
    producer, bias = rng.normal(0, 1, (4, 6)).astype(np.float32), rng.normal(0, 1, 4).astype(np.float32)
    x, factor = (
        rng.normal(0, 1, (5, 6)),
        rng.normal(0, 1, (5, n)),
    )  # a gate or what attention makes of a channel
    rows = draw_scales(rng, 4)
    folded, folded_bias = fold_into_linear(producer, bias, rows)
    before = ((x @ producer.T + bias)[:, tie] * factor) @ consumer.T.astype(np.float64)
    after = ((x @ folded.T + folded_bias)[:, tie] * factor) @ scale_consumer(consumer, rows[tie]).T.astype(
        float
    )
    # u_i / s and w s are rounded: 2.01 u of every term again.
    sizes = ((np.abs(x) @ np.abs(producer.T) + np.abs(bias))[:, tie] * np.abs(factor)) @ np.abs(consumer.T)
    assert_close(after, before, atol=2.01 * U * sizes + 1e-15)


@given(x=activations(in_features=24), seed=seeds)
def test_gram_loss_is_direct_loss(x, seed):
    """P-GRAM: e C e^T = |X e|^2 / n, and the same under channel scales."""
    rng = np.random.default_rng(seed)
    error = rng.normal(0, 1, (3, 24)).astype(np.float32)
    scales = draw_scales(rng, 24)
    gram = SiteStatistics.from_inputs(x).gram
    # A term e_i x_ti x_tj e_j is rounded at most once per token and once for the mean in C (n + 2), three times in
    # C / (s_i s_j), 24 + 1 times in each of the two products with e: gamma_(n+56) of the sum of absolute values.
    wide, sizes = np.abs(x.astype(np.float64)), np.abs(error.astype(np.float64))
    bound = 1.01 * (len(x) + 56) * U * ((sizes @ wide.T) ** 2).sum(axis=1) / len(x)
    expected = np.array([direct_loss(row[None], x) for row in error])
    assert_close(gram_row_losses(error, gram), expected, atol=bound)
    # tr(E^T E C): 3 + 1 times in E^T E and its product with C, 24 times where a row of them is added up: fewer.
    assert abs(gram_loss(error, gram) - expected.sum()) <= bound.sum()
    powers = (2.0 ** rng.integers(-8, 9, 24)).astype(np.float32)
    assert_close(gram_row_losses(error * powers, scaled_gram(gram, powers)), expected, atol=bound)
    # with any scales: two more roundings, of e s
    bound *= (len(x) + 58) / (len(x) + 56)
    assert_close(gram_row_losses(error * scales, scaled_gram(gram, scales)), expected, atol=bound)


KINDS = ("normal", "zeros", "constant", "outlier", "tie", "one_sided_negative")


@given(drawn=weights(kinds=KINDS), data=st.data())
def test_the_chosen_scales_never_lose_to_rounding(drawn, data):
    """P-CHOICE: for scales and for clips, on any weight, activation and grid."""
    weight, spec = drawn
    x = data.draw(activations(in_features=weight.shape[1]))
    statistics = SiteStatistics.from_inputs(x)

    quantizer = partial(pseudo_quantize, spec=spec)
    objective = GramObjective([weight], statistics, quantizer)
    found = search_channel_scales(
        objective, statistics.act_mean_abs, alphas=RECIPE.alphas, refine=RECIPE.refine
    )
    assert found.loss <= found.loss_rtn == objective(np.ones_like(found.channel_scales))
    fold = LinearFold(columns=found.channel_scales)
    scaled = fold.scale(weight)
    blocks = diagonal_blocks(scaled_gram(statistics.gram, found.channel_scales), spec.group_size)
    clips = search_clip(scaled, blocks, quantizer=quantizer, ratios=RECIPE.clip_ratios)
    assert (clips.loss_after <= clips.loss_before).all()
    before = row_losses(weight, fold, statistics, quantizer)
    after = row_losses(weight, LinearFold(found.channel_scales, None, clips.clip), statistics, quantizer)
    kept, losses = keep_better_rows(scaled, clips.clip, before, after)
    assert (losses <= before).all()
    again = row_losses(weight, LinearFold(found.channel_scales, None, kept), statistics, quantizer)
    assert_same_bits(again, losses)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), spec=specs(group_size=(8, 16, -1)))
def test_no_site_of_a_block_loses_to_rounding(seed, spec):
    """P-CHOICE, whole block; P-INPUT: every input is frozen."""
    block = make_block(seed, windows=1, seq=12)
    statistics = {}
    for site, x in block_sites(block).items():
        entry = SiteStatistics.from_inputs(x)
        statistics[site] = SiteStatistics(entry.count, frozen(entry.abs_sum), frozen(entry.gram_sum))
    result = search_block(
        {name: frozen(weight) for name, weight in block.weights.items()},
        {name: frozen(norm) for name, norm in block.norms.items()},
        statistics,
        plan=plan_for("llama"),
        recipe=RECIPE,
        spec=spec,
        pseudo_quantize=pseudo_quantize,
        ties={"self_attn.o": frozen(query_head_tie(n_heads=4, n_kv_heads=2, head_dim=8))},
    )
    for report in result.reports:
        assert report.loss_scaled <= report.loss_rtn


@given(x=activations(in_features=16), seed=seeds)
def test_inputs_are_not_written_to(x, seed):
    """P-INPUT, for the functions of the search."""
    rng = np.random.default_rng(seed)
    weight, scales = frozen(rng.normal(0, 1, (4, 16)).astype(np.float32)), frozen(draw_scales(rng, 16))
    rows, clip = frozen(draw_scales(rng, 4)), frozen(np.ones((4, 2), dtype=np.float32))
    entry = SiteStatistics.from_inputs(x)
    statistics = SiteStatistics(entry.count, frozen(entry.abs_sum), frozen(entry.gram_sum))
    spec = QuantSpec(bits=4, group_size=8)

    quantizer = partial(pseudo_quantize, spec=spec)
    candidate(frozen(statistics.act_mean_abs), 0.5)
    GramObjective([weight], statistics, quantizer)(scales)
    fold = LinearFold(scales, rows, clip)
    fold.apply(weight)
    fold.apply_bias(rows)
    losses = frozen(row_losses(weight, fold, statistics, quantizer))
    keep_better_rows(weight, clip, losses, losses)
    blocks = frozen(diagonal_blocks(statistics.gram_sum, 8))
    search_clip(weight, blocks, quantizer=quantizer, ratios=(1.0, 0.5))
    fold_into_norm(scales, scales, storage_dtype="bfloat16")
    fold_into_linear(weight, rows, rows)
