"""Every family against the scalar loop, and what its row says of a config.json."""

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, frozen
from helpers.bounded import split
from helpers.source import ROOT
from helpers.tiny_families import FAMILY_CHANGES, WINDOW
from helpers.tiny_model import TINY, make_decoder, random_tensors, tiny_config

from awq_ref.errors import FormatError, ShapeError, UnsupportedError
from awq_ref.model import (
    FAMILIES,
    ModelConfig,
    RopeConfig,
    block_stored_shapes,
    block_tensor_shapes,
    model_tensor_shapes,
    new_cache,
    stored_place,
)
from awq_ref.model.alibi_families import ALIBI_FAMILIES
from awq_ref.model.older_families import OLDER_FAMILIES

IDS = np.array([[3, 1, 4, 1, 5, 9, 2], [16, 0, 2, 6, 5, 3, 8]], dtype=np.int64)
# Of the largest logit. The running bound of the loop lets every rounding conspire with every other through norms and
# softmax and says nothing after two layers; what happens is a few roundings of each of some twenty steps.
TOLERANCE = 64 * 2.0**-24
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def made(family, rng, **changes):
    config = tiny_config(**(FAMILY_CHANGES[family] | changes))
    return config, random_tensors(config, rng, gain=0.7)


def silent(family):
    """A config.json that leaves head_dim and rope_theta out."""
    told = {key: value for key, value in TINY.items() if key not in ("head_dim", "rope_theta")}
    return told | {"model_type": family}


def assert_near(logits, expected):
    assert logits.dtype == np.float32
    assert_close(logits, expected, atol=TOLERANCE * np.abs(expected).max())


def test_the_helpers_know_every_family():
    assert list(FAMILY_CHANGES) == list(FAMILIES)


@EVERY_FAMILY
def test_logits_follow_the_scalar_loop(rng, family):
    config, tensors = made(family, rng)
    expected, _ = split([oracle.logits(row, config, tensors) for row in IDS.tolist()])
    decoder = make_decoder(config, {name: frozen(array) for name, array in tensors.items()})
    assert_near(decoder.logits(frozen(IDS)), expected)


@EVERY_FAMILY
@pytest.mark.parametrize("cuts", [(0, 1, 2, 3, 4, 5, 6, 7), (0, 4, 7), (0, 5, 6, 7)])
def test_decoding_with_a_cache_gives_the_full_pass(rng, family, cuts):
    config, tensors = made(family, rng)
    expected, _ = split([oracle.logits(row, config, tensors) for row in IDS.tolist()])
    decoder = make_decoder(config, tensors)
    cache, pieces = new_cache(config, batch=2, capacity=7), []
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        logits, cache = decoder.forward(IDS[:, first:last], cache)
        pieces.append(logits)
    assert_near(np.concatenate(pieces, axis=1), expected)


@pytest.mark.parametrize(
    ("family", "left_out"),
    [
        ("mistral", {"sliding_window": None}),
        ("qwen2", {"use_sliding_window": False}),
        ("granite", {"residual_multiplier": 1.0}),
        ("granite", {"embedding_multiplier": 1.0}),
        ("granite", {"attention_multiplier": 0.5}),
        ("granite", {"logits_scaling": 1.0}),
        ("gemma2", {"attn_logit_softcapping": None}),
        ("gemma2", {"final_logit_softcapping": None}),
        ("gemma2", {"query_pre_attn_scalar": 4}),
        ("gemma2", {"sliding_window": None}),
        ("gemma3_text", {"rope_local_base_freq": 100.0}),
        ("gemma3_text", {"sliding_window_pattern": 3}),
        ("gemma3_text", {"query_pre_attn_scalar": 4}),
        ("gemma3_text", {"final_logit_softcapping": None}),
        ("mixtral", {"num_experts_per_tok": 1}),
        ("qwen3_moe", {"norm_topk_prob": True}),
        ("starcoder2", {"sliding_window": None}),
        ("smollm3", {"no_rope_layer_interval": 9}),
        ("cohere", {"logit_scale": 1.0}),
        ("smollm3", {"use_sliding_window": False}),
        ("stablelm", {"partial_rotary_factor": 1.0}),
        ("stablelm", {"layer_norm_eps": 0.1}),
    ],
    ids=str,
)
def test_what_sets_a_family_apart_shows_in_the_logits(rng, family, left_out):
    config, tensors = made(family, rng)
    with_it = make_decoder(config, tensors).logits(IDS)
    without = make_decoder(tiny_config(**(FAMILY_CHANGES[family] | left_out)), tensors).logits(IDS)
    assert np.abs(with_it - without).max() > 100 * TOLERANCE * np.abs(with_it).max()


def test_windows_of_the_families():
    windows = {name: tiny_config(**changes).windows for name, changes in FAMILY_CHANGES.items()}
    assert {name: found for name, found in windows.items() if found} == {
        "mistral": (WINDOW, WINDOW),
        "qwen2": (0, WINDOW),
        "gemma2": (WINDOW, 0),
        "gemma3_text": (WINDOW, 0),
        "mixtral": (WINDOW, WINDOW),
        "phi3": (WINDOW, WINDOW),
        "starcoder2": (WINDOW, WINDOW),
        "smollm3": (0, WINDOW),
    }


def test_layers_without_rope():
    layers = {name: tiny_config(**changes).rope_layers for name, changes in FAMILY_CHANGES.items()}
    with_rope = ("smollm3", "falcon", "falcon_two_norms", "phi", "gpt_neox", "gpt_neox_sequential")
    assert {name: found for name, found in layers.items() if found} == {
        "smollm3": (True, False),
        **{name: (False, False) for name in OLDER_FAMILIES | ALIBI_FAMILIES if name not in with_rope},
    }
    assert tiny_config(model_type="smollm3", no_rope_layers=[0, 1]).rope_layers == (False, True)
    assert tiny_config(model_type="smollm3").rope_layers == ()  # every fourth, of two
    assert (
        tiny_config(model_type="llama", no_rope_layers=[0, 1]).rope_layers == ()
    )  # not a key of this family
    assert ModelConfig.from_json(silent("smollm3")).rope.rope_theta == 2e6


def test_biases_of_the_families():
    def biases(**changes):
        shapes = block_tensor_shapes(tiny_config(**changes), 0)
        ends = [name.split(".")[-2][0] for name in shapes if name.endswith("bias")]
        return "".join(ends)

    assert biases(model_type="qwen2") == "qkv"
    assert biases(model_type="qwen2", attention_bias=True, mlp_bias=True) == "qkv"
    assert biases(model_type="qwen3") == ""
    assert biases(model_type="qwen3", attention_bias=True) == "qkvo"
    assert biases(**FAMILY_CHANGES["stablelm"]) == "ipqkv"  # both norms too
    assert biases(**FAMILY_CHANGES["stablelm"] | {"use_qkv_bias": False, "mlp_bias": True}) == "ip"
    assert biases(**FAMILY_CHANGES["starcoder2"]) == "ipqkvocc"
    assert biases(**FAMILY_CHANGES["starcoder2"] | {"use_bias": False}) == "ip"
    assert biases(**FAMILY_CHANGES["cohere"]) == "qkvo"
    assert biases(model_type="mistral", attention_bias=True, mlp_bias=True) == ""
    assert biases(model_type="granite", attention_bias=True, mlp_bias=True) == "qkvogud"


def test_norms_have_their_own_widths():
    qwen3 = block_tensor_shapes(tiny_config(**FAMILY_CHANGES["qwen3"]), 0)
    assert qwen3["model.layers.0.self_attn.q_norm.weight"] == (4,)
    olmo2 = block_tensor_shapes(tiny_config(**FAMILY_CHANGES["olmo2"]), 0)
    assert olmo2["model.layers.0.self_attn.q_norm.weight"] == (16,)
    assert olmo2["model.layers.0.self_attn.k_norm.weight"] == (8,)
    assert olmo2["model.layers.0.post_feedforward_layernorm.weight"] == (8,)


def test_fused_linears_are_one_tensor_and_know_their_rows():
    config = tiny_config(**FAMILY_CHANGES["phi3"])
    assert block_stored_shapes(config) == {
        "self_attn.qkv_proj": (32, 8),
        "self_attn.o_proj": (8, 16),
        "mlp.gate_up_proj": (24, 8),
        "mlp.down_proj": (8, 12),
    }
    assert "model.layers.1.mlp.gate_up_proj.weight" in model_tensor_shapes(config)
    place = "model.layers.1.self_attn."
    assert stored_place(config, f"{place}k_proj") == (f"{place}qkv_proj", slice(16, 24))
    assert stored_place(config, f"{place}o_proj") == (f"{place}o_proj", slice(None))


def test_what_a_silent_config_json_means():
    gemma2 = tiny_config(model_type="gemma2", head_dim=None)
    config = ModelConfig.from_json(silent("gemma2"))
    assert (config.head_dim, gemma2.head_dim) == (256, 2)  # a null is no silence
    assert config.tie_word_embeddings
    assert config.hidden_act == "gelu_pytorch_tanh"
    assert config.softmax_scale == 1 / 16
    assert (config.attn_logit_softcapping, config.final_logit_softcapping) == (50.0, 30.0)
    assert config.embedding_multiplier == math.sqrt(8)
    assert tiny_config(model_type="granite").softmax_scale == 1.0
    cohere = ModelConfig.from_json(silent("cohere"))
    assert (cohere.logit_scale, cohere.rope.rope_theta, cohere.rms_norm_eps) == (0.0625, 5e5, 1e-5)
    assert (
        tiny_config(model_type="llama", logits_scaling=5.0).logits_scaling == 1.0
    )  # not a number of this family
    assert (
        tiny_config(model_type="gemma", hidden_activation=None, hidden_act="gelu").hidden_act
        == "gelu_pytorch_tanh"
    )


def test_layers_with_a_window_may_have_a_rope_of_their_own():
    old = {
        "rope_theta": 500.0,
        "rope_local_base_freq": 9.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    new = {
        "rope_theta": None,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 9.0},
        },
    }
    found = [tiny_config(**FAMILY_CHANGES["gemma3_text"] | spelling) for spelling in (old, new)]
    assert found[0] == found[1]
    assert found[0].rope == RopeConfig("linear", 500.0, 8.0)
    assert found[0].window_rope == RopeConfig(rope_theta=9.0)
    silence = ModelConfig.from_json(silent("gemma3_text"))
    assert (silence.rope.rope_theta, silence.window_rope) == (1e6, RopeConfig(rope_theta=1e4))
    assert silence.num_key_value_heads == 2
    assert ModelConfig.from_json(silent("llama")).window_rope is None
    with pytest.raises(UnsupportedError, match="sliding_window must be given"):
        tiny_config(model_type="gemma3_text", sliding_window=None)


@pytest.mark.parametrize(
    ("family", "name"),
    [("stablelm", "qk_layernorm"), ("stablelm", "use_parallel_residual"), ("cohere", "use_qk_norm")],
)
def test_a_variant_that_does_not_run_is_named(family, name):
    with pytest.raises(UnsupportedError, match=f"{name} must be false for {family}; got True"):
        tiny_config(model_type=family, **{name: True})


@pytest.mark.parametrize("share", [0.2, 0.75, 1.5, -0.5])
def test_a_part_of_the_head_that_cannot_turn(share):
    with pytest.raises(FormatError, match="partial_rotary_factor must leave pairs"):
        tiny_config(model_type="stablelm", partial_rotary_factor=share)


def test_a_bias_of_the_final_norm_belongs_to_families_with_biases(rng):
    config, tensors = made("stablelm", rng)
    decoder = make_decoder(config, tensors)
    with pytest.raises(ShapeError, match="norm_bias must be given"):
        replace(decoder, norm_bias=None)
    llama = make_decoder(*made("llama", rng))
    with pytest.raises(ShapeError, match="norm_bias must not be given"):
        replace(llama, norm_bias=llama.norm)
    assert decoder.resident_bytes()["norms"] == 4 * 8 * 10


@pytest.mark.parametrize("value", [0, -1.0])
def test_a_factor_that_is_not_positive(value):
    with pytest.raises(FormatError, match="logits_scaling must be above 0; got"):
        tiny_config(model_type="granite", logits_scaling=value)


@EVERY_FAMILY
def test_both_spellings_of_a_config_json_mean_the_same(family):
    old = FAMILY_CHANGES[family] | {
        "rope_theta": 500.0,
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "torch_dtype": "bfloat16",
    }
    new = FAMILY_CHANGES[family] | {
        "rope_theta": None,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
        "dtype": "bfloat16",
    }
    assert tiny_config(**old) == tiny_config(**new)


def test_the_page_of_families_has_a_row_for_each():
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert [family for family in FAMILIES if f"\n| `{family}` | " not in page] == []
