"""Grouped-query attention: for each token an average of earlier values, weighted by how keys match its query.

    attention       all queries of a block of tokens
    attend_tile     one tile of it: scores, mask, exponentials, average
    Scores          what is done to the scores: scale, cap, window
    column_bias     what is added to them

No (tokens x tokens) matrix is ever whole: queries are taken a tile at a time, small enough for its scores to
stay in a core's cache, and a tile looks only at the columns up to its last query, and back to where its first
query's window begins. The query heads that share a key-value head are rows of one matrix product with it, so that
keys and values are never repeated in memory.

Sources: [1] Vaswani et al. 2017, arXiv:1706.03762, eq. 1; [2] Ainslie et al. 2023, arXiv:2305.13245 (grouped
queries).
"""

from dataclasses import dataclass

import numpy as np

from awq_ref.dtypes import F32
from awq_ref.model.ops import SMALL_SCORE, causal_mask, soft_cap, take_exponentials, window_mask
from awq_ref.threads import blas_on_one_thread, default_threads, run_in_shares, run_jobs

TILE_SCORES = 2**19  # scores in a tile: 2 MiB of float32
TILE_QUERIES = 64  # more of them would spend more work on columns that the causal mask then hides
# Numbers in the keys that few queries see: fewer are done before a second thread has started.
THREADED_KEYS = 2**18


@dataclass(frozen=True)
class Scores:
    """What is done to the products of queries and keys before the softmax.

    scale  : they are multiplied by it
    cap    : then capped [LLM-6]; 0 for no cap
    window : columns that a query sees, its own included [LLM-5]; 0 for all
    """

    scale: float
    cap: float = 0.0
    window: int = 0

    def first_column(self, query_column: int) -> int:
        """Return the first column that a query sees."""
        return max(0, query_column - self.window + 1) if self.window else 0


def _are_small(rows: F32, k: F32) -> bool:
    """Tell whether no product of queries (..., rows, D) and keys (..., columns, D) exceeds SMALL_SCORE.

    |q . k| <= |q| |k|. With few queries it would take longer to see than it saves: False.
    """
    if rows.shape[-2] < rows.shape[-1]:
        return False
    largest = np.vecdot(rows, rows).max() * np.vecdot(k, k).max()
    return bool(largest <= SMALL_SCORE**2)


def attend_tile(q: F32, k: F32, v: F32, *, scores: Scores, causal: F32 | None, padding: F32 | None) -> F32:
    """Return the attention of some queries over all columns up to the last of them.

    Parameters
    ----------
    q : float32 array, shape (..., tokens, R, head_dim)
        The R query heads that share a key-value head, for the last `tokens` of the columns.
    k, v : float32 arrays, shape (..., columns, head_dim)
    scores : Scores
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
    scaled: F32 = q * scores.scale
    rows = scaled.reshape(*lead, tokens * shared, head_dim)
    weights: F32 = rows @ k.swapaxes(-1, -2)  # (..., tokens * R, columns)
    if scores.cap:
        soft_cap(weights, scores.cap, out=weights)
    by_token = weights.reshape(*lead, tokens, shared, columns)  # a view
    if causal is not None:
        by_token[..., columns - tokens :] += causal[:tokens, None, :tokens]
    if scores.window and columns > scores.window:
        by_token += window_mask(tokens, columns, scores.window)[:, None]
    if padding is not None:
        by_token += padding
    small = padding is None and _are_small(rows, k)
    sums = take_exponentials(weights, small=small)  # (..., tokens * R, 1)
    mixed: F32 = weights @ v  # (..., tokens * R, head_dim)
    mixed /= sums
    return mixed.reshape(q.shape)


def column_bias(padding: F32 | None, alibi: F32 | None) -> F32 | None:
    """Return what is added to the scores of some columns: padding and ALiBi [LLM-11], which is 0 at the last of them.

    A number added to all scores of a query changes nothing; this one keeps those near the query small, and exact.
    """
    if alibi is None:
        return padding
    bias: F32 = alibi - alibi[..., -1:]
    return bias if padding is None else bias + padding


def attention(
    q: F32, k: F32, v: F32, *, scores: Scores, padding: F32 | None = None, alibi: F32 | None = None
) -> F32:
    """Let every query of the last T of S columns attend to the columns up to its own.

    Equation [LLM-3]  o_t = sum_{c <= t} p_tc v_c ,  p_t = softmax_c(a q_t . k_c + m_c)
        q, k -> q, k       already turned by rope
        v    -> v
        a    -> scores.scale, 1 / sqrt(D) in most models
        m    -> padding, plus alibi
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; Ainslie et al. 2023, arXiv:2305.13245;
    docs/equations.md#llm-3.

    Parameters
    ----------
    q : float32 array, shape (B, G, T, R, D)
        B texts, G key-value heads, T tokens, R query heads per key-value head, D head_dim.
    k, v : float32 arrays, shape (B, G, S, D), S >= T
        Any strides over B, G and S.
    scores : Scores
        Scale, cap [LLM-6] and window [LLM-5].
    padding : float32 array, shape (B, S), optional
        0, or a large negative number for a column that is padding (`context.PADDED`).
    alibi : float32 array, shape (B or 1, G, R, S), optional
        Added to the scores of a column too [LLM-11].

    Returns
    -------
    mixed : float32 array, shape (B, T, G, R, D)

    Notes
    -----
    Tiles of queries and heads are shared among threads; the bits do not depend on how many.
    Numerics: float32; the average is divided by the sum of the exponentials after it has been summed.
    """
    B, G, T, R, _ = q.shape
    columns = k.shape[2] - scores.first_column(k.shape[2] - T)
    few = B * G * T * R * columns <= TILE_SCORES and T <= TILE_QUERIES
    return (_by_heads if few else _by_tiles)(q, k, v, scores, padding, alibi)


def _by_heads(q: F32, k: F32, v: F32, scores: Scores, padding: F32 | None, alibi: F32 | None) -> F32:
    """Attend with few queries, a decode step say: one product for all heads, or for a thread's share of them."""
    B, G, T, R, D = q.shape
    start = scores.first_column(k.shape[2] - T)
    k, v = k[:, :, start:], v[:, :, start:]
    causal = causal_mask(T) if T > 1 else None
    mixed = np.empty((B, T, G, R, D), dtype=np.float32)

    def some_heads(first: int, last: int) -> None:
        heads = slice(first, last)
        bias = column_bias(
            None if padding is None else padding[:, None, None, None, start:],
            None if alibi is None else alibi[:, heads, None, :, start:],
        )
        seen = (k[:, heads], v[:, heads])
        tile = attend_tile(q[:, heads], *seen, scores=scores, causal=causal, padding=bias)
        mixed[:, :, heads] = tile.transpose(0, 2, 1, 3, 4)

    run_in_shares(some_heads, G, n_threads=default_threads() if k.size >= THREADED_KEYS else 1)
    return mixed


def _by_tiles(q: F32, k: F32, v: F32, scores: Scores, padding: F32 | None, alibi: F32 | None) -> F32:
    """Attend tile by tile: some queries of one text, of as many heads as a tile has room for."""
    B, G, T, R, D = q.shape
    S = k.shape[2]
    causal = causal_mask(min(T, TILE_QUERIES)) if T > 1 else None
    mixed = np.empty((B, T, G, R, D), dtype=np.float32)
    step = min(TILE_QUERIES, max(1, TILE_SCORES // (R * S)))

    def columns_of(first: int) -> slice:  # all that the queries of a tile see
        return slice(scores.first_column(S - T + first), S - T + min(first + step, T))

    def one_tile(job: tuple[int, int, slice]) -> None:
        b, first, heads = job
        last, columns = min(first + step, T), columns_of(first)
        bias = column_bias(
            None if padding is None else padding[b, columns],
            None if alibi is None else alibi[b % len(alibi), heads, None, :, columns],
        )
        seen = (k[b, heads, columns], v[b, heads, columns])
        tile = attend_tile(q[b, heads, first:last], *seen, scores=scores, causal=causal, padding=bias)
        mixed[b, first:last, heads] = tile.transpose(1, 0, 2, 3)

    jobs = []
    for first in reversed(range(0, T, step)):  # the last queries see the most
        columns = columns_of(first)
        together = max(1, TILE_SCORES // (R * step * (columns.stop - columns.start)))
        heads = [slice(g, min(g + together, G)) for g in range(0, G, together)]
        jobs += [(b, first, some) for b in range(B) for some in heads]
    with blas_on_one_thread():
        run_jobs(one_tile, jobs, n_threads=default_threads())
    return mixed
