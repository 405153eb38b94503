"""The operations on models for `awq_ref.vectors.backend`: the package's decoder and its parts.

MODEL_OPS   op -> function of parameters and inputs
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from awq_ref.dtypes import F32, AnyArray
from awq_ref.matmul import DenseLinear, to_operator
from awq_ref.model import (
    Block,
    Decoder,
    KVCache,
    ModelConfig,
    RopeConfig,
    block_forward,
    greedy,
    make_context,
    new_cache,
)
from awq_ref.model.attention import Scores, attention
from awq_ref.model.ops import ACTIVATIONS, layer_norm, rms_norm
from awq_ref.model.rope import ROPE_TYPES, apply_rope, rope_frequencies, rope_tables
from awq_ref.spec import LinearOperator, QuantizedLinear, QuantSpec
from awq_ref.vectors.backend_search import scale_dtype

Params = Mapping[str, Any]
Arrays = Mapping[str, AnyArray]
Outputs = dict[str, AnyArray]

ACTIVATION_NAMES = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}
ROPE_FIELDS = (
    *("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    *("beta_fast", "beta_slow", "truncate", "short_factor", "long_factor"),
)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def _rms_norm(params: Params, inputs: Arrays) -> Outputs:
    return {"y": rms_norm(inputs["x"], inputs["weight"], eps=params["eps"])}


def _layer_norm(params: Params, inputs: Arrays) -> Outputs:
    return {"y": layer_norm(inputs["x"], inputs["weight"], eps=params["eps"]) + inputs["bias"]}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _rope(params: Params, inputs: Arrays) -> Outputs:
    x = inputs["x"]
    attention = ROPE_TYPES[params["rope_type"]].attention
    config = RopeConfig(
        params["rope_type"],
        params["theta"],
        partial_rotary_factor=params["rotary_dim"] / x.shape[-1],
        neighbours=params["pairing"] == "neighbours",
        attention_factor=attention(params) if attention else 1.0,
        **{name: _hashable(params[name]) for name in ROPE_FIELDS if name in params},
    )
    frequencies = rope_frequencies(config, x.shape[-1], int(inputs["positions"].max()) + 1)
    cos, sin = rope_tables(inputs["positions"][:, None], frequencies, config.attention_factor)
    return {"y": apply_rope(x, cos, sin, out=np.empty_like(x), neighbours=config.neighbours)}


def _attention(params: Params, inputs: Arrays) -> Outputs:
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    n_tokens, heads, head_dim = q.shape
    kv_heads = k.shape[1]
    shared = q.reshape(1, n_tokens, kv_heads, heads // kv_heads, head_dim).transpose(0, 2, 1, 3, 4)
    keys, values = (array.transpose(1, 0, 2)[None] for array in (k, v))  # (1, G, S, D)
    scores = Scores(params["scale"], params["cap"], params["window"])
    return {"y": attention(shared, keys, values, scores=scores).reshape(q.shape)}


def _gated_mlp(params: Params, inputs: Arrays) -> Outputs:
    act = ACTIVATIONS[ACTIVATION_NAMES[params["activation"]]]
    gate, up, down = (DenseLinear(inputs[name]) for name in ("gate", "up", "down"))
    return {"y": down(act(gate(inputs["x"])) * up(inputs["x"]))}


def _config(params: Params, vocab_size: int = 1, layers: int = 1) -> ModelConfig:
    return ModelConfig(
        hidden_size=params["hidden_size"],
        intermediate_size=params["intermediate_size"],
        num_hidden_layers=layers,
        num_attention_heads=params["heads"],
        num_key_value_heads=params["kv_heads"],
        head_dim=params["head_dim"],
        vocab_size=vocab_size,
        max_position_embeddings=4096,
        rms_norm_eps=params["eps"],
        rope=RopeConfig(rope_theta=params["theta"], neighbours=params["pairing"] == "neighbours"),
        hidden_act=ACTIVATION_NAMES[params["activation"]],
    )


def _operator(name: str, params: Params, inputs: Arrays) -> LinearOperator:
    """Return a linear of a request: float, or packed integers."""
    if name in inputs:
        return DenseLinear(inputs[name])
    codes, scales, zero_point = (inputs[f"{name}.{part}"] for part in ("int_weight", "scales", "zero_point"))
    spec = QuantSpec(params["bits"], params["group_size"], scale_dtype=scale_dtype(scales))
    return to_operator(QuantizedLinear(codes, scales, zero_point, spec), "packed")


def _block(params: Params, inputs: Arrays, prefix: str = "") -> Block:
    linears = {f"self_attn.{name}": _operator(prefix + name, params, inputs) for name in ATTENTION}
    linears |= {f"mlp.{name}": _operator(prefix + name, params, inputs) for name in MLP}
    return Block({name: inputs[prefix + name] for name in NORMS}, linears)


def _filled_cache(config: ModelConfig, k: F32, v: F32, room: int) -> KVCache:
    """Return a cache of one layer that holds k and v (past, G, D) and has room for more columns."""
    past = len(k)
    cache = new_cache(config, batch=1, capacity=past + room)
    if past == 0:
        return cache
    cache = cache.appended(np.ones((1, past), dtype=np.bool_))
    keys, values = cache.columns(0, past)  # (1, G, past, D), views
    keys[0], values[0] = k.transpose(1, 0, 2), v.transpose(1, 0, 2)
    return cache


def _decoder_block(params: Params, inputs: Arrays) -> Outputs:
    config, x = _config(params), inputs["x"]
    cache = _filled_cache(config, inputs["cache_k"], inputs["cache_v"], len(x))
    context = make_context(config, len(x), cache=cache)
    return {"y": block_forward(x[None], _block(params, inputs), config, context)[0]}


def _decoder(params: Params, inputs: Arrays) -> Decoder:
    layers = params["layers"]
    blocks = [_block(params, inputs, f"layers.{layer}.") for layer in range(layers)]
    config = _config(params, params["vocab_size"], layers)
    head = DenseLinear(inputs["lm_head"])
    return Decoder(config, inputs["embed_tokens"], blocks, inputs["norm"], head)


def _model_logits(params: Params, inputs: Arrays) -> Outputs:
    logits = _decoder(params, inputs).logits(inputs["ids"][None])[0]
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :5]
    return {"logits": logits, "top5": order.astype(np.int64)}


def _model_generate(params: Params, inputs: Arrays) -> Outputs:
    decoder = _decoder(params, inputs)
    tokens = decoder.generate(inputs["ids"], max_new_tokens=params["n_tokens"], pick=greedy)
    return {"tokens": np.array(tokens, dtype=np.int64)}


MODEL_OPS: dict[str, Callable[[Params, Arrays], Outputs]] = {
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "rope": _rope,
    "attention": _attention,
    "gated_mlp": _gated_mlp,
    "decoder_block": _decoder_block,
    "model_logits": _model_logits,
    "model_generate": _model_generate,
}
