"""The decoder's equations [LLM-1] to [LLM-4] as loops over scalars, each result with a bound on float32's error.

Written from docs/equations.md: no array operation, nothing of `awq_ref` but the record that holds the sizes. A text is
a list of tokens, a token a list of Bounded; there is no batch, no cache, no tile and no padding.
"""

import math
from typing import Any

from helpers.bounded import Bounded, dot, exact, rounded, total

from awq_ref.model import ModelConfig, RopeConfig

Vector = list[Bounded]
Matrix = list[Vector]


def rms_norm(x: Vector, weight: Vector, eps: float) -> Vector:
    mean_square = dot(x, x) / Bounded(len(x))
    root = (mean_square + rounded(eps)).sqrt()
    return [a / root * g for a, g in zip(x, weight, strict=True)]


def silu(x: Bounded) -> Bounded:
    return x / (Bounded(1.0) + (-x).exp())


def softmax_parts(scores: Vector) -> Vector:
    """exp(score - maximum). Any shift gives the same softmax, so the one used counts as exact."""
    top = max(scores, key=lambda s: s.value)
    return [(s - Bounded(top.value)).exp() for s in scores]


def softmax(scores: Vector) -> Vector:
    parts = softmax_parts(scores)
    return [p / total(parts) for p in parts]


def frequencies(rope: RopeConfig, head_dim: int) -> list[float]:
    """The angles per position; llama3 by wave length, as its authors put it."""
    result = []
    for i in range(head_dim // 2):
        f = rope.rope_theta ** (-2 * i / head_dim)
        if rope.rope_type == "linear":
            f /= rope.factor
        if rope.rope_type == "llama3":
            length = 2 * math.pi / f
            old, low, high = (
                rope.original_max_position_embeddings,
                rope.low_freq_factor,
                rope.high_freq_factor,
            )
            if length > old / low:
                f /= rope.factor
            elif length > old / high:
                smooth = (old / length - low) / (high - low)
                f = (1 - smooth) * f / rope.factor + smooth * f
        result.append(f)
    return result


def turn(x: Vector, position: int, freqs: list[float]) -> Vector:
    """[LLM-2], half-split."""
    half = len(x) // 2
    first, second = [], []
    for i in range(half):
        cos, sin = rounded(math.cos(position * freqs[i])), rounded(math.sin(position * freqs[i]))
        first.append(x[i] * cos - x[i + half] * sin)
        second.append(x[i + half] * cos + x[i] * sin)
    return first + second


def attend(q: Vector, keys: Matrix, values: Matrix) -> Vector:
    """[LLM-3] for one query of one head over the columns that it sees."""
    scale = rounded(1 / math.sqrt(len(q)))
    parts = softmax_parts([dot([a * scale for a in q], k) for k in keys])
    sums = total(parts)
    return [dot(parts, [v[d] for v in values]) / sums for d in range(len(q))]


def linear(x: Vector, tensors: dict[str, Any], name: str) -> Vector:
    y = [dot(x, row) for row in tensors[f"{name}.weight"]]
    bias = tensors.get(f"{name}.bias")
    return y if bias is None else [a + b for a, b in zip(y, bias, strict=True)]


def heads(x: Vector, head_dim: int) -> Matrix:
    return [x[i : i + head_dim] for i in range(0, len(x), head_dim)]


def attention_block(stream: Matrix, config: ModelConfig, tensors: dict[str, Any], prefix: str) -> Matrix:
    D, shared = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    freqs = frequencies(config.rope, D)
    q, k, v = (
        [heads(linear(x, tensors, f"{prefix}self_attn.{n}_proj"), D) for x in stream] for n in ("q", "k", "v")
    )
    q, k = ([[turn(h, t, freqs) for h in token] for t, token in enumerate(part)] for part in (q, k))
    out = []
    for t in range(len(stream)):
        mixed: Vector = []
        for h in range(config.num_attention_heads):
            g = h // shared
            mixed += attend(q[t][h], [k[c][g] for c in range(t + 1)], [v[c][g] for c in range(t + 1)])
        out.append(linear(mixed, tensors, f"{prefix}self_attn.o_proj"))
    return out


def mlp(x: Vector, tensors: dict[str, Any], prefix: str) -> Vector:
    """[LLM-4]."""
    gate, up = (linear(x, tensors, f"{prefix}mlp.{n}_proj") for n in ("gate", "up"))
    gated = [silu(g) * u for g, u in zip(gate, up, strict=True)]
    return linear(gated, tensors, f"{prefix}mlp.down_proj")


def added(stream: Matrix, more: Matrix) -> Matrix:
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(stream, more, strict=True)]


def block(stream: Matrix, config: ModelConfig, tensors: dict[str, Any], prefix: str) -> Matrix:
    def norm(name: str) -> Matrix:
        return [rms_norm(x, tensors[f"{prefix}{name}.weight"], config.rms_norm_eps) for x in stream]

    stream = added(stream, attention_block(norm("input_layernorm"), config, tensors, prefix))
    return added(stream, [mlp(x, tensors, prefix) for x in norm("post_attention_layernorm")])


def logits(token_ids: list[int], config: ModelConfig, arrays: dict[str, Any]) -> Matrix:
    """The logits of every token of one text, from the arrays of a float32 checkpoint."""
    tensors = {name: exact(array) for name, array in arrays.items()}
    table = tensors["model.embed_tokens.weight"]
    stream = [table[i] for i in token_ids]
    for layer in range(config.num_hidden_layers):
        stream = block(stream, config, tensors, f"model.layers.{layer}.")
    stream = [rms_norm(x, tensors["model.norm.weight"], config.rms_norm_eps) for x in stream]
    head = table if config.tie_word_embeddings else tensors["lm_head.weight"]
    return [[dot(x, row) for row in head] for x in stream]
