"""The recipe llm-awq against a transcription of the published searches (helpers/llm_awq_oracle.py).

Both judge the same candidates; sums are taken in other orders (Gram matrix against tokens, float32 against
float64), so where the oracle itself puts two choices within 1e-4 of each other either is right.
"""

import numpy as np
import pytest
from helpers.assertions import assert_close
from helpers.llm_awq_oracle import auto_clip, auto_scale, quantize_dequantize
from helpers.toy_block import attention, block_sites, make_block, mlp

from awq_ref.calibration import SiteStatistics, clip_token_stride
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import plan_for, recipe_named, search_block
from awq_ref.spec import QuantSpec

BITS, GROUP = 3, 16
TIE = 1e-4


@pytest.fixture(scope="module")
def block():
    return make_block(11, n_kv_heads=4, hidden=32, inner=48, windows=11, seq=100)


@pytest.fixture(scope="module")
def sites(block):
    return block_sites(block)


@pytest.fixture(scope="module")
def runs(block, sites):
    first, second = (sites[site].reshape(block.x.shape) for site in ("self_attn.qkv", "mlp.gate_up"))

    def run_attention(replaced):
        return [attention(first, {**block.weights, **replaced}, block.n_heads, block.n_kv_heads)]

    def run_mlp(replaced):
        return [mlp(second, {**block.weights, **replaced})]

    return {"self_attn": run_attention, "mlp": run_mlp}


@pytest.fixture(scope="module")
def result(block, sites, runs):
    return search_block(
        block.weights,
        block.norms,
        {site: SiteStatistics.from_inputs(x) for site, x in sites.items()},
        plan=plan_for("llama"),
        recipe=recipe_named("llm-awq"),
        spec=QuantSpec(bits=BITS, group_size=GROUP),
        pseudo_quantize=pseudo_quantize,
        norm_dtype="float32",
        modules=runs,
        clip_tokens={site: x[:: clip_token_stride(len(x))] for site, x in sites.items()},
    )


def test_the_quantizer_of_the_oracle_by_hand():
    weight = np.array([[-1.0, -0.5, 0.25, 0.875]], dtype=np.float32)
    assert quantize_dequantize(weight, 4, 4).tolist() == weight.tolist()
    one_sided = np.array([[1.0, 1.25, 1.5, 2.0]], dtype=np.float32)  # the published formula saturates it
    assert quantize_dequantize(one_sided, 4, 4)[0].tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("place", range(4))
def test_alphas_losses_and_scales_agree(block, sites, runs, result, place):
    group, report = plan_for("llama")[place], result.reports[place]
    x = sites[group.site]

    def forward(weights):
        if group.judged in runs:
            return runs[group.judged](weights)[0]
        return x @ weights[group.consumers[0]].T

    weights = {name: block.weights[name] for name in group.consumers}
    scales, alpha, losses = auto_scale(weights, x, forward, BITS, GROUP)
    assert report.alphas == tuple(i / 20 for i in range(20))
    assert_close(np.array(report.losses), np.array(losses), rtol=TIE)
    assert report.alpha == alpha
    # power, root, product and quotient: a few float32 roundings apart
    assert_close(report.channel_scales, scales, rtol=8 * 2.0**-24)


@pytest.mark.parametrize(
    "name", ["self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
)
def test_clips_agree(block, sites, result, name):
    fold = result.folds[name]
    site = next(group.site for group in plan_for("llama") if name in group.consumers)
    clip, errors = auto_clip(fold.scale(block.weights[name]), sites[site] / fold.columns, BITS, GROUP)
    assert fold.clip.shape == clip.shape
    agree = np.isclose(fold.clip, clip, rtol=1e-6, atol=0.0)
    best_two = np.sort(errors, axis=2)[:, :, :2]
    tie = best_two[:, :, 1] <= best_two[:, :, 0] * (1 + TIE)
    assert (agree | tie).all()
    assert agree.mean() > 0.99


def test_queries_and_keys_are_not_clipped(result):
    assert result.folds["self_attn.q_proj"].clip is None
    assert result.folds["self_attn.k_proj"].clip is None


def test_the_norm_is_divided_by_the_scales_themselves(block, result):
    for place, norm in ((0, "input_layernorm"), (2, "post_attention_layernorm")):
        expected = block.norms[norm].astype(np.float64) / result.reports[place].channel_scales
        assert_close(result.norms[norm], expected, rtol=2.0**-24)
