"""Grouped-query attention: for each token an average of earlier values, weighted by how keys match its query.

    attention       all queries of a block of tokens
    attend_tile     one tile of it: scores, mask, exponentials, average

No (tokens x tokens) matrix is ever whole: queries are taken a tile at a time, small enough for its scores to
stay in a core's cache, and a tile looks only at the columns up to its last query. The query heads that share
a key-value head are rows of one matrix product with it, so that keys and values are never repeated in memory.

Sources: [1] Vaswani et al. 2017, arXiv:1706.03762, eq. 1; [2] Ainslie et al. 2023, arXiv:2305.13245 (grouped
queries).
"""

import math

import numpy as np

from awq_ref.dtypes import F32
from awq_ref.model.ops import causal_mask, take_exponentials

TILE_SCORES = 2**18  # scores in a tile: 1 MiB of float32
TILE_QUERIES = 256  # more of them would spend more work on columns that the causal mask then hides


def attend_tile(q: F32, k: F32, v: F32, *, causal: F32 | None, padding: F32 | None) -> F32:
    """Return the attention of some queries over all columns up to the last of them.

    Parameters
    ----------
    q : float32 array, shape (..., tokens, R, head_dim)
        The R query heads that share a key-value head, for the last `tokens` of the columns.
    k, v : float32 arrays, shape (..., columns, head_dim)
    causal : float32 array, shape (at least tokens, at least tokens), or None
        From `causal_mask`; None for a single token, which sees all columns.
    padding : float32 array, broadcasts to (..., tokens, R, columns), or None
        Added to the scores.

    Returns
    -------
    mixed : float32 array, shape (..., tokens, R, head_dim)
    """
    *lead, tokens, shared, head_dim = q.shape
    columns = k.shape[-2]
    scaled: F32 = q * (1.0 / math.sqrt(head_dim))
    rows = scaled.reshape(*lead, tokens * shared, head_dim)
    scores: F32 = rows @ k.swapaxes(-1, -2)  # (..., tokens * R, columns)
    by_token = scores.reshape(*lead, tokens, shared, columns)  # a view
    if causal is not None:
        by_token[..., columns - tokens :] += causal[:tokens, None, :tokens]
    if padding is not None:
        by_token += padding
    sums = take_exponentials(scores)  # (..., tokens * R, 1)
    mixed: F32 = scores @ v  # (..., tokens * R, head_dim)
    mixed /= sums
    return mixed.reshape(q.shape)


def attention(q: F32, k: F32, v: F32, *, padding: F32 | None = None) -> F32:
    """Let every query of the last T of S columns attend to the columns up to its own.

    Equation [LLM-3]  o_t = sum_{c <= t} p_tc v_c ,  p_t = softmax_c(q_t . k_c / sqrt(D) + m_c)
        q, k -> q, k       already turned by rope
        v    -> v
        m    -> padding
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; Ainslie et al. 2023, arXiv:2305.13245;
    docs/equations.md#llm-3.

    Parameters
    ----------
    q : float32 array, shape (B, G, T, R, D)
        B texts, G key-value heads, T tokens, R query heads per key-value head, D head_dim.
    k, v : float32 arrays, shape (B, G, S, D), S >= T
        Any strides over B, G and S.
    padding : float32 array, shape (B, S), optional
        0, or a large negative number for a column that is padding (`block.PADDED`).

    Returns
    -------
    mixed : float32 array, shape (B, T, G, R, D)

    Notes
    -----
    Numerics: float32; the average is divided by the sum of the exponentials after it has been summed.
    """
    B, G, T, R, D = q.shape
    S = k.shape[2]
    causal = causal_mask(min(T, TILE_QUERIES)) if T > 1 else None
    if B * G * T * R * S <= TILE_SCORES and T <= TILE_QUERIES:  # a decode step: one product for all heads
        bias = None if padding is None else padding[:, None, None, None, :]
        return attend_tile(q, k, v, causal=causal, padding=bias).transpose(0, 2, 1, 3, 4)
    mixed = np.empty((B, T, G, R, D), dtype=np.float32)
    step = min(TILE_QUERIES, max(1, TILE_SCORES // (R * S)))
    for b, g in np.ndindex(B, G):
        for first in range(0, T, step):
            last = min(first + step, T)
            end = S - T + last  # columns that the tile's last query sees
            bias = None if padding is None else padding[b, :end]
            tile = attend_tile(q[b, g, first:last], k[b, g, :end], v[b, g, :end], causal=causal, padding=bias)
            mixed[b, first:last, g] = tile
    return mixed
