"""How well a model predicts a text: perplexity, with every token counted once.

    score_windows    cut a text into windows with stride; which targets each one scores
    window_batches   neighbouring windows of equal length, to be run together
    scored_states    the hidden states from which a batch's targets are predicted
    logit_rows       how many rows of logits are held at a time
    token_losses     logits, targets -> nats per token
    perplexity       the whole measurement

Source: docs/equations.md#eval-1.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from awq_ref.checks import require_between, require_finite
from awq_ref.dtypes import F32, F64, I64
from awq_ref.errors import CorpusError, ShapeError
from awq_ref.report.progress import progress

LOGIT_BYTES = 64 * 2**20  # the largest block of logits that is held at a time


class LanguageModel(Protocol):
    """What a measurement asks of a model."""

    @property
    def vocab_size(self) -> int: ...

    def hidden(self, token_ids: I64) -> F32:
        """Map ids (batch, seq) to final hidden states (batch, seq, hidden_size)."""

    def head(self, hidden: F32) -> F32:
        """Map hidden states (..., hidden_size) to logits (..., vocab_size)."""


@dataclass(frozen=True)
class Perplexity:
    """One measurement. `nll` is the mean negative log-likelihood in nats per token; perplexity = exp(nll)."""

    nll: float
    n_tokens: int
    n_windows: int
    seq_len: int
    stride: int
    seconds: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll)


@dataclass(frozen=True)
class Window:
    """Inputs ids[start:stop], targets ids[start+1:stop+1], of which the last n_scored count."""

    start: int
    stop: int
    n_scored: int


def score_windows(n_tokens: int, *, seq_len: int, stride: int) -> list[Window]:
    """Cut n_tokens ids into windows so that each token but the first is scored exactly once.

    Raises
    ------
    RangeError
        If seq_len is less than 1, or stride is not in [1, seq_len].

    Examples
    --------
    >>> [(w.start, w.stop, w.n_scored) for w in score_windows(8, seq_len=4, stride=2)]
    [(0, 4, 4), (2, 6, 2), (4, 7, 1)]
    """
    require_between("score_windows", "seq_len", seq_len, 1, math.inf)
    require_between("score_windows", "stride", stride, 1, seq_len)
    windows: list[Window] = []
    scored = 0  # targets 1 ... scored are done
    start = 0
    while scored < n_tokens - 1:
        stop = min(start + seq_len, n_tokens - 1)
        windows.append(Window(start, stop, stop - scored))
        scored = stop
        start += stride
    return windows


def token_losses(logits: F32, targets: I64) -> F64:
    """Return -log softmax(logits)[target] per row, in nats.

    Equation [EVAL-1]  loss_t = log(sum_v exp(l_tv)) - l_t,target
        l      -> logits    (n, vocab_size) float32
        target -> targets   (n,) int64
    Source: docs/equations.md#eval-1.

    Returns
    -------
    losses : float64 array, shape (n,)

    Notes
    -----
    Numerics: exponentials in float32 of differences to the row's maximum, summed in float64.
    """
    top = logits.max(axis=-1, keepdims=True)  # (n, 1)
    sums = np.exp(logits - top).sum(axis=-1, dtype=np.float64)  # (n,)
    chosen = np.take_along_axis(logits, targets[:, None], axis=-1) - top  # (n, 1)
    losses: F64 = np.log(sums) - chosen[:, 0].astype(np.float64)
    return losses


def window_batches(windows: list[Window], tokens: int) -> Iterator[list[Window]]:
    """Group neighbouring windows of equal length, up to a number of tokens."""
    batch: list[Window] = []
    for window in windows:
        length = window.stop - window.start
        if batch and (length != batch[0].stop - batch[0].start or (len(batch) + 1) * length > tokens):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def scored_states(model: LanguageModel, token_ids: I64, batch: list[Window]) -> F32:
    """Return the final hidden states from which the batch's targets are predicted: (n_scored, hidden_size).

    Parameters
    ----------
    model : LanguageModel
    token_ids : int64 array, shape (n_tokens,)
        The whole text.
    batch : list of Window
        Of one length.
    """
    ids = np.stack([token_ids[w.start : w.stop] for w in batch])  # (batch, seq)
    hidden = model.hidden(ids)  # (batch, seq, hidden_size)
    return np.concatenate([hidden[i, len(ids[i]) - w.n_scored :] for i, w in enumerate(batch)])


def logit_rows(vocab_size: int) -> int:
    """Return how many rows of float32 logits stay within LOGIT_BYTES; at least one."""
    return max(1, LOGIT_BYTES // (4 * vocab_size))


def _batch_loss(model: LanguageModel, token_ids: I64, batch: list[Window]) -> float:
    """Return the summed loss of the targets that the windows of a batch score."""
    kept = scored_states(model, token_ids, batch)  # (n_scored, hidden_size)
    targets = np.concatenate([token_ids[w.stop + 1 - w.n_scored : w.stop + 1] for w in batch])
    total = 0.0
    rows = logit_rows(model.vocab_size)
    for first in range(0, len(kept), rows):
        logits = model.head(kept[first : first + rows])
        require_finite("perplexity", "logits", logits)
        total += float(token_losses(logits, targets[first : first + rows]).sum())
    return total


def require_text(who: str, token_ids: I64) -> None:
    """Raise ShapeError or CorpusError unless token_ids are one run of at least two ids."""
    if token_ids.ndim != 1:
        raise ShapeError(f"{who}: token_ids must have one axis; got shape {token_ids.shape}.")
    if len(token_ids) < 2:
        raise CorpusError(
            f"{who}: the text must have at least 2 tokens; got {len(token_ids)}. Use a longer text."
        )


def perplexity(
    model: LanguageModel,
    token_ids: I64,
    *,
    seq_len: int,
    stride: int | None = None,
    batch_tokens: int = 4096,
    shown: bool | None = None,
) -> Perplexity:
    """Measure a model's perplexity on a text.

    Equation [EVAL-1]  perplexity = exp(mean_t(loss_t)), t over all tokens but the first
    Source: docs/equations.md#eval-1.

    Parameters
    ----------
    model : LanguageModel
        Anything with `hidden` and `head`.
    token_ids : int64 array, shape (n_tokens,)
    seq_len : int
        Tokens of context that a window holds, at most.
    stride : int, optional
        Tokens from one window to the next; seq_len (no overlap) when left out. Smaller strides give every token
        more context and cost proportionally more.

    Raises
    ------
    ShapeError
        If token_ids is not 1-D.
    CorpusError
        If there are fewer than two tokens.
    RangeError
        If stride is not in [1, seq_len], or the logits are not finite.

    Notes
    -----
    Numerics: see `token_losses`; the sum over tokens is in float64.
    """
    require_text("perplexity", token_ids)
    stride = seq_len if stride is None else stride
    started = time.perf_counter()
    windows = score_windows(len(token_ids), seq_len=seq_len, stride=stride)
    batches = list(window_batches(windows, batch_tokens))
    total = 0.0
    for batch in progress(batches, total=len(batches), label="perplexity", unit="batch", shown=shown):
        total += _batch_loss(model, token_ids, batch)
    n_scored = len(token_ids) - 1
    seconds = time.perf_counter() - started
    return Perplexity(total / n_scored, n_scored, len(windows), seq_len, stride, seconds)
