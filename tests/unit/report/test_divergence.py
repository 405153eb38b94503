"""Divergence between two models: numbers by hand, a scalar loop, and what must hold for any pair."""

import math

import numpy as np
import pytest
from helpers.bigram import Bigram
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.errors import CorpusError, RangeError, ShapeError
from awq_ref.report import perplexity
from awq_ref.report.divergence import kl_divergence, token_divergences


def scalar_divergence(a: list[float], b: list[float]) -> float:
    """sum_v p_v log(p_v / q_v), from the definition, in Python floats."""
    sum_a, sum_b = sum(map(math.exp, a)), sum(map(math.exp, b))
    terms = [(math.exp(x) / sum_a, math.exp(y) / sum_b) for x, y in zip(a, b, strict=True)]
    return sum(p * math.log(p / q) for p, q in terms)


def tolerance(*logits: np.ndarray) -> float:
    """How far float32 may take a divergence of these logits: docs/numerics.md, "A divergence"."""
    spread = max(float(np.ptp(part, axis=-1).max()) for part in logits)
    return 2.0**-23 * (spread + 5.0) * (spread + 3.0)


def test_by_hand():
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2); and the other way round.
    p, q = np.array([[math.log(3.0), 0.0]], dtype=np.float32), np.zeros((1, 2), dtype=np.float32)
    divergences = token_divergences(p, q)
    assert divergences.dtype == np.float64
    assert divergences.shape == (1,)
    assert divergences[0] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=tolerance(p, q))
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert token_divergences(q, p)[0] == pytest.approx(backward, abs=tolerance(p, q))


def test_equals_the_definition(rng):
    a, b = rng.standard_normal((2, 5, 7)).astype(np.float32) * np.float32(3.0)
    wanted = [scalar_divergence(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_allclose(token_divergences(a, b), wanted, rtol=0, atol=tolerance(a, b))


def test_a_constant_added_to_the_logits_changes_nothing():
    a = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)
    b = np.array([[0.5, 2.5, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(token_divergences(a + np.float32(64.0), b), token_divergences(a, b))


def test_large_logits_neither_overflow_nor_take_the_logarithm_of_zero():
    # exp(-1e4) is 0 in every float: p = (1, 0), q = (0, 1), so D = log 1 - log q_0 = 1e4.
    a, b = np.array([[1e4, 0.0]], dtype=np.float32), np.array([[0.0, 1e4]], dtype=np.float32)
    assert token_divergences(a, b).tolist() == [1e4]


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 40), scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0]))
def test_never_negative_beyond_rounding_and_zero_for_the_same_logits(seed, size, scale):
    rng = np.random.default_rng(seed)
    a = (rng.standard_normal((3, size)) * 5.0).astype(np.float32)
    b = a + (rng.standard_normal((3, size)) * scale).astype(np.float32)
    assert (token_divergences(a, b) >= -tolerance(a, b)).all()
    assert token_divergences(a, a).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("seq_len", "batch_tokens", "logit_bytes"), [(4, 9, 2**26), (100, 4096, 1), (7, 1, 60)]
)
def test_a_text_is_the_mean_over_its_positions(rng, monkeypatch, seq_len, batch_tokens, logit_bytes):
    monkeypatch.setattr(perplexity, "LOGIT_BYTES", logit_bytes)  # rows of logits: many, one, two
    a, b = rng.standard_normal((2, 6, 6)).astype(np.float32)
    ids = rng.integers(0, 6, 40)
    found = kl_divergence(Bigram(a), Bigram(b), ids, seq_len=seq_len, batch_tokens=batch_tokens, shown=False)
    assert isinstance(found, float)
    wanted = sum(scalar_divergence(a[t].tolist(), b[t].tolist()) for t in ids[:-1]) / 39
    assert found == pytest.approx(wanted, abs=tolerance(a, b))


def test_a_model_does_not_diverge_from_itself(rng):
    model = Bigram(rng.standard_normal((6, 6)))
    assert kl_divergence(model, model, rng.integers(0, 6, 40), seq_len=8, shown=False) == 0.0


def test_bad_input(rng):
    model, ids = Bigram(np.zeros((4, 4))), np.zeros(9, dtype=np.int64)
    with pytest.raises(ShapeError, match="one vocabulary; got 5 and 4"):
        kl_divergence(Bigram(np.zeros((5, 5))), model, ids, seq_len=4, shown=False)
    with pytest.raises(ShapeError, match="kl_divergence: token_ids must have one axis"):
        kl_divergence(model, model, ids.reshape(3, 3), seq_len=4, shown=False)
    with pytest.raises(CorpusError, match="at least 2 tokens; got 1"):
        kl_divergence(model, model, ids[:1], seq_len=4, shown=False)
    with pytest.raises(RangeError, match="seq_len"):
        kl_divergence(model, model, ids, seq_len=0, shown=False)
    broken = Bigram(np.full((4, 4), np.nan))
    with pytest.raises(RangeError, match="the reference's logits must be finite"):
        kl_divergence(broken, model, ids, seq_len=4, shown=False)
    with pytest.raises(RangeError, match="the model's logits must be finite"):
        kl_divergence(model, broken, ids, seq_len=4, shown=False)
    with pytest.raises(ShapeError, match="logits must have shape"):
        token_divergences(np.zeros((1, 2), dtype=np.float32), np.zeros((1, 3), dtype=np.float32))
