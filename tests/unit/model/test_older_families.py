"""What the rows of GPT-NeoX, Phi, OPT, GPT-2, Falcon, BLOOM and MPT say of a config.json, and of the tensors."""

import math

import numpy as np
import pytest
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import make_decoder, random_tensors, tiny_config

from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.model import (
    FAMILIES,
    ModelConfig,
    block_linear_shapes,
    block_stored_shapes,
    block_tensor_shapes,
    outer_tensor_shapes,
    stored_order,
    stored_place,
)
from awq_ref.model.alibi import Alibi

# As the files on the hub spell it, and as transformers 5 does: both say the same. Eight layers, six heads of 16.
SPELLINGS = {
    "gpt_neox": (
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "intermediate_size": 200,
         "max_position_embeddings": 512, "vocab_size": 50, "rotary_pct": 0.25, "rotary_emb_base": 5000,
         "layer_norm_eps": 1e-3, "hidden_act": "gelu", "torch_dtype": "float16"},
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "intermediate_size": 200,
         "max_position_embeddings": 512, "vocab_size": 50, "attention_bias": True, "layer_norm_eps": 1e-3,
         "rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 5000, "rope_type": "default"},
         "hidden_act": "gelu", "dtype": "float16"},
        {"num_key_value_heads": 6, "head_dim": 16, "intermediate_size": 200, "rms_norm_eps": 1e-3},
    ),
    "phi": (
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "intermediate_size": 200,
         "num_key_value_heads": None, "max_position_embeddings": 512, "vocab_size": 50, "qk_layernorm": False,
         "partial_rotary_factor": 0.5, "rope_theta": 1e4, "hidden_act": "gelu_new"},
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "intermediate_size": 200,
         "num_key_value_heads": 6, "max_position_embeddings": 512, "vocab_size": 50,
         "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 1e4, "rope_type": "default"}},
        {"num_key_value_heads": 6, "rms_norm_eps": 1e-5, "hidden_act": "gelu_new", "tie_word_embeddings": False},
    ),
    "opt": (
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "ffn_dim": 200, "init_std": 0.02,
         "max_position_embeddings": 512, "vocab_size": 50, "word_embed_proj_dim": 96,
         "activation_function": "relu", "do_layer_norm_before": True, "_remove_final_layer_norm": False},
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "ffn_dim": 200, "enable_bias": True,
         "max_position_embeddings": 512, "vocab_size": 50, "word_embed_proj_dim": 96,
         "layer_norm_elementwise_affine": True, "tie_word_embeddings": True},
        {"intermediate_size": 200, "attention_bias": True, "mlp_bias": True, "hidden_act": "relu",
         "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "rope_layers": (False,) * 8},
    ),
    "gpt2": (
        {"n_embd": 96, "n_layer": 8, "n_head": 6, "n_positions": 512, "n_ctx": 512, "vocab_size": 50,
         "activation_function": "gelu_new", "layer_norm_epsilon": 1e-3},
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "n_inner": 384, "vocab_size": 50,
         "max_position_embeddings": 512, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-3,
         "scale_attn_weights": True, "tie_word_embeddings": True},
        {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 6, "intermediate_size": 384,
         "max_position_embeddings": 512, "rms_norm_eps": 1e-3, "tie_word_embeddings": True},
    ),
    "falcon": (
        {"hidden_size": 96, "n_layer": 8, "n_head": 6, "vocab_size": 50, "multi_query": True,
         "parallel_attn": True, "alibi": False, "bias": False, "layer_norm_epsilon": 1e-5},
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "vocab_size": 50, "num_kv_heads": 6,
         "ffn_hidden_size": 384, "max_position_embeddings": 2048, "activation": "gelu", "rope_theta": 1e4},
        {"num_key_value_heads": 1, "intermediate_size": 384, "hidden_act": "gelu", "tie_word_embeddings": True,
         "attention_bias": False, "alibi": None, "rope_layers": ()},
    ),
    "bloom": (
        {"n_embed": 96, "n_layer": 8, "num_attention_heads": 6, "vocab_size": 50, "seq_length": 512,
         "layer_norm_epsilon": 1e-5, "attention_softmax_in_fp32": True, "skip_bias_add": True},
        {"hidden_size": 96, "num_hidden_layers": 8, "n_head": 6, "vocab_size": 50, "max_position_embeddings": 512,
         "tie_word_embeddings": True},
        {"hidden_size": 96, "num_key_value_heads": 6, "intermediate_size": 384, "hidden_act": "gelu_pytorch_tanh",
         "alibi": Alibi(), "rope_layers": (False,) * 8, "max_position_embeddings": 512},
    ),
    "mpt": (
        {"d_model": 96, "n_layers": 8, "n_heads": 6, "expansion_ratio": 4, "max_seq_len": 512, "vocab_size": 50,
         "no_bias": True, "norm_type": "low_precision_layernorm", "learned_pos_emb": True, "logit_scale": None,
         "attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": None, "attn_impl": "torch",
                         "softmax_scale": None, "qk_ln": False, "attn_type": "multihead_attention"}},
        {"hidden_size": 96, "num_hidden_layers": 8, "num_attention_heads": 6, "max_seq_len": 512, "vocab_size": 50,
         "attn_config": {"alibi": True}},
        {"num_key_value_heads": 6, "intermediate_size": 384, "hidden_act": "gelu", "alibi": Alibi(),
         "tie_word_embeddings": True, "max_position_embeddings": 512, "softmax_scale": 0.25},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", SPELLINGS)
def test_both_spellings_mean_the_same(family):
    old, new, wanted = SPELLINGS[family]
    one, other = (ModelConfig.from_json({"model_type": family, **told}) for told in (old, new))
    assert one == other
    assert (one.head_dim, one.num_hidden_layers) == (16, 8)
    assert {name: getattr(one, name) for name in wanted} == wanted


@pytest.mark.parametrize("family", SPELLINGS)
def test_a_size_that_is_missing_or_no_number_is_named(family):
    with pytest.raises(FormatError, match="config.json: hidden_size must be a finite number; got nothing"):
        ModelConfig.from_json({"model_type": family})
    with pytest.raises(FormatError, match="config.json: hidden_size must be a finite number; got 'wide'"):
        ModelConfig.from_json({"model_type": family, "hidden_size": "wide", "num_attention_heads": "many"})


@pytest.mark.parametrize(
    ("family", "changes", "row"),
    [
        ("gpt_neox", {}, "gpt_neox"),
        ("gpt_neox", {"use_parallel_residual": False}, "gpt_neox_sequential"),
        ("opt", {"do_layer_norm_before": False}, "opt_post_norm"),
        ("falcon", {}, "falcon"),
        ("falcon", {"new_decoder_architecture": True}, "falcon_two_norms"),
        ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2}, "falcon_two_norms"),
        ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}, "falcon"),
        ("falcon", {"parallel_attn": False}, "falcon_sequential"),
        ("mpt", {"attn_config": {"clip_qkv": None}}, "mpt"),
        ("mpt", {"attn_config": {"clip_qkv": 0}}, "mpt"),
        ("mpt", {"attn_config": {"clip_qkv": 6}}, "mpt_clipped"),
    ],
)
def test_a_variant_has_its_own_row(family, changes, row):
    said = {
        "model_type": family,
        "architectures": [FAMILIES[family].architecture],
        "rotary_pct": 1.0,
        **changes,
    }
    assert tiny_config(**said).model_type == row


@pytest.mark.parametrize(
    ("name", "family"), [("MPTForCausalLM", "mpt"), ("GPT2Model", "gpt2"), ("BloomModel", "bloom")]
)
def test_another_class_name_is_the_same_family(name, family):
    assert tiny_config(model_type=family, architectures=[name]).model_type == family


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({"num_kv_heads": 2}, 1),
        ({"multi_query": False}, 4),
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, 2),
        ({"new_decoder_architecture": True}, 4),
        ({"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}, 2),
    ],
)
def test_key_heads_of_a_falcon(changes, heads):
    assert tiny_config(model_type="falcon", **changes).num_key_value_heads == heads


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("phi", {"qk_layernorm": True}, "qk_layernorm must be false for phi"),
        ("opt", {"activation_function": "gelu"}, 'activation_function must be "relu" for opt; got .gelu.'),
        ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine must be true"),
        ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm must be false"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention must be false"),
        ("falcon", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn must be 1 for falcon; got 2"),
        (
            "falcon",
            {"new_decoder_architecture": True, "parallel_attn": False},
            "parallel_attn must be true for falcon_two_norms",
        ),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "post_layernorm must be false for bloom"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "attn_config.qk_ln must be false for mpt; got True"),
        ("mpt", {"attn_config": {"kv_n_heads": 2}}, "attn_config.kv_n_heads must be null"),
        ("mpt", {"attn_config": {"alibi": False}}, "attn_config.alibi must be true"),
        ("mpt", {"attn_config": {"attn_type": "multiquery_attention"}}, "attn_config.attn_type must be"),
        ("mpt", {"norm_type": "rmsnorm"}, 'norm_type must be "low_precision_layernorm" or "layernorm" for mpt'),
        ("mpt", {"no_bias": False}, "no_bias must be true"),
        ("mpt", {"logit_scale": "inv_sqrt_d_model"}, "logit_scale must be null"),
    ],
)  # fmt: skip
def test_what_does_not_run_is_named(family, changes, message):
    with pytest.raises(UnsupportedError, match=message):
        tiny_config(model_type=family, **changes)


def test_rows_that_go_by_key_value_head():
    # Two key heads, two query heads for each, of two channels: q q k v, and again.
    config = tiny_config(**FAMILY_CHANGES["falcon_two_norms"])
    assert (config.num_key_value_heads, config.queries_per_key, config.head_dim) == (2, 2, 2)
    at = "transformer.h.1.self_attention.query_key_value"
    rows = {part: stored_place(config, f"transformer.h.1.self_attn.{part}_proj") for part in "qkv"}
    assert {place for place, _ in rows.values()} == {at}
    assert {part: row.tolist() for part, (_, row) in rows.items()} == {
        "q": [0, 1, 2, 3, 8, 9, 10, 11],
        "k": [4, 5, 12, 13],
        "v": [6, 7, 14, 15],
    }
    order = stored_order(config, "self_attention.query_key_value")
    assert order.tolist() == [0, 1, 2, 3, 8, 9, 12, 13, 4, 5, 6, 7, 10, 11, 14, 15]
    assert stored_order(config, "mlp.dense_h_to_4h") == slice(None)


def test_rows_of_bloom_go_head_by_head():
    config = tiny_config(**FAMILY_CHANGES["bloom"])  # four heads of two channels: q k v, four times
    assert stored_place(config, "transformer.h.0.self_attn.v_proj")[1].tolist() == [
        4,
        5,
        10,
        11,
        16,
        17,
        22,
        23,
    ]


def test_rows_of_gpt2_and_mpt_lie_one_part_below_the_other():
    for family, place in (("gpt2", "transformer.h.0.attn.c_attn"), ("mpt", "transformer.blocks.0.attn.Wqkv")):
        prefix = place.partition(".attn")[0]
        config = tiny_config(**FAMILY_CHANGES[family])
        assert stored_place(config, f"{prefix}.self_attn.v_proj") == (place, slice(16, 24))
        assert stored_order(config, place.removeprefix(f"{prefix}.")) == slice(None)


def test_a_linear_with_another_name_is_all_of_its_tensor():
    config = tiny_config(**FAMILY_CHANGES["opt"])
    prefix = "model.decoder.layers.1."
    assert stored_place(config, f"{prefix}mlp.up_proj") == (f"{prefix}fc1", slice(None))
    assert stored_place(config, f"{prefix}self_attn.q_proj") == (f"{prefix}self_attn.q_proj", slice(None))


def test_gpt2_stores_its_linears_transposed():
    config = tiny_config(**FAMILY_CHANGES["gpt2"])
    shapes = block_tensor_shapes(config, 0)
    assert shapes["transformer.h.0.attn.c_attn.weight"] == (8, 24)
    assert shapes["transformer.h.0.attn.c_attn.bias"] == (24,)
    assert shapes["transformer.h.0.mlp.c_proj.weight"] == (32, 8)
    assert (
        block_stored_shapes(config)["mlp.c_proj"] == block_linear_shapes(config)["mlp.down_proj"] == (8, 32)
    )


def test_tensors_outside_the_blocks():
    def names(family):
        shapes = outer_tensor_shapes(tiny_config(**FAMILY_CHANGES[family]))
        return {name.removesuffix(".weight"): shape for name, shape in shapes.items()}

    at = "model.decoder"
    assert names("opt_post_norm") == {
        f"{at}.embed_tokens": (17, 6), f"{at}.embed_positions": (26, 8),
        f"{at}.project_in": (8, 6), f"{at}.project_out": (6, 8),
    }  # fmt: skip
    assert f"{at}.final_layer_norm.bias" in names("opt")
    assert {"lm_head": (17, 8), "lm_head.bias": (17,)}.items() <= names("phi").items()
    assert names("gpt_neox")["embed_out"] == (17, 8)
    assert names("gpt2")["transformer.wpe"] == (24, 8)
    embed = "transformer.word_embeddings"
    assert names("bloom").keys() >= {
        embed,
        f"{embed}_layernorm",
        f"{embed}_layernorm.bias",
        "transformer.ln_f",
    }
    assert list(names("mpt")) == ["transformer.wte", "transformer.norm_f"]


def test_scores_of_gpt2():
    config = tiny_config(**FAMILY_CHANGES["gpt2"])
    assert [config.score_scale(layer) for layer in (0, 1)] == [1 / math.sqrt(2), 1 / math.sqrt(2) / 2]
    assert tiny_config(model_type="gpt2").score_scale(1) == 1 / math.sqrt(2)
    assert tiny_config(model_type="gpt2", scale_attn_weights=False).score_scale(1) == 1.0
    assert tiny_config(scale_attn_by_inverse_layer_idx=True).score_scale(1) == 0.5  # not a key of Llama's


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt_neox", {"rotary_pct": 1.0}),
        ("gpt_neox", {"use_parallel_residual": False}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": False}),
        ("gpt2", {"scale_attn_weights": False}),
        ("gpt2", {"activation_function": "relu"}),
        ("mpt", {"attn_config": {"softmax_scale": 0.2, "alibi_bias_max": 2}}),
        ("mpt", {"attn_config": {"softmax_scale": None}}),
        ("mpt_clipped", {"attn_config": {"clip_qkv": 0.5}}),
        ("falcon_sequential", {"alibi": False}),
        ("falcon", {"activation": "relu"}),
        ("bloom", {"layer_norm_epsilon": 0.1}),
    ],
    ids=str,
)
def test_what_config_json_says_shows_in_the_logits(rng, family, changes):
    told = FAMILY_CHANGES[family]
    config = tiny_config(**told)
    tensors, ids = random_tensors(config, rng, gain=0.7), rng.integers(0, 17, (2, 9), dtype=np.int64)
    one = make_decoder(config, tensors).logits(ids)
    other = make_decoder(tiny_config(**(told | changes)), tensors).logits(ids)
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()
