"""From logits to the next token.

    Sampling          the settings, checked: temperature, top-k, top-p, min-p, repetition penalty
    processed_logits  what the settings make of logits, step by step, as transformers orders the steps
    probabilities     the chances that follow
    pick              draw one id
    sampler           a `pick` with its settings, its own random numbers and what it has seen, for generation loops

Sources: Keskar et al. 2019, arXiv:1909.05858 (repetition penalty); Fan et al. 2018, arXiv:1805.04833 (top-k);
Holtzman et al. 2020, arXiv:1904.09751 (top-p); Nguyen et al. 2024, arXiv:2407.01082 (min-p).
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np

from awq_ref.checks import require_between, require_shape
from awq_ref.dtypes import F32, F64, I64, Bool
from awq_ref.errors import RangeError

LEAST_TEMPERATURE = 1e-30  # the largest float32, divided by it, is still a float64


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature         the logits are divided by it; 0 takes the largest logit, of equals the smallest id
    top_k               keep the top_k largest logits and what equals the last of them; 0 keeps all
    top_p               of those keep the fewest likeliest ones that reach top_p together; 1 keeps all
    min_p               of those keep what is at least min_p times as likely as the likeliest; 0 keeps all
    repetition_penalty  what was seen before: a positive logit is divided by it, a negative one multiplied; 1: none

    A value out of range is a RangeError.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature != 0.0 and not LEAST_TEMPERATURE <= self.temperature <= 1e6:
            raise RangeError(
                f"sampling: temperature must lie in [{LEAST_TEMPERATURE}, 1e6], or be 0; got {self.temperature}."
            )
        require_between("sampling", "top_k", self.top_k, 0, math.inf)
        if not 0.0 < self.top_p <= 1.0:
            raise RangeError(f"sampling: top_p must lie in (0, 1]; got {self.top_p}.")
        require_between("sampling", "min_p", self.min_p, 0.0, 1.0)
        if not 0.0 < self.repetition_penalty <= 1e6:
            raise RangeError(
                f"sampling: repetition_penalty must lie in (0, 1e6]; got {self.repetition_penalty}. 1 is no penalty."
            )


GREEDY = Sampling()


def _require_finite_top(top: float) -> None:
    if not math.isfinite(top):
        raise RangeError(
            f"sampling: logits must be finite; got {top}. Look for NaN or infinity in the weights."
        )


def _softmax(scores: F64) -> F64:
    likely: F64 = np.exp(scores - scores.max())
    likely /= likely.sum()
    return likely


def _penalized(logits: F32, penalty: float, seen: Collection[int]) -> F64:
    """Make tokens that were seen before less likely (more, if penalty is below 1)."""
    scores = logits.astype(np.float64)
    if penalty != 1.0 and len(seen):
        ids = np.fromiter(seen, dtype=np.int64, count=len(seen))
        before = scores[ids]
        scores[ids] = np.where(before < 0, before * penalty, before / penalty)
    return scores


def _kept_by_top_p(likely: F64, top_p: float) -> Bool:
    """Mark the fewest likeliest tokens that reach top_p together; of equals the smaller id first."""
    # What is less likely than this holds at most half of 1 - top_p together: it is never needed, nor sorted.
    order = np.flatnonzero(likely >= (1.0 - top_p) / (2 * len(likely)))
    order = order[np.argsort(-likely[order], kind="stable")]
    before = np.cumsum(likely[order]) - likely[order]  # what the likelier ones have reached without this one
    kept = np.zeros(likely.shape, dtype=np.bool_)
    kept[order[before < top_p]] = True
    kept[order[0]] = True
    return kept


def _survivors(logits: F32, sampling: Sampling, seen: Collection[int]) -> tuple[I64, F64]:
    """Return the ids that no setting drops, ascending, and their processed logits."""
    require_shape("sampling", "logits", logits, (None,))
    _require_finite_top(float(logits.max()))  # the maximum of logits with a NaN is NaN
    scores = _penalized(logits, sampling.repetition_penalty, seen)
    ids = np.arange(len(scores), dtype=np.int64)
    if sampling.temperature == 0.0:
        return ids, scores
    scores /= sampling.temperature
    if 0 < sampling.top_k < len(scores):
        ids = np.flatnonzero(scores >= np.partition(scores, -sampling.top_k)[-sampling.top_k])
        scores = scores[ids]
    if sampling.top_p < 1.0:
        kept = _kept_by_top_p(_softmax(scores), sampling.top_p)
        ids, scores = ids[kept], scores[kept]
    if sampling.min_p > 0.0:
        likely = _softmax(scores)
        kept = likely >= sampling.min_p * likely.max()
        ids, scores = ids[kept], scores[kept]
    return ids, scores


def processed_logits(logits: F32, sampling: Sampling, seen: Collection[int] = ()) -> F64:
    """Return the logits after penalty, temperature, top-k, top-p and min-p, in this order.

    Parameters
    ----------
    logits : float32 array, shape (vocab_size,)
    sampling : Sampling
        At temperature 0 only the penalty is applied.
    seen : collection of int
        The different ids of the text so far, prompt included: what repetition_penalty is for.

    Returns
    -------
    scores : float64 array, shape (vocab_size,)
        -inf where a token was dropped.

    Raises
    ------
    RangeError
        If a logit is NaN or +inf (-inf is a token without a chance).
    ShapeError
        If logits has not one axis.

    Examples
    --------
    >>> processed_logits(np.float32([1, 2, -2]), Sampling(repetition_penalty=2.0), seen={1, 2}).tolist()
    [1.0, 1.0, -4.0]
    """
    ids, scores = _survivors(logits, sampling, seen)
    spread = np.full(len(logits), -math.inf, dtype=np.float64)
    spread[ids] = scores
    return spread


def probabilities(logits: F32, sampling: Sampling, seen: Collection[int] = ()) -> F64:
    """Return what each token's chance is, float64 (vocab_size,) with sum 1; else as `processed_logits`.

    Parameters
    ----------
    logits : float32 array, shape (vocab_size,)
    sampling : Sampling
    seen : collection of int
        Ids that the repetition penalty is for.

    Raises
    ------
    RangeError, ShapeError
        As `processed_logits`; RangeError too if temperature is 0.

    Examples
    --------
    >>> probabilities(np.float32([0, 1, 2]), Sampling(temperature=1.0, top_k=1)).tolist()
    [0.0, 0.0, 1.0]
    """
    if sampling.temperature == 0.0:
        raise RangeError(
            "sampling: temperature must be above 0 for probabilities; got 0. Use pick for the likeliest token."
        )
    ids, scores = _survivors(logits, sampling, seen)
    likely = np.zeros(len(logits), dtype=np.float64)
    likely[ids] = _softmax(scores)
    return likely


def pick(
    logits: F32, rng: np.random.Generator, sampling: Sampling = GREEDY, seen: Collection[int] = ()
) -> int:
    """Draw the next token.

    Parameters
    ----------
    logits : float32 array, shape (vocab_size,)
    rng : numpy.random.Generator
        One number is drawn from it, none when temperature is 0.
    sampling, seen
        As for `processed_logits`.

    Raises
    ------
    RangeError, ShapeError
        As for `processed_logits`.
    """
    ids, scores = _survivors(logits, sampling, seen)
    if sampling.temperature == 0.0:
        return int(ids[np.argmax(scores)])
    steps = np.cumsum(_softmax(scores))
    # steps[-1] is 1 up to rounding; scaling the draw by it keeps the draw below it.
    return int(ids[np.searchsorted(steps, rng.random() * steps[-1], side="right")])


def sampler(
    sampling: Sampling = GREEDY, *, seed: int | np.random.Generator | None = None, prompt: Iterable[int] = ()
) -> Callable[[F32], int]:
    """Return a function from logits to an id; equal seeds give equal texts.

    Parameters
    ----------
    sampling : Sampling
    seed : int or numpy.random.Generator, optional
        A generator goes on where it stands.
    prompt : iterable of int
        The ids of the text so far; repetition_penalty heeds them and every id that the function returns.
    """
    rng = np.random.default_rng(seed)
    seen = {int(token) for token in prompt} if sampling.repetition_penalty != 1.0 else set()

    def pick_next(logits: F32) -> int:
        token = pick(logits, rng, sampling, seen)
        seen.add(token)
        return token

    return pick_next
