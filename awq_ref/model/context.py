"""What a block needs to know beside its input: where the new tokens stand, what is padding, what came before.

Context         a record of it
make_context    the context of some new tokens
"""

from dataclasses import dataclass, replace

import numpy as np

from awq_ref.dtypes import F32, I64, Bool
from awq_ref.model.alibi import Alibi, alibi_bias
from awq_ref.model.cache import KVCache
from awq_ref.model.config import ModelConfig
from awq_ref.model.rope import RopeConfig, rope_frequencies, rope_tables

# Added to the score of a padded column. Finite: a query that sees nothing but padding then averages it, where
# -inf would give NaN.
PADDED = -1e30


@dataclass(frozen=True)
class Context:
    """Where the new tokens stand.

    cos, sin : float32, (batch or 1, tokens, 1, 1, D // 2), of the D channels of a head that rope turns
    near     : the same of layers with a window, where their rope is another one; else None
    padding  : float32, (batch, columns), 0 or PADDED; None where no column is padding
    cache    : already lengthened by the new tokens; None to look at no other tokens than these
    layer    : which layer is meant: its part of the cache, its window
    positions : int64, (batch or 1, tokens), of the new tokens; None: 0, 1, ...
    alibi    : float32, (batch or 1, key-value heads, queries per key, columns), added to scores [LLM-11]; None without
    """

    cos: F32
    sin: F32
    padding: F32 | None
    cache: KVCache | None
    layer: int = 0
    positions: I64 | None = None
    alibi: F32 | None = None
    near: tuple[F32, F32] | None = None

    def at_layer(self, layer: int) -> "Context":
        """Return the same context for another layer."""
        return replace(self, layer=layer)


def _positions(valid: Bool, tokens: int) -> I64:
    """Return the position of each of the last tokens: the number of tokens before it that are no padding."""
    counts = np.cumsum(valid, axis=1, dtype=np.int64)[:, -tokens:] - 1  # (batch, tokens)
    return np.maximum(counts, 0)


def _alibi(config: ModelConfig, alibi: Alibi, columns: int, padding: F32 | None, valid: Bool | None) -> F32:
    """Return what is added to scores, (batch, key-value heads, queries per key, columns)."""
    positions = np.arange(columns, dtype=np.int64)[None]
    if valid is not None and padding is not None:
        positions = _positions(valid, columns)
    bias = alibi_bias(alibi, positions, config.num_attention_heads, scale=config.softmax_scale)
    return bias.reshape(len(positions), config.num_key_value_heads, config.queries_per_key, -1)


def make_context(
    config: ModelConfig,
    tokens: int,
    *,
    attention_mask: Bool | None = None,
    cache: KVCache | None = None,
    length: int = 0,
) -> Context:
    """Return the context of `tokens` new tokens, after those in the cache if there is one.

    Parameters
    ----------
    attention_mask : bool array, shape (batch, tokens), optional
        False marks padding, left or right of the text.
    cache : KVCache, optional
        The returned context holds it, longer by the new tokens.
    length : int
        Of the text, if more of it is about to follow; where rope depends on it [LLM-14].

    Raises
    ------
    RangeError
        If the cache has no room for the tokens, or cannot be continued (`KVCache.appended`).
    """
    valid, before = attention_mask, 0
    if cache is not None:
        before = cache.length
        new = np.ones((cache.batch, tokens), dtype=np.bool_) if attention_mask is None else attention_mask
        cache = cache.appended(new)
        valid = cache.valid
    padding = None
    if valid is None or valid.all():
        positions = np.arange(before, before + tokens, dtype=np.int64)[None]  # (1, tokens)
    else:
        positions = _positions(valid, tokens)
        padding = np.where(valid, np.float32(0.0), np.float32(PADDED))
    length = max(length, int(positions.max()) + 1)

    def tables(rope: RopeConfig) -> tuple[F32, F32]:
        frequencies = rope_frequencies(rope, config.head_dim, length)
        return rope_tables(positions[:, :, None, None], frequencies, rope.attention_factor)

    near = None if config.window_rope is None else tables(config.window_rope)
    alibi = None if config.alibi is None else _alibi(config, config.alibi, before + tokens, padding, valid)
    return Context(*tables(config.rope), padding, cache, near=near, positions=positions, alibi=alibi)
