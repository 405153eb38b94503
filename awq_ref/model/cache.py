"""The key-value cache: what the tokens read so far have left behind for the ones to come.

    KVCache     a record: how long a text is, and the buffers that know its columns
    new_cache   an empty one
    PAGE        columns by which buffers grow

A cache is a value: `Decoder.forward` takes one and returns the next one, which shares its buffers and is longer. The
old one still describes the shorter text, so a text may be continued twice from one cache, one continuation after the
other; `truncated` goes back further. A continuation overwrites what another one had written behind the same text: a
cache whose columns are gone says so when it is used next.

The buffers of a layer grow with the text. A layer with a window [LLM-5] keeps what its next query sees, and drops
what lies before when it has no room for new columns; docs/decisions.md#cache.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from awq_ref.checks import require_between
from awq_ref.dtypes import F32, I64, AnyArray, Bool
from awq_ref.errors import RangeError
from awq_ref.model.config import ModelConfig

PAGE = 512


@dataclass(frozen=True)
class _Buffers:
    """Keys and values (batch, kv_heads, size, head_dim) of the columns from `first` on; keys are turned by rope."""

    keys: F32
    values: F32
    first: int = 0

    def kept(self, start: int, end: int, size: int) -> "_Buffers":
        """Return new buffers of `size` columns that begin with the columns [start, end) of these."""
        shape = (*self.keys.shape[:2], size, self.keys.shape[3])
        keys, values = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        old = slice(start - self.first, end - self.first)
        keys[:, :, : end - start] = self.keys[:, :, old]
        values[:, :, : end - start] = self.values[:, :, old]
        return _Buffers(keys, values, start)


@dataclass
class _Layer:
    """The buffers of one layer: replaced as one record, so that an interrupt leaves the old ones or the new ones."""

    buffers: _Buffers
    window: int  # 0: its queries see the whole text
    page: int

    def seen_from(self, column: int) -> int:
        """Return the first column that the query at a column sees."""
        return max(0, column - self.window + 1) if self.window else 0

    def reaches(self, column: int) -> bool:
        """Tell whether what the query at a column sees of earlier columns is still here."""
        start = self.seen_from(column)
        return start == column or start >= self.buffers.first

    def make_room(self, length: int, tokens: int, capacity: int) -> None:
        """Make room for new columns behind a text, whose columns that they see stay."""
        start, buffers = self.seen_from(length), self.buffers
        if start == length:  # nothing stays
            start, buffers = length, replace(buffers, first=length)
        if length + tokens - buffers.first > buffers.keys.shape[2]:
            buffers = buffers.kept(start, length, min(length - start + max(self.page, tokens), capacity))
        self.buffers = buffers


def _grown(array: AnyArray, need: int, page: int, capacity: int) -> AnyArray:
    """Return an array whose last axis has room for `need` columns: the same one, or a longer copy."""
    if need <= array.shape[-1]:
        return array
    longer = np.zeros((*array.shape[:-1], min(need + page, capacity)), dtype=array.dtype)
    longer[..., : array.shape[-1]] = array
    return longer


@dataclass
class _Store:
    """What the caches of one text share.

    valid  : bool, (batch, size); False marks a column that is padding
    passes : int64, (size,); the number of the pass that wrote a column
    filled : columns of the latest continuation
    """

    layers: tuple[_Layer, ...]
    valid: Bool
    passes: I64
    page: int
    capacity: int
    filled: int = 0
    last_pass: int = 0

    def append(self, length: int, valid: Bool) -> int:
        """Make room behind a text of this length; return the number of the pass that is about to write."""
        tokens = valid.shape[1]
        end = length + tokens
        self.filled = length  # what stood behind is gone, even if this is interrupted
        for layer in self.layers:
            layer.make_room(length, tokens, self.capacity)
        self.valid = _grown(self.valid, end, self.page, self.capacity)
        self.passes = _grown(self.passes, end, self.page, self.capacity)
        self.last_pass += 1
        self.valid[:, length:end] = valid
        self.passes[length:end] = self.last_pass
        self.filled = end
        return self.last_pass


@dataclass(frozen=True, eq=False)
class KVCache:
    """Keys and values of a text of `length` columns, padding included. Make one with `new_cache`.

    store  : the buffers, shared by all caches that come from one `new_cache`
    length : columns filled
    last   : number of the pass that wrote the last of them
    """

    store: _Store = field(repr=False)
    length: int = 0
    last: int = 0

    @property
    def batch(self) -> int:
        return int(self.store.valid.shape[0])

    @property
    def capacity(self) -> int:
        """Columns that it can hold."""
        return self.store.capacity

    @property
    def valid(self) -> Bool:
        """bool, (batch, length); False marks a column that is padding."""
        return self.store.valid[:, : self.length]

    @property
    def resident_bytes(self) -> int:
        """Bytes of the buffers as they are now, room for columns to come included."""
        buffers = [layer.buffers for layer in self.store.layers]
        kept = sum(each.keys.nbytes + each.values.nbytes for each in buffers)
        return kept + self.store.valid.nbytes + self.store.passes.nbytes

    @property
    def shortest(self) -> int:
        """The shortest length above 0 that `truncated` can go back to; more than 1 if a window has dropped columns."""
        rolled = [layer for layer in self.store.layers if layer.window > 1 and layer.buffers.first]
        return max([1, *(layer.buffers.first + layer.window - 1 for layer in rolled)])

    def _require_current(self) -> None:
        """Raise RangeError if another continuation has overwritten columns of this one."""
        store, length = self.store, self.length
        if length > store.filled or (length and store.passes[length - 1] != self.last):
            raise RangeError(
                f"KVCache: the {length} columns of a cache must be its own; another continuation of the same text has "
                "overwritten some. Finish one continuation before the next, or read the text again into a new_cache."
            )

    def _require_reached(self, length: int, layers: tuple[_Layer, ...]) -> None:
        """Raise RangeError if a window has dropped columns that a token behind this length sees."""
        if not all(layer.reaches(length) for layer in layers):
            raise RangeError(
                f"KVCache: a text must be continued from a length of at least {self.shortest}, or 0, once a layer's "
                f"window has dropped earlier columns; got {length}. Read the text again into a new_cache."
            )

    def appended(self, valid: Bool) -> "KVCache":
        """Return the cache longer by some columns, whose keys and values the caller is about to write.

        Parameters
        ----------
        valid : bool array, shape (batch, new columns)
            False marks padding.

        Raises
        ------
        RangeError
            If the columns do not fit, another continuation has overwritten this cache's columns, or a window has
            dropped some that the new ones see.
        """
        self._require_current()
        self._require_reached(self.length, self.store.layers)
        length = self.length + valid.shape[1]
        if length > self.capacity:
            raise RangeError(
                f"KVCache: length must stay within capacity={self.capacity}; got {self.length} columns filled, "
                f"{valid.shape[1]} new ones. Make a larger cache with new_cache."
            )
        return replace(self, length=length, last=self.store.append(self.length, valid))

    def truncated(self, length: int) -> "KVCache":
        """Return the cache of the text's first columns, to continue it otherwise.

        The result is that of a pass over these columns alone. Nothing is freed.

        Parameters
        ----------
        length : int
            0, or from `shortest` to the cache's own length.

        Raises
        ------
        RangeError
            If the length lies outside, another continuation has overwritten this cache's columns, or a window has
            dropped some that a token behind the length sees.
        """
        require_between("KVCache.truncated", "length", length, 0, self.length)
        self._require_current()
        self._require_reached(length, self.store.layers)
        return replace(self, length=length, last=int(self.store.passes[length - 1]) if length else 0)

    def columns(self, layer: int, tokens: int) -> tuple[F32, F32]:
        """Return keys and values of the columns that the last `tokens` tokens see in a layer.

        Returns
        -------
        keys, values : float32 arrays, shape (batch, kv_heads, columns, head_dim)
            Views; the last `tokens` columns are for the caller to write.

        Raises
        ------
        RangeError
            As for `appended`.
        """
        kept = self.store.layers[layer]
        self._require_current()
        self._require_reached(self.length - tokens, (kept,))
        buffers = kept.buffers
        seen = slice(kept.seen_from(self.length - tokens) - buffers.first, self.length - buffers.first)
        return buffers.keys[:, :, seen], buffers.values[:, :, seen]


def new_cache(
    config: ModelConfig, *, batch: int, capacity: int | None = None, page: int | None = None
) -> KVCache:
    """Return an empty cache for `batch` texts.

    Parameters
    ----------
    capacity : int, optional
        Columns that it can hold; the model's context when left out.
    page : int, optional
        Columns by which the buffers grow, and which a layer with a window keeps room for beside it. When left out:
        PAGE, but with a capacity given, layers without a window have all of it from the start.

    Raises
    ------
    RangeError
        If batch, capacity or page is below 1, or capacity exceeds the model's context.
    """
    require_between("new_cache", "batch", batch, 1, 2**31)
    limit = config.context if capacity is None else capacity
    require_between("new_cache", "capacity", limit, 1, config.context)
    step = min(PAGE if page is None else page, limit)
    require_between("new_cache", "page", step, 1, limit)
    whole = limit if page is None and capacity is not None else step
    layers = []
    for layer in range(config.num_hidden_layers):
        window = config.window(layer)
        size = min(window - 1 + step, whole) if window else whole
        shape = (batch, config.num_key_value_heads, size, config.head_dim)
        keys, values = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        layers.append(_Layer(_Buffers(keys, values), window, step))
    valid = np.zeros((batch, whole), dtype=np.bool_)
    return KVCache(_Store(tuple(layers), valid, np.zeros(whole, dtype=np.int64), step, limit))
