"""Perplexity: every token counted once; losses against a scalar loop."""

import math

import numpy as np
import pytest
from helpers.bigram import Bigram

from awq_ref.errors import CorpusError, RangeError, ShapeError
from awq_ref.report.perplexity import perplexity, score_windows, token_losses


def scalar_loss(logits: list[float], target: int) -> float:
    """-log softmax, from the definition, in Python floats."""
    return math.log(sum(math.exp(value) for value in logits)) - logits[target]


def test_token_losses_equal_the_definition(rng):
    logits = rng.standard_normal((5, 7)).astype(np.float32)
    targets = np.array([0, 6, 3, 3, 1], dtype=np.int64)
    losses = token_losses(logits, targets)
    assert losses.dtype == np.float64
    assert losses.shape == (5,)
    wanted = [scalar_loss([float(v) for v in row], int(t)) for row, t in zip(logits, targets, strict=True)]
    # The difference to the maximum and its exponential are rounded to float32: 2 roundings of numbers below 8, and a
    # relative error of about 2 ulp in each term of a sum whose logarithm is taken: below 8 * 2**-23 in all.
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=8 * 2.0**-23)


def test_token_losses_survive_large_logits():
    losses = token_losses(np.array([[1e4, 0.0], [0.0, 1e4]], dtype=np.float32), np.array([0, 0]))
    assert losses.tolist() == [0.0, 1e4]


@pytest.mark.parametrize("n_tokens", [2, 3, 8, 9, 10, 33])
@pytest.mark.parametrize(("seq_len", "stride"), [(1, 1), (4, 4), (4, 1), (4, 3), (50, 50), (50, 7)])
def test_every_token_but_the_first_is_scored_once(n_tokens, seq_len, stride):
    windows = score_windows(n_tokens, seq_len=seq_len, stride=stride)
    scored = [t for w in windows for t in range(w.stop + 1 - w.n_scored, w.stop + 1)]
    assert scored == list(range(1, n_tokens))
    assert all(w.stop - w.start <= seq_len and w.n_scored <= w.stop - w.start for w in windows)


@pytest.mark.parametrize(("seq_len", "stride"), [(4, 4), (5, 2), (100, 100)])
def test_perplexity_of_a_bigram_model_is_exact_for_any_window(rng, seq_len, stride):
    table = rng.standard_normal((6, 6))
    ids = rng.integers(0, 6, 40)
    result = perplexity(Bigram(table), ids, seq_len=seq_len, stride=stride, batch_tokens=9, shown=False)
    rows = table.astype(np.float32).tolist()
    wanted = sum(scalar_loss(rows[a], b) for a, b in zip(ids[:-1], ids[1:], strict=True)) / 39
    assert result.n_tokens == 39
    assert result.nll == pytest.approx(wanted, abs=8 * 2.0**-23)  # as for token_losses
    assert result.perplexity == pytest.approx(math.exp(wanted), rel=1e-6)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(rng):
    result = perplexity(Bigram(np.zeros((8, 8))), rng.integers(0, 8, 20), seq_len=4, shown=False)
    assert result.perplexity == pytest.approx(8.0, rel=1e-12)


def test_bad_input(rng):
    model = Bigram(np.zeros((4, 4)))
    with pytest.raises(ShapeError, match="one axis"):
        perplexity(model, np.zeros((2, 3), dtype=np.int64), seq_len=4, shown=False)
    with pytest.raises(CorpusError, match="at least 2 tokens; got 1"):
        perplexity(model, np.zeros(1, dtype=np.int64), seq_len=4, shown=False)
    with pytest.raises(RangeError, match="stride"):
        perplexity(model, np.zeros(9, dtype=np.int64), seq_len=4, stride=5, shown=False)
    with pytest.raises(RangeError, match="seq_len"):
        perplexity(model, np.zeros(9, dtype=np.int64), seq_len=0, stride=1, shown=False)
    with pytest.raises(RangeError, match="logits must be finite; got nan"):
        perplexity(Bigram(np.full((4, 4), np.nan)), np.zeros(9, dtype=np.int64), seq_len=4, shown=False)
