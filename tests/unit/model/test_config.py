import math

import pytest
from helpers.tiny_model import TINY, tiny_config

from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.model import (
    ModelConfig,
    RopeConfig,
    block_linear_shapes,
    block_prefix,
    block_tensor_shapes,
    model_tensor_shapes,
    outer_tensor_shapes,
)

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_sizes_and_flags_are_read():
    config = tiny_config(
        architectures=["LlamaForCausalLM"],
        tie_word_embeddings=True,
        attention_bias=True,
        bos_token_id=1,
        eos_token_id=[2, 3],
    )
    assert config == ModelConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        vocab_size=17,
        max_position_embeddings=24,
        rms_norm_eps=1e-5,
        rope=RopeConfig(rope_theta=100.0),
        tie_word_embeddings=True,
        attention_bias=True,
        bos_token_id=1,
        eos_token_ids=(2, 3),
    )
    assert config.queries_per_key == 2


def test_what_is_left_out_or_null_takes_its_default():
    config = tiny_config(head_dim=None, num_key_value_heads=None, rms_norm_eps=None, eos_token_id=None)
    assert (config.head_dim, config.num_key_value_heads, config.rms_norm_eps) == (2, 4, 1e-6)
    assert config.eos_token_ids == ()
    assert config.bos_token_id is None
    assert not config.tie_word_embeddings
    assert tiny_config(eos_token_id=5).eos_token_ids == (5,)


def test_dtype_in_both_spellings():
    assert tiny_config(torch_dtype="bfloat16").dtype == "bfloat16"
    assert tiny_config(dtype="float16").dtype == "float16"
    assert tiny_config().dtype == "float32"


def test_rope_in_both_spellings():
    expected = RopeConfig("llama3", 500.0, 8.0, 1.0, 4.0, 8192)
    old = tiny_config(rope_theta=500.0, rope_scaling=LLAMA3 | {"rope_type": "llama3"})
    oldest = tiny_config(rope_theta=500.0, rope_scaling=LLAMA3 | {"type": "llama3"})
    new = tiny_config(rope_theta=None, rope_parameters=LLAMA3 | {"rope_type": "llama3", "rope_theta": 500.0})
    assert old.rope == oldest.rope == new.rope == expected
    assert tiny_config(rope_theta=None).rope == RopeConfig()
    linear = tiny_config(rope_theta=7.0, rope_scaling={"type": "linear", "factor": 2})
    assert linear.rope == RopeConfig("linear", 7.0, 2.0)


def test_dynamic_rope_stretches_max_position_embeddings():
    # transformers takes that number for the original length, whatever the file says beside it
    config = tiny_config(
        rope_scaling={"type": "dynamic", "factor": 3.0, "original_max_position_embeddings": 5}
    )
    assert config.rope == RopeConfig("dynamic", 100.0, 3.0, original_max_position_embeddings=24)
    assert (config.max_position_embeddings, config.context) == (24, 72)


def test_yarn_in_both_spellings_and_what_it_leaves_out():
    yarn = {"factor": 4.0, "original_max_position_embeddings": 8}
    expected = RopeConfig(
        "yarn",
        100.0,
        4.0,
        original_max_position_embeddings=8,
        attention_factor=0.1 * math.log(4.0) + 1.0,
    )
    old = tiny_config(rope_scaling=yarn | {"type": "yarn"})
    new = tiny_config(rope_theta=None, rope_parameters=yarn | {"rope_type": "yarn", "rope_theta": 100.0})
    assert old.rope == new.rope == expected
    assert old.context == 32
    told = tiny_config(
        rope_scaling=yarn
        | {"type": "yarn", "beta_fast": 16, "beta_slow": 2, "attention_factor": 1.5, "truncate": False}
    )
    assert (told.rope.beta_fast, told.rope.beta_slow, told.rope.attention_factor) == (16, 2, 1.5)
    assert not told.rope.truncate
    # 24 tokens of context over 8: factor 3; two scales: the quotient of their terms
    scales = {"type": "yarn", "original_max_position_embeddings": 8, "mscale": 0.5, "mscale_all_dim": 2.0}
    rope = tiny_config(rope_scaling=scales).rope
    assert rope.factor == 3.0
    assert rope.attention_factor == (0.05 * math.log(3) + 1) / (0.2 * math.log(3) + 1)
    assert tiny_config(rope_scaling=yarn | {"type": "yarn", "factor": 0.5}).rope.attention_factor == 1.0


@pytest.mark.parametrize("name", ["su", "longrope", "yarn"])
def test_longrope_by_all_its_names(name):
    lists = {"short_factor": [1, 2.5], "long_factor": [3, 4]}
    expected = RopeConfig(
        "longrope",
        100.0,
        3.0,
        original_max_position_embeddings=8,
        attention_factor=math.sqrt(1 + math.log(3) / math.log(8)),
        short_factor=(1.0, 2.5),
        long_factor=(3.0, 4.0),
    )
    beside = tiny_config(rope_scaling=lists | {"type": name}, original_max_position_embeddings=8)
    within = tiny_config(rope_parameters=lists | {"rope_type": name, "original_max_position_embeddings": 8})
    assert beside.rope == within.rope == expected
    assert beside.context == 24
    # Nothing is stretched: max_position_embeddings is the original length.
    assert tiny_config(rope_scaling=lists | {"type": name}).rope.attention_factor == 1.0


def test_phi3_has_an_original_length_of_its_own():
    lists = {"type": "longrope", "short_factor": [1, 2], "long_factor": [3, 4]}
    rope = tiny_config(model_type="phi3", max_position_embeddings=8192, rope_scaling=lists).rope
    assert (rope.original_max_position_embeddings, rope.factor) == (4096, 2.0)


def test_an_unknown_architecture_says_which_are_known_and_where_to_add_it():
    wanted = r"one of LlamaForCausalLM, .*; got Mistral4ForCausalLM. The nearest is mistral .*/families.py"
    with pytest.raises(UnsupportedError, match=wanted):
        ModelConfig.from_json({"architectures": ["Mistral4ForCausalLM"], "model_type": "mistral4"})
    wanted = "model_type must name one of .*llama.*; got mistral3. The nearest is mistral "
    with pytest.raises(UnsupportedError, match=wanted):
        ModelConfig.from_json({"model_type": "mistral3"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act must be one of gelu, .*, relu, silu, swish; got 'mish'"),
        (
            {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1]}},
            "rope_type must be one of .*llama3.*; got 'mrope'",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            "rope_parameters must be the same in all layers",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor must be 1; got 0.5"),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(UnsupportedError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size must be a finite number; got nothing"),
        ({"hidden_size": "8"}, "hidden_size must be a finite number; got '8'"),
        ({"vocab_size": float("inf")}, "vocab_size must be a finite number; got inf"),
        ({"vocab_size": True}, "vocab_size must be a finite number; got True"),
        ({"vocab_size": 17.5}, "vocab_size must be a whole number; got 17.5"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1; got 0"),
        ({"num_attention_heads": 0, "head_dim": None}, "num_attention_heads must be at least 1; got 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads; got 3 and 4"),
        ({"head_dim": 3}, "head_dim must be even, .*; got 3"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor must be a finite number; got nothing"),
        ({"rope_theta": 0.0}, "rope_theta must be above 0; got 0.0"),
        ({"rope_scaling": {"type": "dynamic", "factor": 0}}, "factor must be above 0; got 0.0"),
        (
            {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 1}},
            "original_max_position_embeddings must be at least 2; got 1",
        ),
        ({"rope_scaling": {"type": "longrope"}}, "short_factor must be a list of numbers; got None"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1, 0], "long_factor": [1, 2]}},
            "short_factor must be above 0; got 0.0",
        ),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2, 3]}},
            "long_factor must hold a number for each of 2 pairs of channels; got 3",
        ),
        ({"eos_token_id": "end"}, "eos_token_id must be a finite number; got 'end'"),
    ],
)
def test_what_contradicts_itself_is_named(changes, message):
    with pytest.raises(FormatError, match=message):
        tiny_config(**changes)


def test_shapes_of_the_linears_in_order_of_use():
    # 4 query heads of 4 = 16, 2 key-value heads of 4 = 8
    assert list(block_linear_shapes(tiny_config()).items()) == [
        ("self_attn.q_proj", (16, 8)),
        ("self_attn.k_proj", (8, 8)),
        ("self_attn.v_proj", (8, 8)),
        ("self_attn.o_proj", (8, 16)),
        ("mlp.gate_proj", (12, 8)),
        ("mlp.up_proj", (12, 8)),
        ("mlp.down_proj", (8, 12)),
    ]


def test_tensors_of_a_layer_with_biases():
    config = tiny_config(attention_bias=True)
    shapes = block_tensor_shapes(config, 1)
    assert block_prefix(config, 1) == "model.layers.1."
    assert len(shapes) == 2 + 7 + 4
    assert shapes["model.layers.1.input_layernorm.weight"] == (8,)
    assert shapes["model.layers.1.self_attn.q_proj.weight"] == (16, 8)
    assert shapes["model.layers.1.self_attn.q_proj.bias"] == (16,)
    assert "model.layers.1.mlp.up_proj.bias" not in shapes
    assert "model.layers.1.mlp.up_proj.bias" in block_tensor_shapes(tiny_config(mlp_bias=True), 1)


def test_tensors_outside_the_layers():
    expected = {"model.embed_tokens.weight": (17, 8), "model.norm.weight": (8,)}
    assert outer_tensor_shapes(tiny_config(tie_word_embeddings=True)) == expected
    assert outer_tensor_shapes(tiny_config()) == expected | {"lm_head.weight": (17, 8)}
    assert len(model_tensor_shapes(tiny_config())) == 3 + 2 * 9


def test_the_dictionary_is_not_written_to():
    before = dict(TINY)
    ModelConfig.from_json(TINY)
    assert before == TINY
