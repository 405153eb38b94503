"""The decoder's equations [LLM-1] to [LLM-12] as loops over scalars, each result with a bound on float32's error.

Written from docs/equations.md: no array operation, nothing of `awq_ref` but the record that holds the sizes. A text is
a list of tokens, a token a list of Bounded; there is no batch, no cache, no tile and no padding.
"""

import math
from typing import Any, NamedTuple

from helpers.bounded import Bounded, dot, rounded, total
from helpers.scalar_oracles_experts import mixture
from helpers.scalar_oracles_older import NAMES, alibi, clipped, gelu, loaded, relu
from helpers.scalar_oracles_rope import frequencies

from awq_ref.model import ModelConfig

Vector = list[Bounded]
Matrix = list[Vector]


class Places(NamedTuple):
    """The norms of one layer of an architecture, by where they stand; "" where there is none."""

    before_attention: str = "input_layernorm"
    after_attention: str = ""
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str = ""
    heads: bool = False  # q_norm and k_norm are of single heads, not of all at once
    of_the_stream: tuple[str, str] = ("", "")  # when attention, when the MLP has been added


PLACES = {
    "olmo2": Places("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "gemma2": Places(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "gemma3_text": Places(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
        heads=True,
    ),
    "glm4": Places(after_attention="post_self_attn_layernorm", after_mlp="post_mlp_layernorm"),
    "qwen3": Places(heads=True),
    "qwen3_moe": Places(heads=True),
    **dict.fromkeys(("cohere", "phi", "falcon"), Places(before_mlp="of the attention")),
    "opt_post_norm": Places("", "", "", "", of_the_stream=("input_layernorm", "post_attention_layernorm")),
}
LAYER_NORMS = ("stablelm", "starcoder2", "cohere", *NAMES)
PARALLEL = ("cohere", "phi", "falcon", "falcon_two_norms", "gpt_neox")
NEIGHBOURS = ("cohere", "glm4")


def rms_norm(x: Vector, weight: Vector, eps: float) -> Vector:
    mean_square = dot(x, x) / Bounded(len(x))
    root = (mean_square + rounded(eps)).sqrt()
    return [a / root * g for a, g in zip(x, weight, strict=True)]


def layer_norm(x: Vector, weight: Vector, eps: float) -> Vector:
    """[LLM-9], without a bias."""
    mean = total(x) / Bounded(len(x))
    return rms_norm([a - mean for a in x], weight, eps)


def any_norm(x: Vector, config: ModelConfig, tensors: dict[str, Any], name: str) -> Vector:
    """The norm of an architecture, with its bias if it has one."""
    kind = layer_norm if config.model_type in LAYER_NORMS else rms_norm
    y = kind(x, tensors[f"{name}.weight"], config.rms_norm_eps)
    bias = tensors.get(f"{name}.bias")
    return y if bias is None else [a + b for a, b in zip(y, bias, strict=True)]


def silu(x: Bounded) -> Bounded:
    return x / (Bounded(1.0) + (-x).exp())


def gelu_tanh(x: Bounded) -> Bounded:
    cubic = x * (Bounded(1.0) + rounded(0.044715) * (x * x))
    return Bounded(0.5) * x * (Bounded(1.0) + (rounded(math.sqrt(2 / math.pi)) * cubic).tanh())


ACTIVATIONS = {
    "silu": silu,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu": gelu,
    "relu": relu,
}


def soft_cap(x: Bounded, cap: float) -> Bounded:
    """[LLM-6]; no cap for 0."""
    return (x / rounded(cap)).tanh() * rounded(cap) if cap else x


def softmax_parts(scores: Vector) -> Vector:
    """exp(score - maximum). Any shift gives the same softmax, so the one used counts as exact."""
    top = max(scores, key=lambda s: s.value)
    return [(s - Bounded(top.value)).exp() for s in scores]


def softmax(scores: Vector) -> Vector:
    parts = softmax_parts(scores)
    return [p / total(parts) for p in parts]


def turn(
    x: Vector, position: int, freqs: list[float], *, neighbours: bool = False, factor: float = 1.0
) -> Vector:
    """[LLM-2], half-split or of neighbours, of as many channels as there are angles for, times a factor [LLM-14]."""
    half = len(freqs)
    if neighbours:  # the same with the even channels first
        turning, still = x[: 2 * half], x[2 * half :]
        turned = turn(turning[::2] + turning[1::2], position, freqs, factor=factor)
        return [turned[i // 2 + half * (i % 2)] for i in range(2 * half)] + still
    first, second = [], []
    for i in range(half):
        angle = position * freqs[i]
        cos, sin = rounded(factor * math.cos(angle)), rounded(factor * math.sin(angle))
        first.append(x[i] * cos - x[i + half] * sin)
        second.append(x[i + half] * cos + x[i] * sin)
    return first + second + x[2 * half :]


def attend(
    q: Vector, keys: Matrix, values: Matrix, *, scale: float, cap: float = 0.0, bias: Vector | None = None
) -> Vector:
    """[LLM-3] for one query of one head over the columns that it sees; bias: what is added to their scores."""
    a = rounded(scale)
    scores = [soft_cap(dot([x * a for x in q], k), cap) for k in keys]
    parts = softmax_parts(scores if bias is None else [s + b for s, b in zip(scores, bias, strict=True)])
    sums = total(parts)
    return [dot(parts, [v[d] for v in values]) / sums for d in range(len(q))]


def linear(x: Vector, tensors: dict[str, Any], name: str) -> Vector:
    y = [dot(x, row) for row in tensors[f"{name}.weight"]]
    bias = tensors.get(f"{name}.bias")
    return y if bias is None else [a + b for a, b in zip(y, bias, strict=True)]


def heads(x: Vector, head_dim: int) -> Matrix:
    return [x[i : i + head_dim] for i in range(0, len(x), head_dim)]


def query_key_norm(x: Vector, config: ModelConfig, tensors: dict[str, Any], name: str) -> Vector:
    """[LLM-7]: of each head or of all of them; x itself in architectures without."""
    weight = tensors.get(f"{name}.weight")
    if weight is None:
        return x
    whole = not PLACES.get(config.model_type, Places()).heads
    parts = [x] if whole else heads(x, config.head_dim)
    return [a for part in parts for a in rms_norm(part, weight, config.rms_norm_eps)]


def scale_of(config: ModelConfig, layer: int = 0) -> float:
    scale = config.attention_multiplier or (config.query_pre_attn_scalar or config.head_dim) ** -0.5
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale


def attention_block(
    stream: Matrix, config: ModelConfig, tensors: dict[str, Any], prefix: str, *, window: int = 0
) -> Matrix:
    D, shared = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    layer = int(prefix.split(".")[-2])
    rope = config.window_rope if window and config.window_rope else config.rope
    freqs = frequencies(rope, D, len(stream)) if not config.rope_layers or config.rope_layers[layer] else []
    at = f"{prefix}self_attn."
    q, k, v = ([linear(x, tensors, f"{at}{n}_proj") for x in stream] for n in ("q", "k", "v"))
    if config.clip_qkv:
        q, k, v = ([clipped(x, config.clip_qkv) for x in part] for part in (q, k, v))
    q, k = (
        [query_key_norm(x, config, tensors, f"{at}{n}_norm") for x in part]
        for n, part in (("q", q), ("k", k))
    )
    q, k, v = ([heads(x, D) for x in part] for part in (q, k, v))
    near = config.model_type in NEIGHBOURS
    q, k = (
        [
            [turn(h, t, freqs, neighbours=near, factor=rope.attention_factor) for h in token]
            for t, token in enumerate(part)
        ]
        for part in (q, k)
    )
    out = []
    for t in range(len(stream)):
        mixed: Vector = []
        seen = range(max(0, t - window + 1) if window else 0, t + 1)  # [LLM-5]
        for h in range(config.num_attention_heads):
            keys, values = ([part[c][h // shared] for c in seen] for part in (k, v))
            cap, bias = config.attn_logit_softcapping, alibi(config, h, t)
            mixed += attend(q[t][h], keys, values, scale=scale_of(config, layer), cap=cap, bias=bias)
        out.append(linear(mixed, tensors, f"{at}o_proj"))
    return out


# family -> router, and gate, up, down of an expert
EXPERTS = {
    "mixtral": ("block_sparse_moe.gate", "block_sparse_moe.experts.{}.", ("w1", "w3", "w2")),
    "qwen3_moe": ("mlp.gate", "mlp.experts.{}.", ("gate_proj", "up_proj", "down_proj")),
}


def mlp_of(x: Vector, config: ModelConfig, tensors: dict[str, Any], prefix: str) -> Vector:
    """The MLP of a layer, or [LLM-15] where the layer has a router."""
    router, expert, names = EXPERTS.get(config.model_type, ("", "", ()))
    if f"{prefix}{router}.weight" not in tensors:
        return mlp(x, tensors, prefix, act=config.hidden_act)

    def one(e: int, x: Vector) -> Vector:
        gate, up, down = (f"{prefix}{expert.format(e)}{name}" for name in names)
        pairs = zip(linear(x, tensors, gate), linear(x, tensors, up), strict=True)
        return linear([ACTIVATIONS[config.hidden_act](g) * u for g, u in pairs], tensors, down)

    return mixture(x, linear(x, tensors, f"{prefix}{router}"), one, config)


def mlp(x: Vector, tensors: dict[str, Any], prefix: str, *, act: str = "silu") -> Vector:
    """[LLM-4]."""
    if f"{prefix}mlp.c_fc.weight" in tensors:
        active = [ACTIVATIONS[act](u) for u in linear(x, tensors, f"{prefix}mlp.c_fc")]
        return linear(active, tensors, f"{prefix}mlp.c_proj")
    gate, up = (linear(x, tensors, f"{prefix}mlp.{n}_proj") for n in ("gate", "up"))
    gated = [ACTIVATIONS[act](g) * u for g, u in zip(gate, up, strict=True)]
    return linear(gated, tensors, f"{prefix}mlp.down_proj")


def added(stream: Matrix, more: Matrix) -> Matrix:
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(stream, more, strict=True)]


def block(
    stream: Matrix, config: ModelConfig, tensors: dict[str, Any], prefix: str, *, window: int = 0
) -> Matrix:
    places = PLACES.get(config.model_type, Places())

    def norm(name: str, xs: Matrix) -> Matrix:
        return xs if not name else [any_norm(x, config, tensors, f"{prefix}{name}") for x in xs]

    def branch(xs: Matrix) -> Matrix:
        """[LLM-8]."""
        factor = config.residual_multiplier
        return xs if factor == 1.0 else [[a * rounded(factor) for a in x] for x in xs]

    entered = norm(places.before_attention, stream)
    y = attention_block(entered, config, tensors, prefix, window=window)
    before, stream = stream, added(stream, branch(norm(places.after_attention, y)))
    stream = norm(places.of_the_stream[0], stream)
    if places.before_mlp == "of the attention":
        read = entered
    else:
        read = norm(places.before_mlp, before if config.model_type in PARALLEL else stream)
    y = [mlp_of(x, config, tensors, prefix) for x in read]
    return norm(places.of_the_stream[1], added(stream, branch(norm(places.after_mlp, y))))


def logits(token_ids: list[int], config: ModelConfig, arrays: dict[str, Any]) -> Matrix:
    """The logits of every token of one text, from the arrays of a float32 checkpoint."""
    tensors = loaded(config, arrays)
    table = tensors["model.embed_tokens.weight"]
    factor = config.embedding_multiplier
    stream = [table[i] if factor == 1.0 else [a * rounded(factor) for a in table[i]] for i in token_ids]
    if "project_in.weight" in tensors:
        stream = [linear(x, tensors, "project_in") for x in stream]
    if "positions.weight" in tensors:  # [LLM-12]; OPT's first position has row 2
        first = 2 if config.model_type.startswith("opt") else 0
        stream = added(stream, tensors["positions.weight"][first : first + len(stream)])
    if "embed_norm.weight" in tensors:
        stream = [any_norm(x, config, tensors, "embed_norm") for x in stream]
    for layer in range(config.num_hidden_layers):
        stream = block(
            stream, config, tensors, f"model.layers.{layer}.", window=(config.windows or (0,) * 99)[layer]
        )
    if "model.norm.weight" in tensors:
        stream = [any_norm(x, config, tensors, "model.norm") for x in stream]
    if "project_out.weight" in tensors:
        stream = [linear(x, tensors, "project_out") for x in stream]
    head = table if config.tie_word_embeddings else tensors["lm_head.weight"]
    tensors["head.weight"], tensors["head.bias"] = head, tensors.get("lm_head.bias")
    scaled = [linear(x, tensors, "head") for x in stream]
    if config.logits_scaling != 1.0:
        scaled = [[a / rounded(config.logits_scaling) for a in x] for x in scaled]
    if config.logit_scale != 1.0:
        scaled = [[a * rounded(config.logit_scale) for a in x] for x in scaled]
    return [[soft_cap(a, config.final_logit_softcapping) for a in x] for x in scaled]
