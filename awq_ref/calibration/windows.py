"""Token windows: which pieces of a long text the calibration looks at.

    token_windows     windows of one stream of token ids, spread evenly over it, or drawn with a seed
    llm_awq_windows   the windows of llm-awq: short lines only, joined, then cut

In: token ids, 1-D. Out: int64 (windows, seq_len), windows never overlap.
Source: https://github.com/mit-han-lab/llm-awq, awq/utils/calib_data.py.
"""

from collections.abc import Iterable

import numpy as np

from awq_ref.checks import require_between, require_shape
from awq_ref.dtypes import I64, AnyArray
from awq_ref.errors import CorpusError, DtypeError


def _as_ids(who: str, token_ids: AnyArray) -> I64:
    """Check that the ids are a 1-D array of integers; return them as int64."""
    require_shape(who, "token_ids", token_ids, (None,))
    if not np.issubdtype(token_ids.dtype, np.integer):
        raise DtypeError(f"{who}: token_ids must be integers; got {token_ids.dtype}. Encode the text first.")
    return token_ids.astype(np.int64)


def _require_sizes(who: str, seq_len: int, samples: int) -> None:
    require_between(who, "seq_len", seq_len, 1, 2**31)
    require_between(who, "samples", samples, 1, 2**31)


def token_windows(token_ids: AnyArray, *, seq_len: int, samples: int, seed: int | None = None) -> I64:
    """Cut windows that do not overlap out of one long run of token ids.

    Parameters
    ----------
    token_ids : integer array, shape (tokens,)
    seq_len : int
        Tokens in a window.
    samples : int
        The most windows wanted; a shorter text gives as many as fit.
    seed : int or None
        None: evenly spaced, the first window at the start of the text, the last at its end. A number: drawn
        without replacement from the text's blocks of seq_len tokens, in the order of the text.

    Returns
    -------
    windows : int64 array, shape (n, seq_len), 1 <= n <= samples

    Raises
    ------
    ShapeError
        If token_ids is not 1-D.
    DtypeError
        If token_ids are not integers.
    RangeError
        If seq_len or samples is less than 1.
    CorpusError
        If the text is shorter than one window.

    Examples
    --------
    >>> token_windows(np.arange(10, dtype=np.int64), seq_len=2, samples=3)
    array([[0, 1],
           [4, 5],
           [8, 9]])
    """
    ids = _as_ids("token_windows", token_ids)
    _require_sizes("token_windows", seq_len, samples)
    blocks = len(ids) // seq_len
    if blocks == 0:
        raise CorpusError(
            f"token_windows: the text must have at least seq_len={seq_len} tokens; got {len(ids)}. "
            "Give more text or shorter windows."
        )
    n = min(samples, blocks)
    if seed is None:
        starts = np.arange(n, dtype=np.int64) * (len(ids) - seq_len) // max(n - 1, 1)
    else:
        chosen = np.random.default_rng(seed).permutation(blocks)[:n]
        starts = np.sort(chosen).astype(np.int64) * seq_len
    windows: I64 = ids[starts[:, None] + np.arange(seq_len, dtype=np.int64)]  # (n, seq_len)
    return windows


def llm_awq_windows(lines: Iterable[AnyArray], *, seq_len: int, samples: int) -> I64:
    """Cut windows the way llm-awq does, its losses included.

    Empty lines and lines of more than seq_len tokens are dropped; the first `samples` of the others are
    joined with nothing between them and cut into blocks of seq_len; the tail is dropped. So there are fewer
    windows than samples, and a text of long lines gives none.

    Parameters
    ----------
    lines : iterable of integer arrays, shape (tokens of the line,)
        In the order in which they are to be taken (llm-awq shuffles with seed 42 before).
    seq_len, samples : int
        llm-awq uses 512 and 128.

    Returns
    -------
    windows : int64 array, shape (n, seq_len)

    Raises
    ------
    CorpusError
        If what is kept is shorter than one window.
    """
    _require_sizes("llm_awq_windows", seq_len, samples)
    kept: list[I64] = []
    for line in lines:
        if len(kept) == samples:
            break
        if 0 < len(line) <= seq_len:
            kept.append(_as_ids("llm_awq_windows", line))
    total = sum(len(line) for line in kept)
    if total < seq_len:
        raise CorpusError(
            f"llm_awq_windows: the lines of at most seq_len={seq_len} tokens must add up to one window; got "
            f"{total} tokens in {len(kept)} such lines. Use token_windows, which cuts long lines."
        )
    blocks = total // seq_len
    return np.concatenate(kept)[: blocks * seq_len].reshape(blocks, seq_len)
