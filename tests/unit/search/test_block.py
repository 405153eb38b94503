from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits
from helpers.toy_block import attention, block_output, block_sites, make_block, mlp

from awq_ref.calibration import SiteStatistics
from awq_ref.errors import RangeError, ShapeError
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import (
    LinearFold,
    candidate,
    plan_for,
    query_head_tie,
    recipe_named,
    round_to,
    search_block,
)
from awq_ref.search import block as search_module
from awq_ref.search.candidates import CANDIDATES
from awq_ref.spec import QuantSpec

SPEC = QuantSpec(bits=3, group_size=16)
PLAN = plan_for("llama")


def run_search(block, recipe="awq", *, spec=SPEC, **changes):
    sites = block_sites(block)
    first, second = (sites[site].reshape(block.x.shape) for site in ("self_attn.qkv", "mlp.gate_up"))

    def run_attention(replaced):
        for x in first:
            yield attention(x[None], {**block.weights, **replaced}, block.n_heads, block.n_kv_heads)

    def run_mlp(replaced):
        for x in second:
            yield mlp(x[None], {**block.weights, **replaced})

    arguments = {
        "plan": PLAN,
        "recipe": recipe_named(recipe) if isinstance(recipe, str) else recipe,
        "spec": spec,
        "pseudo_quantize": pseudo_quantize,
        "ties": {
            "self_attn.o": query_head_tie(
                n_heads=block.n_heads, n_kv_heads=block.n_kv_heads, head_dim=block.head_dim
            )
        },
        "modules": {"self_attn": run_attention, "mlp": run_mlp},
        "clip_tokens": sites,
        "statistics": {site: SiteStatistics.from_inputs(x) for site, x in sites.items()},
    } | changes
    return search_block(block.weights, block.norms, arguments.pop("statistics"), **arguments)


def parts(fold):
    """The arrays of a fold: columns, rows, clip; those that it has."""
    return [array for array in (fold.columns, fold.rows, fold.clip) if array is not None]


def folded(block, result):
    """The block's float64 weights and norms after the channel scales, without clips."""
    weights = {
        name: replace(result.folds[name], clip=None).apply(weight).astype(np.float64)
        for name, weight in block.weights.items()
    }
    return weights, {name: norm.astype(np.float64) for name, norm in result.norms.items()}


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_the_scaled_block_computes_the_same(monkeypatch, n_kv_heads):
    """P-FOLD for a whole block: with powers of two as scales no fold rounds, so every bit of the output agrees."""

    def power_of_two(act_mean_abs, alpha):
        return np.exp2(np.rint(np.log2(candidate(act_mean_abs, alpha))))

    monkeypatch.setitem(CANDIDATES, "awq", power_of_two)
    block = make_block(1, n_kv_heads=n_kv_heads)
    result = run_search(block, recipe=replace(recipe_named("awq"), alphas=(0.5,), refine=0.0))
    exact = {name: weight.astype(np.float64) for name, weight in block.weights.items()}
    norms = {name: norm.astype(np.float64) for name, norm in block.norms.items()}
    x = block.x.astype(np.float64)
    assert_same_bits(
        block_output(block, *folded(block, result), x), block_output(block, exact, norms, x), dtype=np.float64
    )


@pytest.mark.parametrize("recipe", ["awq", "llm-awq"])
def test_the_number_of_threads_does_not_change_what_is_found(monkeypatch, recipe):
    block = make_block(3)
    found = []
    for n_threads in (1, 2, 3):
        monkeypatch.setattr(search_module, "default_threads", lambda n=n_threads: n)
        found.append(run_search(block, recipe))
    one, *others = found
    for other in others:
        for name, norm in one.norms.items():
            assert_same_bits(other.norms[name], norm)
        for name in block.weights:
            for of_other, of_one in zip(parts(other.folds[name]), parts(one.folds[name]), strict=True):
                assert_same_bits(of_other, of_one)
        for of_other, of_one in zip(other.reports, one.reports, strict=True):
            assert (of_other.alphas, of_other.losses) == (of_one.alphas, of_one.losses)
            assert of_other.loss_rtn == of_one.loss_rtn
            assert of_other.loss_clipped == of_one.loss_clipped


@pytest.mark.parametrize("recipe", ["awq", "llm-awq"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_reports_are_in_order_and_gain(recipe, bits):
    block = make_block(2)
    result = run_search(block, recipe, spec=replace(SPEC, bits=bits))
    assert [report.site for report in result.reports] == [group.site for group in PLAN]
    for group, report in zip(PLAN, result.reports, strict=True):
        assert report.linears == group.consumers
        assert report.losses[report.alphas.index(report.alpha)] == min(report.losses)
        assert report.alphas == tuple(sorted(report.alphas))
        assert report.clips
        if recipe == "awq":
            assert report.loss_rtn == report.losses[0]
            assert report.loss_scaled == min(report.losses) <= report.loss_rtn
            assert report.loss_clipped <= report.loss_scaled


def test_outlier_channels_are_what_scales_are_for():
    report = run_search(make_block(3), spec=replace(SPEC, bits=4)).reports[0]
    assert report.alpha > 0
    assert report.loss_scaled < 0.5 * report.loss_rtn


@pytest.mark.parametrize("norm_dtype", ["float16", "bfloat16"])
def test_norms_come_back_as_they_are_stored(norm_dtype):
    result = run_search(make_block(4), norm_dtype=norm_dtype)
    for norm in result.norms.values():
        assert_same_bits(round_to(norm, norm_dtype), norm)


@pytest.mark.parametrize("recipe", ["awq", "llm-awq"])
def test_a_norms_bias_is_divided_by_what_its_readers_are_multiplied_by(recipe):
    block = make_block()
    bias = np.linspace(-1, 1, 32, dtype=np.float32)
    block.norms["input_layernorm.bias"] = bias
    result = run_search(block, recipe, norm_dtype="float32")
    columns = result.folds["self_attn.q_proj"].columns
    assert columns is not None
    assert_close(result.norms["input_layernorm.bias"] * columns, bias, rtol=2.0**-23)


def test_clips_have_one_limit_per_row_and_group():
    block = make_block(5)
    result = run_search(block)
    shapes = {name: clip.shape for report in result.reports for name, clip in report.clips.items()}
    assert shapes == {name: (len(weight), weight.shape[1] // 16) for name, weight in block.weights.items()}
    for report in result.reports:
        for name, clip in report.clips.items():
            groups = np.abs(result.folds[name].apply(block.weights[name])).reshape(*clip.shape, -1)
            assert (groups.max(axis=2) <= clip).all()


def test_the_reported_loss_is_that_of_the_stored_weights():
    block = make_block(6, n_kv_heads=4)
    result = run_search(block)
    report = result.reports[3]
    fold, weight = result.folds["mlp.down_proj"], block.weights["mlp.down_proj"]
    stored = pseudo_quantize(fold.apply(weight), spec=SPEC).astype(np.float64) / fold.columns
    outputs = block_sites(block)["mlp.down"].astype(np.float64) @ (stored - weight).T
    # 96 tokens, 48 channels: P-GRAM's bound on cancelling terms, measured against the loss
    assert report.loss_clipped == pytest.approx((outputs**2).mean(), rel=200 * 2.0**-24 * 50)


def test_llm_awq_does_not_scale_v_to_o_under_grouped_queries():
    grouped = run_search(make_block(7, n_kv_heads=2), "llm-awq", ties={})
    assert grouped.reports[1].alphas == (0.0,)
    assert grouped.folds["self_attn.v_proj"].rows is None
    equal = run_search(make_block(7, n_kv_heads=4), "llm-awq", ties={})
    assert len(equal.reports[1].alphas) == 20


def test_rtn_needs_no_statistics():
    block = make_block(8)
    result = run_search(block, "rtn", statistics={})
    assert result.reports == ()
    assert result.folds == dict.fromkeys(block.weights, LinearFold())
    for name, norm in block.norms.items():
        assert_same_bits(result.norms[name], norm)


def test_rtn_reports_its_loss_when_there_are_statistics():
    report = run_search(make_block(8), "rtn").reports[0]
    assert (report.alphas, report.alpha, report.clips) == ((0.0,), 0.0, {})
    assert report.losses == (report.loss_rtn,)
    assert report.loss_rtn == report.loss_scaled == report.loss_clipped > 0


def test_scales_can_be_judged_by_feedback():
    """With importances that are 1 everywhere the objective is the mean squared error of the weights, in their terms."""
    block = make_block(6, n_kv_heads=4)
    importance = {site: np.ones(x.shape[1], dtype=np.float32) for site, x in block_sites(block).items()}
    importance["mlp.down"][:4] = 1e4  # a few channels that must not be wrong
    recipe = replace(recipe_named("best"), alphas=(0.0, 0.5))
    reports = run_search(block, recipe, importance=importance).reports
    for report in reports[:3]:  # all candidates are 1: nothing to choose
        assert (report.channel_scales == 1.0).all()
        error = np.concatenate(
            [pseudo_quantize(block.weights[n], spec=SPEC) - block.weights[n] for n in report.linears]
        )
        # float32 sums of at most 96 squares: gamma_96
        assert report.losses[0] == pytest.approx((error**2).sum() / len(error), rel=100 * 2.0**-24)
    down = reports[3]
    assert down.alpha == 0.5 and down.losses[1] < down.losses[0]
    # sqrt(1e4) ** 0.5 / sqrt(sqrt(1e4) ** 0.5 * 1)
    assert down.channel_scales[:5] == pytest.approx([10**0.5] * 4 + [10**-0.5], rel=1e-6)
    assert down.loss_rtn > 0 and down.loss_scaled > 0  # on the tokens, as every recipe reports


def test_what_is_missing_is_named():
    block = make_block(9)
    with pytest.raises(RangeError, match=r"search_block: importance must hold .*; missing: "):
        run_search(block, "best")
    for what in ("statistics", "modules", "clip_tokens"):
        with pytest.raises(RangeError, match=rf"search_block: {what} must hold .*; missing: "):
            run_search(block, "llm-awq", **{what: {"mlp.elsewhere": None}})
    with pytest.raises(ShapeError, match=r"self_attn.v_proj must have as many .*ties\['self_attn.o'\]"):
        run_search(block, ties={})
    del block.norms["input_layernorm"]
    with pytest.raises(RangeError, match="norms must hold .*; missing: input_layernorm"):
        search_block(
            block.weights,
            block.norms,
            {"a": None},
            plan=PLAN,
            recipe=recipe_named("awq"),
            spec=SPEC,
            pseudo_quantize=pseudo_quantize,
        )


def test_layers_that_the_recipe_skips_are_not_clipped():
    result = run_search(make_block(5), recipe=replace(recipe_named("awq"), clip_skips=("q_proj", "mlp")))
    clipped = [name for name, fold in result.folds.items() if fold.clip is not None]
    assert clipped == ["self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    assert result.reports[2].loss_clipped == result.reports[2].loss_scaled


def test_a_site_that_nothing_can_scale_is_clipped_beside_the_others():
    """Its layers may produce another site: v is divided by what o has chosen, before its clips are searched."""
    block = make_block()
    alone = replace(PLAN[0], producer="", producer_kind="none", judged="self_attn.q_proj")
    result = run_search(block, plan=(alone, *PLAN[1:]))
    report = result.reports[0]
    assert (report.alphas, report.alpha) == ((0.0,), 0.0)
    assert (report.channel_scales == 1.0).all()
    assert report.loss_clipped < report.loss_scaled == report.loss_rtn
    assert result.norms["input_layernorm"] is block.norms["input_layernorm"]
    fold = result.folds["self_attn.v_proj"]
    assert fold.columns is None
    assert (fold.rows != 1.0).any()
    divided = np.abs(block.weights["self_attn.v_proj"] / fold.rows[:, None])
    largest = divided.reshape(*fold.clip.shape, -1).max(axis=2)  # (rows, groups)
    ratios = fold.clip / largest
    # The ten ratios of the recipe, of the divided weights; two roundings of float32.
    tenths = 1.0 - np.arange(10) / 20
    assert (np.abs(ratios[..., None] - tenths).min(axis=-1) < 1e-6).all()
    assert (ratios < 0.99).any()
