"""How far a model's predictions are from another's: the Kullback-Leibler divergence, position by position.

    token_divergences   logits of two models -> nats per position
    kl_divergence       the whole measurement

Perplexity asks how well a model predicts the text; this asks how well it predicts what the original model would
have said. It sees errors that cancel in perplexity, and needs fewer tokens to see small ones.
Source: docs/equations.md#eval-2.
"""

import numpy as np

from awq_ref.checks import require_finite, require_shape
from awq_ref.dtypes import F32, F64, I64
from awq_ref.errors import ShapeError
from awq_ref.report.perplexity import (
    LanguageModel,
    Window,
    logit_rows,
    require_text,
    score_windows,
    scored_states,
    window_batches,
)
from awq_ref.report.progress import progress


def _shifted(logits: F32) -> tuple[F32, F32, F64]:
    """Return l - max(l), its exponentials, and the logarithm of their sum: (n, vocab_size) twice, (n,)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return shifted, exponentials, np.log(exponentials.sum(axis=-1, dtype=np.float64))


def token_divergences(reference: F32, logits: F32) -> F64:
    """Return the divergence of softmax(logits) from softmax(reference) per row, in nats.

    Equation [EVAL-2]  D_t = sum_v p_tv (log p_tv - log q_tv),   p_t = softmax(a_t),  q_t = softmax(b_t)
        a -> reference    (n, vocab_size) float32
        b -> logits       (n, vocab_size) float32
    Source: Kullback and Leibler 1951; docs/equations.md#eval-2.

    Parameters
    ----------
    reference, logits : float32 arrays, shape (n, vocab_size), finite

    Returns
    -------
    divergences : float64 array, shape (n,)
        At least 0 up to rounding (docs/numerics.md); exactly 0 where the two rows are the same bits.

    Raises
    ------
    ShapeError
        If the shapes differ.

    Notes
    -----
    Numerics: differences and exponentials in float32, each row's sums in float64. log p_v - log q_v is formed as
    (a_v - b_v) - (log sum exp a - log sum exp b): no logarithm of a number that has become 0.

    Examples
    --------
    >>> fair, sure = np.float32([[0.0, 0.0]]), np.float32([[0.0, -np.log(3.0)]])
    >>> token_divergences(fair, sure).round(6).tolist()  # 1/2 log(2/3) + 1/2 log(2)
    [0.143841]
    """
    require_shape("token_divergences", "reference", reference, (None, None))
    require_shape("token_divergences", "logits", logits, reference.shape)
    a, weights, log_sum_a = _shifted(reference)
    b, _, log_sum_b = _shifted(logits)
    a -= b  # (n, vocab_size): now a - b
    a *= weights
    mean: F64 = a.sum(axis=-1, dtype=np.float64) / weights.sum(axis=-1, dtype=np.float64)  # (n,)
    return mean - log_sum_a + log_sum_b


def _batch_divergence(
    reference: LanguageModel, model: LanguageModel, token_ids: I64, batch: list[Window]
) -> float:
    """Return the summed divergence of the positions that the windows of a batch score."""
    expected = scored_states(reference, token_ids, batch)  # (n_scored, hidden_size)
    hidden = scored_states(model, token_ids, batch)  # (n_scored, hidden_size)
    total = 0.0
    rows = logit_rows(model.vocab_size)
    for first in range(0, len(hidden), rows):
        wanted = reference.head(expected[first : first + rows])  # (rows, vocab_size)
        logits = model.head(hidden[first : first + rows])  # (rows, vocab_size)
        require_finite("kl_divergence", "the reference's logits", wanted)
        require_finite("kl_divergence", "the model's logits", logits)
        total += float(token_divergences(wanted, logits).sum())
    return total


def kl_divergence(
    reference: LanguageModel,
    model: LanguageModel,
    token_ids: I64,
    *,
    seq_len: int,
    batch_tokens: int = 4096,
    shown: bool | None = None,
) -> float:
    """Measure how far a model's predictions of a text are from those of a reference.

    Equation [EVAL-2]  KL = mean_t(D_t), t over all tokens but the first
    Source: docs/equations.md#eval-2.

    Parameters
    ----------
    reference, model : LanguageModel
        Anything with `hidden` and `head`. The order matters: the reference's probabilities are the weights.
    token_ids : int64 array, shape (n_tokens,)
    seq_len : int
        Tokens of context that a window holds, at most. Windows do not overlap.
    batch_tokens : int
        Tokens that go through each model at a time.
    shown : bool, optional
        Draw a progress bar; by default on a terminal only.

    Returns
    -------
    kl : float
        Nats per token. At least 0 up to rounding; exactly 0 for the same model.

    Raises
    ------
    ShapeError
        If token_ids is not 1-D, or the two vocabularies differ in size.
    CorpusError
        If there are fewer than two tokens.
    RangeError
        If seq_len is less than 1, or logits are not finite.

    Notes
    -----
    Memory: the logits of both models for a batch of rows, LOGIT_BYTES each, and their temporaries.
    Numerics: see `token_divergences`; the sum over tokens is in float64.
    """
    require_text("kl_divergence", token_ids)
    if reference.vocab_size != model.vocab_size:
        raise ShapeError(
            f"kl_divergence: both models must have one vocabulary; got {reference.vocab_size} and "
            f"{model.vocab_size} tokens. Compare a model with the one that it was made from."
        )
    windows = score_windows(len(token_ids), seq_len=seq_len, stride=seq_len)
    batches = list(window_batches(windows, batch_tokens))
    total = 0.0
    for batch in progress(batches, total=len(batches), label="divergence", unit="batch", shown=shown):
        total += _batch_divergence(reference, model, token_ids, batch)
    return total / (len(token_ids) - 1)
