"""The key-value cache: what the tokens read so far have left behind for the ones to come.

    KVCache     a record: buffers of a fixed capacity, and how many columns of them are filled
    new_cache   an empty one

A cache is a value: `Decoder.forward` takes one and returns the next one, which shares its buffers and is
longer. The old one still describes the shorter text, so a text may be continued twice from one cache, one
continuation after the other.
"""

from dataclasses import dataclass, replace

import numpy as np

from awq_ref.checks import require_between
from awq_ref.dtypes import F32, Bool
from awq_ref.errors import RangeError
from awq_ref.model.config import ModelConfig


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer; columns [0, length) are filled.

    keys, values : float32, (layers, batch, kv_heads, capacity, head_dim); keys are already turned by rope
    valid        : bool, (batch, capacity); False marks a column that is padding
    length       : columns filled, padding included
    """

    keys: F32
    values: F32
    valid: Bool
    length: int = 0

    @property
    def batch(self) -> int:
        return int(self.valid.shape[0])

    @property
    def capacity(self) -> int:
        return int(self.valid.shape[1])

    @property
    def resident_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes + self.valid.nbytes

    @property
    def shortest(self) -> int:
        """The shortest length above 0 that `truncated` can go back to."""
        return 1

    def truncated(self, length: int) -> "KVCache":
        """Return the cache of the text's first columns, to continue it otherwise; nothing is freed.

        Raises
        ------
        RangeError
            If length lies outside [0, the cache's own].
        """
        require_between("KVCache.truncated", "length", length, 0, self.length)
        return replace(self, length=length)

    def appended(self, valid: Bool) -> "KVCache":
        """Return the cache longer by some columns, whose keys and values the caller is about to write.

        Parameters
        ----------
        valid : bool array, shape (batch, new columns)
            False marks padding.

        Raises
        ------
        RangeError
            If the columns do not fit.
        """
        length = self.length + valid.shape[1]
        if length > self.capacity:
            raise RangeError(
                f"KVCache: length must stay within capacity={self.capacity}; got {self.length} columns filled, "
                f"{valid.shape[1]} new ones. Make a larger cache with new_cache."
            )
        self.valid[:, self.length : length] = valid
        return replace(self, length=length)


def new_cache(config: ModelConfig, *, batch: int, capacity: int | None = None) -> KVCache:
    """Return an empty cache for `capacity` tokens of `batch` texts; for the model's context when left out.

    Raises
    ------
    RangeError
        If batch or capacity is below 1, or capacity exceeds the model's context.
    """
    require_between("new_cache", "batch", batch, 1, 2**31)
    size = config.max_position_embeddings if capacity is None else capacity
    require_between("new_cache", "capacity", size, 1, config.max_position_embeddings)
    shape = (config.num_hidden_layers, batch, config.num_key_value_heads, size, config.head_dim)
    keys, values = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    return KVCache(keys, values, np.zeros((batch, size), dtype=np.bool_))
