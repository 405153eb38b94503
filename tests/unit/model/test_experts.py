import math

import numpy as np
import pytest
from helpers.assertions import assert_close, frozen
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import tiny_config, tiny_decoder

from awq_ref.errors import FormatError, ShapeError, UnsupportedError
from awq_ref.model import (
    ModelConfig,
    block_linear_shapes,
    block_router_shapes,
    block_tensor_shapes,
    model_linear_shapes,
)
from awq_ref.model.experts import mixture, route

# softmax of these is 0.5, 0.25, 0.125, 0.125
LOGITS = np.log(np.float32([[4, 2, 1, 1], [1, 1, 4, 2]]))


class Router:
    """Maps a token of two channels to the logits of three experts."""

    in_features, out_features, resident_bytes = 2, 3, 0

    def __call__(self, x):
        return np.log(np.float32([[1, 2, 1]])) + x @ np.float32([[9, 0, 0], [0, 0, 9]])


def test_weights_of_the_chosen_by_hand():
    chosen, weights = route(frozen(LOGITS), top_k=2, normalized=False)
    assert (chosen.dtype, weights.dtype) == (np.int64, np.float32)
    assert chosen.tolist() == [[0, 1], [2, 3]]
    assert_close(weights, [[0.5, 0.25]] * 2, rtol=1e-6)
    _, weights = route(LOGITS, top_k=2, normalized=True)
    assert_close(weights, [[2 / 3, 1 / 3]] * 2, rtol=1e-6)


def test_of_equal_experts_the_first_are_chosen():
    chosen, _ = route(np.zeros((1, 5), dtype=np.float32), top_k=3, normalized=True)
    assert chosen.tolist() == [[0, 1, 2]]
    chosen, weights = route(LOGITS, top_k=4, normalized=True)
    assert chosen[0].tolist() == [0, 1, 2, 3]
    assert_close(weights.sum(axis=1), [1.0, 1.0], rtol=1e-6)


def test_a_mixture_by_hand():
    # The first token goes to experts 1 and 0 (of equals the first), the second to 0 and 1, the third to 2 and 1.
    x = frozen(np.float32([[[0, 0], [1, 0]], [[0, 1], [0, 0]]]))
    seen = {}

    def expert(number, tokens):
        seen[number] = tokens.tolist()
        return tokens + np.float32(10**number)

    y = mixture(x, Router(), expert, top_k=2, normalized=True)
    assert (y.dtype, y.shape) == (np.float32, (2, 2, 2))
    assert seen == {0: [[0, 0], [1, 0], [0, 0]], 1: [[0, 0], [1, 0], [0, 1], [0, 0]], 2: [[0, 1]]}
    first = 1 / 3 + 2 / 3 * 10
    large = math.exp(9) / (math.exp(9) + 2)
    expected = [
        [[first, first], [large * 2 + (1 - large) * 11, large * 1 + (1 - large) * 10]],
        [[large * 100 + (1 - large) * 10, large * 101 + (1 - large) * 11], [first, first]],
    ]
    assert_close(y, expected, rtol=1e-6)


def test_an_expert_without_tokens_is_not_called():
    called = []

    def expert(number, tokens):
        called.append(number)
        return tokens

    mixture(np.float32([[9, 0]]), Router(), expert, top_k=1, normalized=False)
    assert called == [0]


def test_layers_with_and_without_experts():
    config = tiny_config(**FAMILY_CHANGES["qwen3_moe"])
    assert [config.n_experts(layer) for layer in (0, 1)] == [5, 0]
    with_experts = block_linear_shapes(config, 0)
    assert len(with_experts) == 4 + 3 * 5
    assert with_experts["mlp.experts.4.up_proj"] == (16, 8)
    assert with_experts["mlp.experts.4.down_proj"] == (8, 16)
    assert block_linear_shapes(config, 1)["mlp.up_proj"] == (32, 8)
    assert (block_router_shapes(config, 0), block_router_shapes(config, 1)) == ({"mlp.gate": (5, 8)}, {})
    assert len(model_linear_shapes(config)) == 4 + 3 * 5 + 7
    tensors = block_tensor_shapes(config, 0)
    assert tensors["model.layers.0.mlp.gate.weight"] == (5, 8)
    assert "model.layers.0.mlp.gate_proj.weight" not in tensors
    mixtral = block_tensor_shapes(tiny_config(**FAMILY_CHANGES["mixtral"]), 1)
    assert mixtral["model.layers.1.block_sparse_moe.experts.3.w2.weight"] == (8, 16)
    assert block_router_shapes(tiny_config(), 0) == {}


def test_which_layers_have_experts():
    def layers(**changes):
        config = tiny_config(model_type="qwen3_moe", num_hidden_layers=4, num_experts_per_tok=2, **changes)
        return config.expert_layers

    assert layers() == ()
    assert layers(decoder_sparse_step=2) == (False, True, False, True)
    assert layers(decoder_sparse_step=2, mlp_only_layers=[3]) == (False, True, False, False)


def test_numbers_of_experts_by_both_names():
    one, other = (
        tiny_config(model_type="qwen3_moe", num_experts_per_tok=2, **{name: 6})
        for name in ("num_experts", "num_local_experts")
    )
    assert one == other
    assert (one.num_experts, one.moe_intermediate_size, one.norm_topk_prob) == (6, 768, False)
    mixtral = tiny_config(model_type="mixtral")
    assert (mixtral.num_experts, mixtral.num_experts_per_tok, mixtral.moe_intermediate_size) == (8, 2, 12)
    assert mixtral.norm_topk_prob
    assert tiny_config(num_experts=6).num_experts == 0  # not a key of llama


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok must be from 1 .* got 5 of 4 experts"),
        ({"num_experts_per_tok": 0}, "got 0 of 4 experts of width 12"),
        ({"num_experts": 0}, "got 2 of 0 experts"),
        ({"moe_intermediate_size": 0}, "of width 0"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step must be at least 1 .* got 0"),
        ({"mlp_only_layers": 3}, "mlp_only_layers a list of layers; got 1 and 3"),
    ],
)
def test_numbers_that_cannot_be_are_named(changes, message):
    told = {
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
    }
    with pytest.raises(FormatError, match=message):
        tiny_config(**(told | changes))


def test_mixtral_weights_always_add_up():
    with pytest.raises(UnsupportedError, match="norm_topk_prob must be true for mixtral; got False"):
        tiny_config(model_type="mixtral", norm_topk_prob=False)


def test_a_decoder_without_its_router_is_refused(rng):
    decoder = tiny_decoder(rng, **FAMILY_CHANGES["mixtral"])
    del decoder.blocks[0].linears["block_sparse_moe.gate"]
    with pytest.raises(ShapeError, match="linears of layer 0 must be .*block_sparse_moe.gate"):
        type(decoder)(decoder.config, decoder.embed_tokens, decoder.blocks, decoder.norm, decoder.lm_head)


def test_a_config_of_the_hub_is_read():
    config = ModelConfig.from_json(
        {
            "architectures": ["Qwen3MoeForCausalLM"],
            "decoder_sparse_step": 1,
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 40960,
            "mlp_only_layers": [],
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "use_sliding_window": False,
            "vocab_size": 151936,
        }
    )
    assert len(block_linear_shapes(config, 47)) == 4 + 3 * 128
    assert (config.windows, config.norm_topk_prob, config.expert_layers) == ((), True, ())
