"""How far a model's predictions are from another's: the Kullback-Leibler divergence, position by position.

kl_divergence   the whole measurement
"""

import numpy as np

from awq_ref.dtypes import F32, F64, I64
from awq_ref.report.perplexity import LOGIT_BYTES, LanguageModel, _batches, score_windows


def _log_probabilities(logits: F32) -> F64:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log_probabilities: F64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probabilities


def kl_divergence(
    reference: LanguageModel,
    model: LanguageModel,
    token_ids: I64,
    *,
    seq_len: int,
    shown: bool | None = None,
) -> float:
    """Return mean_t sum_v p_tv (log p_tv - log q_tv) in nats per token; p is the reference's, q the model's."""
    windows = score_windows(len(token_ids), seq_len=seq_len, stride=seq_len)
    rows = max(1, LOGIT_BYTES // (8 * model.vocab_size))
    total = 0.0
    for batch in _batches(windows, 4096):
        ids = np.stack([token_ids[w.start : w.stop] for w in batch])  # (batch, tokens)
        expected = np.concatenate(list(reference.hidden(ids)))  # (batch * tokens, hidden_size)
        hidden = np.concatenate(list(model.hidden(ids)))  # (batch * tokens, hidden_size)
        for first in range(0, len(hidden), rows):
            wanted = _log_probabilities(reference.head(expected[first : first + rows]))
            got = _log_probabilities(model.head(hidden[first : first + rows]))
            total += float((np.exp(wanted) * (wanted - got)).sum())
    return total / (len(token_ids) - 1)
