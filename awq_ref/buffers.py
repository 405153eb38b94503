"""Memory that is used again and again.

    scratch             arrays in working memory of the calling thread, kept from call to call
    keep_freed_memory   freed arrays stay with the process
    cache_bytes         the size of the cache that the threads share

Fresh pages can cost more than arithmetic: in a virtual machine 2 microseconds for every 4 KiB.
"""

import threading
from functools import lru_cache
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from awq_ref.dtypes import U8

MOST_ARRAYS = 256  # sets of arrays of `scratch` that a thread remembers
LINE = 64  # bytes of a line of the cache: arrays of `scratch` begin a multiple of it apart
KEPT_BYTES = 31 * 2**20  # glibc hands larger blocks back to the system whatever has been freed
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CACHE = 16 * 2**20  # the last cache of a common processor

Wanted: TypeAlias = tuple[tuple[int, ...], type[Any]]


class _Scratch(threading.local):
    """A thread's buffers, by what they are for, and the arrays that were made of them."""

    def __init__(self) -> None:
        self.buffers: dict[str, U8 | None] = {}
        self.arrays: dict[tuple[str, tuple[Wanted, ...]], list[Any]] = {}


_SCRATCH = _Scratch()


def scratch(*wanted: Wanted, use: str = "share") -> list[Any]:
    """Return uninitialized arrays in memory that belongs to the calling thread until it asks again for the same use.

    Parameters
    ----------
    *wanted : (shape, dtype), of the arrays that are needed at the same time
    use : str, what for: who hands work to others keeps memory of his own under another name than theirs
    """
    key = use, wanted
    known = _SCRATCH.arrays.get(key)
    if known is not None:
        return known
    lengths = [prod(shape) * np.dtype(dtype).itemsize for shape, dtype in wanted]
    starts = [0, *accumulate(-(-length // LINE) * LINE for length in lengths)]
    buffer = _SCRATCH.buffers.get(use)
    outgrown = buffer is None or buffer.size < starts[-1]
    if outgrown or len(_SCRATCH.arrays) >= MOST_ARRAYS:
        _SCRATCH.arrays.clear()  # they hold the buffer that is outgrown
    if buffer is None or outgrown:
        buffer = _SCRATCH.buffers[use] = None  # freed before the larger one is made
        buffer = _SCRATCH.buffers[use] = np.empty(starts[-1], dtype=np.uint8)
    _SCRATCH.arrays[key] = [
        buffer[start : start + length].view(dtype).reshape(shape)
        for start, length, (shape, dtype) in zip(starts, lengths, wanted, strict=False)
    ]
    return _SCRATCH.arrays[key]


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let glibc keep freed arrays of up to KEPT_BYTES for those that come next: it does once it has freed one so large.

    Until then an array of some megabytes can get fresh pages at every use.
    """
    np.empty(KEPT_BYTES, dtype=np.uint8)  # made and freed, never touched


@lru_cache(maxsize=1)
def cache_bytes() -> int:
    """Return the bytes of the largest cache of the first processor as Linux tells them; CACHE where nobody does."""
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    return max((int(size[:-1]) * 2**10 for size in sizes if size[-1:] == "K"), default=CACHE)
