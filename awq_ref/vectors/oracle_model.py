"""Oracle of levels 5 and 6: the operators of a decoder, one block, a whole model, token by token in plain loops.

    rms_norm, layer_norm, attend, gated_mlp             the operators; rope is in `oracle_rope`
    Sizes, LayerWeights, run_block                      one block, with its cache
    Model, margin, largest                              a whole model; its largest logits, and how clear they are

Every number carries its bound (`awq_ref.vectors.running`). Source: docs/conformance.md#l5-operators.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from awq_ref.vectors.oracle_rope import Rope, rotated
from awq_ref.vectors.running import Bounded, Likely, U, Vector, Weights, dot, exact_row, slack, total

LIKELY = 8.0  # a bound is so many times the likely error: some 14 standard deviations of the roundings


def rms_norm(x: Vector, weight: Sequence[float], eps: float) -> Vector:
    """Return weight * x / sqrt(mean(x^2) + eps)."""
    mean = dot(x, x) / Bounded(float(len(x)))
    root = slack(mean + Bounded(eps, U * eps), 2).sqrt()
    return [slack(xi / root * Bounded(g), 2) for xi, g in zip(x, weight, strict=True)]


def layer_norm(x: Vector, weight: Sequence[float], bias: Sequence[float], eps: float) -> Vector:
    """Return weight * (x - m) / sqrt(mean((x - m)^2) + eps) + bias."""
    mean = total(x) / Bounded(float(len(x)))
    y = rms_norm([xi - mean for xi in x], weight, eps)
    return [yi + Bounded(b) for yi, b in zip(y, bias, strict=True)]


def attend(
    q: Vector, keys: list[Vector], values: list[Vector], scale: float, *, window: int = 0, cap: float = 0.0
) -> Vector:
    """Return what one query head reads from the columns up to its own, which is the last."""
    first = max(0, len(keys) - window) if window else 0
    keys, values = keys[first:], values[first:]
    factor = Bounded(scale, U * scale)
    scores = [dot(q, k) * factor for k in keys]
    if cap:
        scores = [(s / Bounded(cap)).tanh() * Bounded(cap) for s in scores]
    largest = max(scores, key=lambda s: s.value)
    weights = [(s - Bounded(largest.value)).exp() for s in scores]
    weights = [slack(w, 1) for w in weights]
    sums = total(weights)
    return [dot(weights, [v[d] for v in values]) / sums for d in range(len(values[0]))]


def silu(x: Bounded) -> Bounded:
    """Return x / (1 + exp(-x))."""
    return x / (Bounded(1.0) + (-x).exp())


def gelu_tanh(x: Bounded) -> Bounded:
    """Return x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    c = math.sqrt(2.0 / math.pi)
    inner = Bounded(c, U * c) * (x + Bounded(0.044715, U) * x * x * x)
    return Bounded(0.5) * x * (Bounded(1.0) + slack(inner, 2).tanh())


ACTIVATIONS: dict[str, Callable[[Bounded], Bounded]] = {"silu": silu, "gelu_tanh": gelu_tanh}


def gated_mlp(x: Vector, gate: Weights, up: Weights, down: Weights, activation: str) -> Vector:
    """Return down (act(gate x) * (up x))."""
    act = ACTIVATIONS[activation]
    return down([act(g) * u for g, u in zip(gate(x), up(x), strict=True)])


@dataclass(frozen=True)
class Sizes:
    """The sizes and constants of a model."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    theta: float
    eps: float
    pairing: str = "half"
    activation: str = "silu"

    def params(self) -> dict[str, object]:
        """Return them as a request has them."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "theta": self.theta,
            "eps": self.eps,
            "pairing": self.pairing,
            "activation": self.activation,
        }


@dataclass
class Layer:
    """One block: linears and norms by name, and its cache: columns of heads of channels."""

    linears: dict[str, Weights]
    norms: dict[str, list[float]]
    keys: list[list[Vector]] = field(default_factory=list)
    values: list[list[Vector]] = field(default_factory=list)


def _heads(x: Vector, head_dim: int) -> list[Vector]:
    return [x[start : start + head_dim] for start in range(0, len(x), head_dim)]


def run_block(x: Vector, layer: Layer, sizes: Sizes, position: int) -> Vector:
    """Return the stream of one token after a block; its key and value join the cache."""
    linears, dim = layer.linears, sizes.head_dim
    rope = Rope(sizes.theta, dim, sizes.pairing)
    entered = rms_norm(x, layer.norms["input_layernorm"], sizes.eps)
    queries = [rotated(head, position, rope) for head in _heads(linears["q_proj"](entered), dim)]
    layer.keys.append([rotated(head, position, rope) for head in _heads(linears["k_proj"](entered), dim)])
    layer.values.append(_heads(linears["v_proj"](entered), dim))
    mixed: Vector = []
    for h, query in enumerate(queries):
        kv = h // (sizes.heads // sizes.kv_heads)
        keys, values = [column[kv] for column in layer.keys], [column[kv] for column in layer.values]
        mixed += attend(query, keys, values, 1.0 / math.sqrt(dim))
    x = [a + b for a, b in zip(x, linears["o_proj"](mixed), strict=True)]
    normed = rms_norm(x, layer.norms["post_attention_layernorm"], sizes.eps)
    y = gated_mlp(normed, linears["gate_proj"], linears["up_proj"], linears["down_proj"], sizes.activation)
    return [a + b for a, b in zip(x, y, strict=True)]


@dataclass
class Model:
    """A whole model; its layers keep the cache of one text."""

    sizes: Sizes
    embed_tokens: list[list[float]]
    layers: list[Layer]
    norm: list[float]
    lm_head: Weights

    def step(self, token: int, position: int) -> Vector:
        """Return the logits after one more token."""
        x = exact_row(self.embed_tokens[token], Likely)
        for layer in self.layers:
            x = run_block(x, layer, self.sizes, position)
        return self.lm_head(rms_norm(x, self.norm, self.sizes.eps))


def margin(logits: Vector, places: int) -> float:
    """Return how far each of the largest logits is from the next, less LIKELY times what both may be wrong."""
    order = sorted(logits, key=lambda b: -b.value)
    return min(
        a.value - b.value - LIKELY * (a.error + b.error)
        for a, b in zip(order, order[1 : places + 1], strict=False)
    )


def largest(logits: Vector, places: int) -> list[int]:
    """Return the ids of the largest logits, falling."""
    return sorted(range(len(logits)), key=lambda i: -logits[i].value)[:places]
