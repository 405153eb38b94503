import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.bounded import exact, split
from helpers.tiny_model import make_decoder, random_tensors, tiny_config

from awq_ref.errors import RangeError
from awq_ref.model import (
    Block,
    add_branch,
    attention_forward,
    block_forward,
    make_context,
    mlp_forward,
    new_cache,
    normed,
)
from awq_ref.model import block as module
from awq_ref.model.context import PADDED

PREFIX = "model.layers.0."


@pytest.fixture
def config():
    return tiny_config(attention_bias=True, mlp_bias=True)


@pytest.fixture
def tensors(config, rng):
    return random_tensors(config, rng)


@pytest.fixture
def block(config, tensors):
    return make_decoder(config, tensors).blocks[0]


@pytest.fixture
def x(rng):
    return frozen(rng.normal(0, 1, (2, 5, 8)).astype(np.float32))


def expect(of, x):
    """The oracle `of` one text for each of a batch."""
    return split([of(text) for text in exact(x)])


def test_attention_follows_the_scalar_loop(config, tensors, block, x):
    loaded = oracle.loaded(config, tensors)
    expected, bound = expect(lambda text: oracle.attention_block(text, config, loaded, PREFIX), x)
    y = attention_forward(x, block, config, make_context(config, 5))
    assert y.dtype == np.float32
    assert_close(y, expected, atol=bound)


@pytest.mark.parametrize("tile", [2**16, 7])
def test_mlp_follows_the_scalar_loop(config, tensors, block, x, monkeypatch, tile):
    monkeypatch.setattr(module, "GATE_TILE", tile)
    loaded = oracle.loaded(config, tensors)
    expected, bound = expect(lambda text: [oracle.mlp(token, loaded, PREFIX) for token in text], x)
    y = mlp_forward(x, block, config)
    assert y.dtype == np.float32
    assert_close(y, expected, atol=bound)


def test_the_block_follows_the_scalar_loop(config, tensors, block, x):
    loaded = oracle.loaded(config, tensors)
    expected, bound = expect(lambda text: oracle.block(text, config, loaded, PREFIX), x)
    y = block_forward(x, block, config, make_context(config, 5))
    assert y.dtype == np.float32
    assert_close(y, expected, atol=bound)


class Watched:
    """Keeps what comes in as it is, and gives out what nobody may write to."""

    def __init__(self, inner):
        self.inner, self.inputs = inner, []
        self.in_features, self.out_features, self.resident_bytes = inner.in_features, inner.out_features, 0

    def __call__(self, x):
        self.inputs.append((x, x.copy()))
        return frozen(self.inner(x))


def test_linears_can_be_watched(config, block, x):
    plain = block_forward(x, block, config, make_context(config, 5))
    block.linears = {name: Watched(linear) for name, linear in block.linears.items()}
    watched = block_forward(x, block, config, make_context(config, 5))
    assert_same_bits(watched, plain)
    seen = {name: linear.inputs[0] for name, linear in block.linears.items()}
    for name, (array, as_it_came) in seen.items():
        assert len(block.linears[name].inputs) == 1
        assert_same_bits(array, as_it_came)  # what a linear was given is not written to afterwards
    attention = [seen[f"self_attn.{name}_proj"][0] for name in "qkv"]
    assert attention[0] is attention[1] is attention[2]
    assert seen["mlp.gate_proj"][0] is seen["mlp.up_proj"][0]


def test_context_without_padding_is_shared_by_all_rows(config):
    context = make_context(config, 3, attention_mask=np.ones((2, 3), dtype=np.bool_))
    assert context.cos.dtype == context.sin.dtype == np.float32
    assert context.cos.shape == (1, 3, 1, 1, 2)
    assert context.padding is None
    assert context.cache is None


def test_positions_count_tokens_not_columns(config):
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 0]], dtype=np.bool_)
    context = make_context(config, 4, attention_mask=mask)
    plain = make_context(config, 4)
    assert_same_bits(context.cos[0, 2:], plain.cos[0, :2])
    assert_same_bits(context.sin[1, :3], plain.sin[0, :3])
    p = np.float32(PADDED)
    assert_same_bits(context.padding, [[p, p, 0, 0], [0, 0, 0, p]], dtype=np.float32)


def test_a_cache_carries_positions_and_padding_on(config):
    cache = new_cache(config, batch=2, capacity=6)
    mask = np.array([[0, 1, 1], [1, 1, 1]], dtype=np.bool_)
    first = make_context(config, 3, attention_mask=mask, cache=cache)
    second = make_context(config, 2, cache=first.cache)
    plain = make_context(config, 5)
    assert second.cache.length == 5
    assert_same_bits(second.cos[0], plain.cos[0, 2:4])
    assert_same_bits(second.cos[1], plain.cos[0, 3:5])
    assert second.padding.shape == (2, 5)
    assert second.at_layer(1).layer == 1


def test_a_cache_without_room_says_so(config):
    with pytest.raises(RangeError, match="capacity=2"):
        make_context(config, 3, cache=new_cache(config, batch=1, capacity=2))


def test_heads_are_normed_apart_or_together():
    x = np.float32([[[3, 4, 0, 0], [0, 0, 6, 8]]])
    weight = np.float32([1, 10])
    qwen3 = tiny_config(model_type="qwen3", head_dim=2, num_attention_heads=2, rms_norm_eps=0.0)
    with_heads = Block({"self_attn.q_norm": weight}, {})
    y = normed(x[:, 1:] + x[:, :1], with_heads, qwen3, "query")
    root = np.sqrt(12.5)  # of (9 + 16) / 2, and of (36 + 64) / 2 it is twice that
    assert_close(y, [[[3 / root, 40 / root, 3 / root, 40 / root]]], rtol=4 * 2.0**-24)
    olmo2 = tiny_config(model_type="olmo2", head_dim=2, num_attention_heads=2, rms_norm_eps=0.0)
    whole = Block({"self_attn.q_norm": np.float32([1, 10, 1, 10])}, {})
    y = normed(x[:, 1:] + x[:, :1], whole, olmo2, "query")
    root = np.sqrt(125 / 4)
    assert_close(y, [[[3 / root, 40 / root, 6 / root, 80 / root]]], rtol=4 * 2.0**-24)


def test_without_a_norm_the_stream_itself_is_read(rng):
    config = tiny_config(model_type="olmo2")
    block = make_decoder(config, random_tensors(config, rng)).blocks[0]
    x = rng.normal(0, 1, (1, 3, 8)).astype(np.float32)
    assert normed(x, block, config, "before_attention") is x
    before = x.copy()
    block_forward(frozen(x), block, config, make_context(config, 3))
    assert_same_bits(x, before)


def test_what_a_module_adds_is_normed_then_multiplied():
    granite = tiny_config(model_type="granite", residual_multiplier=0.5)
    stream, y = np.float32([[[1, 2]]]), np.float32([[[4, 8]]])
    assert add_branch(stream, y, Block({}, {}), granite, "after_mlp").tolist() == [[[3, 6]]]
    olmo2 = tiny_config(model_type="olmo2", rms_norm_eps=0.0)
    block = Block({"post_feedforward_layernorm": np.float32([1, 10])}, {})
    added = add_branch(stream, np.float32([[[1, 7]]]), block, olmo2, "after_mlp")  # mean square 25
    assert_close(added, [[[1.2, 16.0]]], rtol=4 * 2.0**-24)
