"""Laws that hold for every family: what the plan scales, the block does not notice."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_close, frozen
from helpers.folds import Folded, folded, random_scales
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import make_decoder, random_tensors, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from awq_ref.model import (
    FAMILIES,
    Block,
    block_forward,
    block_linear_shapes,
    block_router_shapes,
    make_context,
    stored_place,
)
from awq_ref.pipeline.block_search import NORM_STORAGE
from awq_ref.pipeline.plans import layer_plan
from awq_ref.search import LinearFold, fold_into_norm, plan_for, round_to
from awq_ref.search.unfolding import norm_scales

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
# Of the largest output. A fold rounds every folded weight and norm once, relative 2**-24 each, 2**-22 for all of a
# site; norms, softmax and the products carry that on, amplified by less than 64 for these sizes.
TOLERANCE = 64 * 2.0**-22


def a_block(family, rng):
    config = tiny_config(**(FAMILY_CHANGES[family] | {"num_hidden_layers": 1}))
    return config, make_decoder(config, random_tensors(config, rng, gain=0.7)).blocks[0]


def outputs(block, config, x):
    return block_forward(x, block, config, make_context(config, x.shape[1]))


@EVERY_FAMILY
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_folding_leaves_the_block_unchanged(family, dtype, seed):
    """P-FOLD, for every family and every dtype in which its norms may be stored."""
    rng = np.random.default_rng(seed)
    config, block = a_block(family, rng)
    storage = NORM_STORAGE[dtype, config.family.norm_offset]
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    scaled = folded(block, config, layer_plan(config, 0), random_scales(rng), storage)
    expected = outputs(block, config, x)
    assert_close(outputs(scaled, config, x), expected, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize(("family", "wrong"), [("olmo2", "llama"), ("gemma2", "llama"), ("olmo2", "gemma2")])
def test_a_wrong_plan_would_be_noticed(rng, family, wrong):
    """The law has teeth: the plans that others apply to these families change the block, or do not fit it."""
    config, block = a_block(family, rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    expected = outputs(block, config, x)
    try:
        scaled = folded(block, config, plan_for(wrong), random_scales(rng), "float32")
    except KeyError as missing:
        assert "layernorm" in str(missing)  # the norm that should take the scales is not there
        return
    assert np.abs(outputs(scaled, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("left_out", ["self_attn.v_proj", "mlp.gate_proj"])
def test_a_reader_of_a_shared_norm_that_is_forgotten_would_be_noticed(rng, left_out):
    """Command R: the norm before the attention is the MLP's too."""
    config, block = a_block("cohere", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    plan = plan_for("cohere")
    fewer = tuple(name for name in plan[0].consumers if name != left_out)
    scaled = folded(block, config, (replace(plan[0], consumers=fewer),), random_scales(rng), "float32")
    expected = outputs(block, config, x)
    assert np.abs(outputs(scaled, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


def test_a_bias_of_a_norm_that_is_not_divided_would_be_noticed(rng):
    config, block = a_block("stablelm", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    scaled = folded(block, config, plan_for("stablelm"), random_scales(rng), "float32")
    scaled.norms["input_layernorm.bias"] = block.norms["input_layernorm.bias"]
    expected = outputs(block, config, x)
    assert np.abs(outputs(scaled, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


def test_scales_behind_an_activation_would_be_noticed(rng):
    """StarCoder2 with up -> down, as if there were a gate."""
    config, block = a_block("starcoder2", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    through = replace(plan_for("starcoder2")[3], producer="mlp.c_fc", producer_kind="linear")
    scaled = folded(block, config, (through,), random_scales(rng), "float32")
    expected = outputs(block, config, x)
    assert np.abs(outputs(scaled, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


def test_a_norm_of_distances_divided_as_if_it_were_plain_would_be_noticed(rng):
    """What others do to a (1 + w) norm whose class they do not know: w / s instead of (1 + w) / s - 1."""
    config, block = a_block("gemma", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    scales = np.exp(rng.uniform(-2, 2, 8)).astype(np.float32)
    norms = dict(block.norms)
    norms["input_layernorm"] = 1 + (norms["input_layernorm"] - 1) / scales
    readers = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    folds = {n: LinearFold(columns=scales if n in readers else None) for n in block.linears}
    wrong = Block(norms, {name: Folded(linear, folds[name]) for name, linear in block.linears.items()})
    expected = outputs(block, config, x)
    assert np.abs(outputs(wrong, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


def test_the_last_rows_of_a_fused_qkv_are_not_v_under_grouped_queries(rng):
    """What others do to Phi-3's qkv_proj: the last len(s) rows are divided, of which there are more than v has."""
    config, block = a_block("phi3", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    scales = np.exp(rng.uniform(-2, 2, 16)).astype(np.float32)  # one per channel of o_proj; v has 8 rows, k 8
    rows = {"self_attn.k_proj": scales[:8], "self_attn.v_proj": scales[8:]}
    columns = {"self_attn.o_proj": scales}
    wrong = {
        name: Folded(linear, LinearFold(columns=columns.get(name), rows=rows.get(name)))
        for name, linear in block.linears.items()
    }
    expected = outputs(block, config, x)
    changed = outputs(Block(block.norms, wrong), config, x) - expected
    assert np.abs(changed).max() > 1000 * TOLERANCE * np.abs(expected).max()


def fold_v(config, tensors, rows, scales):
    """The tensors of one BLOOM layer with some rows of its qkv divided, the columns of its o multiplied."""
    at = "transformer.h.0.self_attention."
    changed = {name: array.copy() for name, array in tensors.items()}
    changed[f"{at}query_key_value.weight"][rows] /= scales[:, None]
    changed[f"{at}query_key_value.bias"][rows] /= scales
    changed[f"{at}dense.weight"] *= scales
    return make_decoder(config, changed).blocks[0]


def test_the_last_third_of_a_qkv_that_goes_by_head_is_not_v(rng):
    """What others do to BLOOM's and Falcon's query_key_value: they divide its last rows, some of q and k too."""
    config = tiny_config(**FAMILY_CHANGES["bloom"], n_layer=1)
    tensors = random_tensors(config, rng, gain=0.7)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    scales = np.exp(rng.uniform(-2, 2, 8)).astype(np.float32)
    expected = outputs(make_decoder(config, tensors).blocks[0], config, x)
    _, rows = stored_place(config, "transformer.h.0.self_attn.v_proj")
    bound = TOLERANCE * np.abs(expected).max()
    assert_close(outputs(fold_v(config, tensors, rows, scales), config, x), expected, atol=bound)
    wrong = outputs(fold_v(config, tensors, np.arange(16, 24), scales), config, x)
    assert np.abs(wrong - expected).max() > 1000 * bound


def test_scales_pass_a_relu_but_no_gelu(rng):
    config, block = a_block("opt", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    through = (plan_for("opt")[3],)
    assert through[0].producer == "mlp.up_proj"
    scaled = folded(block, config, through, random_scales(rng), "float32")
    for activation, differs in (("relu", False), ("gelu", True)):
        changed = replace(config, hidden_act=activation)
        expected = outputs(block, changed, x)
        error, bound = (
            np.abs(outputs(scaled, changed, x) - expected).max(),
            TOLERANCE * np.abs(expected).max(),
        )
        assert (error > 1000 * bound) if differs else (error <= bound)


def test_scales_behind_a_clip_would_be_noticed(rng):
    """MPT StoryWriter with the plan of the other MPTs: v -> o passes the clip of v."""
    config, block = a_block("mpt_clipped", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    scaled = folded(block, config, (plan_for("mpt")[1],), random_scales(rng), "float32")
    expected = outputs(block, config, x)
    assert np.abs(outputs(scaled, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


def test_scales_for_a_norm_of_the_stream_would_be_noticed(rng):
    """OPT 350m with the plan of the others: what the norm makes is also what the modules are added to."""
    config, block = a_block("opt_post_norm", rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    scaled = folded(block, config, (plan_for("opt")[2],), random_scales(rng), "float32")
    expected = outputs(block, config, x)
    assert np.abs(outputs(scaled, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


@EVERY_FAMILY
def test_every_linear_reads_one_site_and_every_producer_is_there(family):
    config = tiny_config(**FAMILY_CHANGES[family])
    for layer in range(config.num_hidden_layers):
        plan, linears = layer_plan(config, layer), block_linear_shapes(config, layer)
        assert sorted(name for group in plan for name in group.consumers) == sorted(linears)
        followers = [name for group in plan for name in group.followers]
        assert followers == list(block_router_shapes(config, layer))
        for group in plan:
            where = {"norm": config.family.norms, "linear": linears, "none": {"": None}}
            assert group.producer in where[group.producer_kind]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_router_that_is_forgotten_would_be_noticed(rng, family):
    """What others do to a mixture of experts: the norm is divided by s, the router is not multiplied by it."""
    config, block = a_block(family, rng)
    x = frozen(rng.normal(0, 1, (2, 6, 8)).astype(np.float32))
    plan = tuple(replace(group, followers=()) for group in layer_plan(config, 0))
    scaled = folded(block, config, plan, random_scales(rng), "float32")
    expected = outputs(block, config, x)
    assert np.abs(outputs(scaled, config, x) - expected).max() > 1000 * TOLERANCE * np.abs(expected).max()


@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_norm_of_distances_keeps_its_product(dtype, seed):
    """P-FOLD: for any weight, also -1 and near it, the stored norm and the scales make the old norm."""
    rng = np.random.default_rng(seed)
    norm = rng.choice(np.float32([0.0, 1e-3, -1e-3, 0.5, 1.0, -2.0, 40.0]), 16) * np.float32(
        rng.uniform(0.5, 2)
    )
    scales = np.exp(rng.uniform(-5.5, 5.5, 16)).astype(np.float32)
    stored, effective = fold_into_norm(norm, scales, storage_dtype=f"1+{dtype}")
    distance = stored - np.float32(1.0)
    assert np.array_equal(
        round_to(distance, dtype) + np.float32(1.0), stored
    )  # what the file holds gives it back
    assert (effective > 0).all()
    assert_close(stored.astype(np.float64) * effective, norm, rtol=2.0**-24 * 1.001)
    assert_close(norm_scales(norm, stored), effective, rtol=0.0)
