"""How much there is to compute and to move: the two sides of a roofline, counted from shapes.

Work          operations and bytes; their ratio is the arithmetic intensity
linear_work   one linear for some tokens
decode_step   a decoder that generates one token in every sequence of a batch
"""

from typing import NamedTuple

from awq_ref.model import ModelConfig, block_linear_shapes
from awq_ref.report.memory import bits_per_weight, cached_columns, kv_cache_bytes
from awq_ref.spec import QuantSpec

HALF_BYTES = 2  # of a number in 16 bits
HALF_BITS = 16


class Work(NamedTuple):
    """Operations (a multiplication and an addition are two), and bytes that must be read or written."""

    flops: float
    moved: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.moved


def stored_bits(bits: int, in_features: int, group_size: int) -> float:
    """Return the bits of a weight, scales and zero points counted; 16 bits are floats and stand for themselves."""
    if bits == HALF_BITS:
        return float(HALF_BITS)
    return bits_per_weight(QuantSpec(bits=bits, group_size=group_size), in_features)


def linear_work(
    out_features: int, in_features: int, *, tokens: int, weight_bits: float, itemsize: int
) -> Work:
    """Return the work of one linear: every weight is read once, every activation read or written once.

    Examples
    --------
    >>> linear_work(4, 8, tokens=1, weight_bits=16, itemsize=2)  # 2 * 32; 64 bytes of weights, 24 of activations
    Work(flops=64.0, moved=88.0)
    """
    weights = out_features * in_features
    moved = weights * weight_bits / 8 + tokens * (in_features + out_features) * itemsize
    return Work(2.0 * tokens * weights, moved)


def decode_step(config: ModelConfig, *, bits: int, group_size: int, batch: int, context: int) -> Work:
    """Return the work of generating one token in every sequence of a batch.

    The linears of the blocks have the bits given, the head and the cache 16; the cache of every sequence is read
    once, as far as windows reach.
    Activations, norms and the embedding's rows are left out: together less than a thousandth.
    """
    flops = moved = 0.0
    for out_features, in_features in block_linear_shapes(config).values():
        weights = float(out_features * in_features * config.num_hidden_layers)
        flops += 2.0 * batch * weights
        moved += weights * stored_bits(bits, in_features, group_size) / 8
    head = float(config.vocab_size * config.hidden_size)
    flops += 2.0 * batch * head
    moved += head * HALF_BYTES
    # Scores and mixture: a multiplication and an addition each, per query head, channel and token that it sees.
    seen = cached_columns(n_layers=config.num_hidden_layers, capacity=context, windows=config.windows)
    flops += 4.0 * batch * config.num_attention_heads * config.head_dim * seen
    moved += kv_cache_bytes(
        n_layers=config.num_hidden_layers, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
        capacity=context, batch=batch, itemsize=HALF_BYTES, windows=config.windows,
    )  # fmt: skip
    return Work(flops, moved)
