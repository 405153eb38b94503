"""A Llama-like block small enough to think about, written from the architecture, not from the package.

make_block      weights, norms and inputs of a block, seeded
block_sites     what every linear layer reads when the block runs
attention, mlp  the two modules, from their (normed) input
block_output    both, with residual connections

No rope: the search does not see it. Works in the dtype of its arguments, so a test can run it in float64.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class ToyBlock:
    """weights and norms by Hugging Face's names, inputs x (windows, seq, hidden)."""

    weights: dict
    norms: dict
    x: np.ndarray
    n_heads: int
    n_kv_heads: int

    @property
    def head_dim(self):
        return self.weights["self_attn.v_proj"].shape[0] // self.n_kv_heads


def make_block(seed=0, *, hidden=32, inner=48, n_heads=4, n_kv_heads=2, windows=4, seq=24, outliers=3):
    rng = np.random.default_rng(seed)
    kv = hidden // n_heads * n_kv_heads
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    weights = {
        name: rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()
    }
    norms = {}
    for name in ("input_layernorm", "post_attention_layernorm"):
        norm = rng.uniform(0.5, 1.5, hidden)
        norm[rng.choice(hidden, outliers, replace=False)] *= 20.0
        norms[name] = norm.astype(np.float16).astype(np.float32)
    x = rng.normal(0, 1, (windows, seq, hidden)).astype(np.float32)
    return ToyBlock(weights, norms, x, n_heads, n_kv_heads)


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True)) * weight


def mix(x, weights, n_heads, n_kv_heads):
    """What o_proj reads: softmax(q k^T) v, causal, heads side by side."""
    q, k, v = (x @ weights[f"self_attn.{name}_proj"].T for name in "qkv")
    size = v.shape[-1] // n_kv_heads
    causal = np.tril(np.ones((x.shape[1], x.shape[1]), dtype=bool))
    heads = []
    for h in range(n_heads):
        g = h // (n_heads // n_kv_heads)
        scores = q[..., h * size : (h + 1) * size] @ k[..., g * size : (g + 1) * size].swapaxes(-1, -2)
        scores = np.where(causal, scores * size**-0.5, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heads.append(p / p.sum(axis=-1, keepdims=True) @ v[..., g * size : (g + 1) * size])
    return np.concatenate(heads, axis=-1)


def attention(x, weights, n_heads, n_kv_heads):
    return mix(x, weights, n_heads, n_kv_heads) @ weights["self_attn.o_proj"].T


def gated(x, weights):
    """What down_proj reads."""
    gate = x @ weights["mlp.gate_proj"].T
    return gate / (1.0 + np.exp(-gate)) * (x @ weights["mlp.up_proj"].T)


def mlp(x, weights):
    return gated(x, weights) @ weights["mlp.down_proj"].T


def block_output(block, weights, norms, x):
    x = x + attention(rms_norm(x, norms["input_layernorm"]), weights, block.n_heads, block.n_kv_heads)
    return x + mlp(rms_norm(x, norms["post_attention_layernorm"]), weights)


def block_sites(block):
    """Site -> (tokens, in_features): the inputs on the float block, float32."""
    weights, norms, x = block.weights, block.norms, block.x
    first = rms_norm(x, norms["input_layernorm"])
    mixed = mix(first, weights, block.n_heads, block.n_kv_heads)
    x = x + mixed @ weights["self_attn.o_proj"].T
    second = rms_norm(x, norms["post_attention_layernorm"])
    sites = {
        "self_attn.qkv": first,
        "self_attn.o": mixed,
        "mlp.gate_up": second,
        "mlp.down": gated(second, weights),
    }
    return {site: value.astype(np.float32).reshape(-1, value.shape[-1]) for site, value in sites.items()}
