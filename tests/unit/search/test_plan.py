import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.errors import RangeError, UnsupportedError
from awq_ref.model import FAMILIES
from awq_ref.search import EXPERT_PLANS, plan_for, query_head_tie, routed_sites, site_inputs


def test_every_linear_of_a_llama_block_reads_one_site():
    consumers = [name for group in plan_for("llama") for name in group.consumers]
    assert consumers == [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ]


def test_what_absorbs_the_scales():
    rows = {group.site: (group.producer, group.producer_kind, group.tied) for group in plan_for("llama")}
    assert rows == {
        "self_attn.qkv": ("input_layernorm", "norm", False),
        "self_attn.o": ("self_attn.v_proj", "linear", True),
        "mlp.gate_up": ("post_attention_layernorm", "norm", False),
        "mlp.down": ("mlp.up_proj", "linear", False),
    }


def test_site_inputs_names_one_layer_per_site():
    assert site_inputs(plan_for("llama")) == {
        "self_attn.qkv": "self_attn.q_proj",
        "self_attn.o": "self_attn.o_proj",
        "mlp.gate_up": "mlp.gate_proj",
        "mlp.down": "mlp.down_proj",
    }


def test_where_norms_stand_after_the_modules_nothing_can_be_scaled():
    rows = {group.site: group for group in plan_for("olmo2")}
    assert [site for site, group in rows.items() if group.fixed] == ["self_attn.qkv", "mlp.gate_up"]
    assert all(group.judged_itself for group in rows.values())
    assert rows["self_attn.o"].producer == "self_attn.v_proj"


def test_gemma2_scales_the_norm_before_its_mlp():
    rows = {group.site: group.producer for group in plan_for("gemma2")}
    assert rows["mlp.gate_up"] == "pre_feedforward_layernorm"
    assert rows["self_attn.qkv"] == "input_layernorm"


def test_experts_and_router_share_a_site_and_each_down_projection_has_its_own():
    plan = plan_for("mixtral", 2)
    assert [group.site for group in plan] == [
        "self_attn.qkv",
        "self_attn.o",
        "mlp.gate_up",
        "mlp.0.down",
        "mlp.1.down",
    ]
    experts = "block_sparse_moe.experts"
    assert plan[2].consumers == tuple(f"{experts}.{name}" for name in ("0.w1", "0.w3", "1.w1", "1.w3"))
    assert plan[2].followers == ("block_sparse_moe.gate",)
    assert plan[2].readers == (*plan[2].consumers, "block_sparse_moe.gate")
    assert (plan[4].producer, plan[4].consumers, plan[4].judged) == (
        f"{experts}.1.w3",
        (f"{experts}.1.w2",),
        f"{experts}.1.w2",
    )
    assert routed_sites(plan) == {"mlp.0.down", "mlp.1.down"}


def test_all_tokens_of_a_shared_site_are_seen_at_the_router():
    inputs = site_inputs(plan_for("qwen3_moe", 3))
    assert inputs["mlp.gate_up"] == "mlp.gate"
    assert inputs["mlp.2.down"] == "mlp.experts.2.down_proj"


def test_every_family_with_experts_has_a_plan_with_and_without():
    assert set(EXPERT_PLANS) == {name for name, family in FAMILIES.items() if family.experts}
    assert plan_for("qwen3_moe") == plan_for("llama")
    assert routed_sites(plan_for("qwen3_moe")) == frozenset()


def test_an_unknown_family():
    with pytest.raises(UnsupportedError, match="got 'mamba'. Known: llama"):
        plan_for("mamba")
    with pytest.raises(UnsupportedError, match="got 'llama' with 4 experts. Known: mixtral, qwen3_moe"):
        plan_for("llama", 4)


def test_query_heads_share_the_rows_of_their_kv_head():
    tie = query_head_tie(n_heads=6, n_kv_heads=2, head_dim=2)
    assert_same_bits(tie, [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3], dtype=np.int64)


def test_without_grouped_queries_every_channel_has_its_row():
    assert_same_bits(query_head_tie(n_heads=3, n_kv_heads=3, head_dim=2), [0, 1, 2, 3, 4, 5], dtype=np.int64)


def test_heads_that_do_not_divide():
    with pytest.raises(RangeError, match="n_kv_heads must divide n_heads; got n_heads=6, n_kv_heads=4"):
        query_head_tie(n_heads=6, n_kv_heads=4, head_dim=2)
    with pytest.raises(RangeError, match="head_dim must lie in"):
        query_head_tie(n_heads=6, n_kv_heads=2, head_dim=0)
