"""Texts that are read in pieces, with a cache: what transformers makes of them.

CUTS                 the pieces
CHANGING             the cases in which that is not the full pass
their_cached         logits of pieces
expected_in_pieces   the logits that are right for CUTS
"""

from typing import Any

import numpy as np
import torch
from parity.cases import theirs

# The cases whose frequencies change while a text grows in the tests: what stands in a cache keeps its old angles there.
CHANGING = ("llama_rope_dynamic", "phi3_longrope")
CUTS = [(0, 20), *((i, i + 1) for i in range(20, 30))]


def their_cached(
    model: Any, ids: np.ndarray, cuts: list[tuple[int, int]], mask: np.ndarray | None = None
) -> np.ndarray:
    """Return the logits of a text, padded where a mask says so, that transformers reads in pieces, with its cache."""
    mask = np.ones(ids.shape, dtype=np.int64) if mask is None else mask
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    cache, pieces = None, []
    for first, last in cuts:
        with torch.no_grad():
            out = model(
                torch.from_numpy(ids[:, first:last]),
                attention_mask=torch.from_numpy(mask[:, :last]),
                position_ids=torch.from_numpy(positions[:, first:last]),
                cache=cache,
                use_cache=True,
            )
        cache = out.cache
        pieces.append(out.logits.numpy())
    return np.concatenate(pieces, axis=1)


def expected_in_pieces(case: str, model: Any, ids: np.ndarray) -> np.ndarray:
    """Return the logits of 30 tokens read in pieces: those of the full pass, but for the CHANGING cases."""
    return their_cached(model, ids, CUTS) if case in CHANGING else theirs(model, ids)
