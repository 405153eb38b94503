"""From logits to the next token.

    probabilities   logits -> probabilities after temperature, top-k and top-p
    pick            draw one id
    sampler         a `pick` with its settings and its own random numbers, for generation loops

Sources: Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2020, arXiv:1904.09751 (top-p).
"""

import math
from collections.abc import Callable

import numpy as np

from awq_ref.checks import require_between, require_shape
from awq_ref.dtypes import F32, F64, Bool
from awq_ref.errors import RangeError


def _require_settings(temperature: float, top_k: int, top_p: float) -> None:
    require_between("sampling", "temperature", temperature, 0.0, 1e6)
    require_between("sampling", "top_k", top_k, 0, math.inf)
    if not 0.0 < top_p <= 1.0:
        raise RangeError(f"sampling: top_p must lie in (0, 1]; got {top_p}.")


def _require_finite_top(top: float) -> None:
    if not math.isfinite(top):
        raise RangeError(
            f"sampling: logits must be finite; got {top}. Look for NaN or infinity in the weights."
        )


def _kept_by_top_p(likely: F64, top_p: float) -> Bool:
    """Mark the fewest likeliest tokens that reach top_p together; of equals the smaller id first."""
    order = np.argsort(-likely, kind="stable")
    before = np.cumsum(likely[order]) - likely[order]  # what the likelier ones have reached without this one
    kept = np.zeros(likely.shape, dtype=np.bool_)
    kept[order[before < top_p]] = True
    kept[order[0]] = True
    return kept


def probabilities(logits: F32, *, temperature: float, top_k: int = 0, top_p: float = 1.0) -> F64:
    """Return what each token's chance is.

    Parameters
    ----------
    logits : float32 array, shape (vocab_size,)
    temperature : float
        Above 0; the logits are divided by it.
    top_k : int
        Keep the top_k likeliest tokens, of equals the smaller ids; 0 keeps all.
    top_p : float
        Of those keep the fewest likeliest ones that reach top_p together; 1 keeps all.

    Returns
    -------
    likely : float64 array, shape (vocab_size,), sum 1

    Raises
    ------
    RangeError
        If a setting is out of range, or a logit is NaN or +inf (-inf is a token without a chance).
    ShapeError
        If logits has not one axis.

    Examples
    --------
    >>> probabilities(np.float32([0, 1, 1]), temperature=1.0, top_k=1).tolist()
    [0.0, 1.0, 0.0]
    """
    require_shape("sampling", "logits", logits, (None,))
    _require_settings(temperature, top_k, top_p)
    top = float(logits.max())
    _require_finite_top(top)  # the maximum of logits with a NaN is NaN
    if temperature == 0.0:
        raise RangeError(
            "sampling: temperature must be above 0 for probabilities; got 0. Use pick for the likeliest token."
        )
    scaled = (logits.astype(np.float64) - top) / temperature
    if 0 < top_k < len(scaled):
        scaled[np.argsort(-scaled, kind="stable")[top_k:]] = -math.inf
    likely = np.exp(scaled)
    likely /= likely.sum()
    if top_p < 1.0:
        likely[~_kept_by_top_p(likely, top_p)] = 0.0
        likely /= likely.sum()
    return likely


def pick(
    logits: F32, rng: np.random.Generator, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> int:
    """Draw the next token.

    Parameters
    ----------
    logits : float32 array, shape (vocab_size,)
    rng : numpy.random.Generator
        One number is drawn from it, none when temperature is 0.
    temperature : float
        0 picks the largest logit, of equals the smallest id.
    top_k, top_p
        As for `probabilities`.

    Raises
    ------
    RangeError, ShapeError
        As for `probabilities`.
    """
    if temperature == 0.0:
        require_shape("sampling", "logits", logits, (None,))
        _require_settings(temperature, top_k, top_p)
        best = int(np.argmax(logits))  # the first NaN, if there is one
        _require_finite_top(float(logits[best]))
        return best
    steps = np.cumsum(probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p))
    # steps[-1] is 1 up to rounding; scaling the draw by it keeps the draw below it.
    return int(np.searchsorted(steps, rng.random() * steps[-1], side="right"))


def sampler(
    *, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int | None = None
) -> Callable[[F32], int]:
    """Return a function from logits to an id; equal seeds give equal texts.

    Raises
    ------
    RangeError
        If a setting is out of range.
    """
    _require_settings(temperature, top_k, top_p)
    rng = np.random.default_rng(seed)

    def pick_next(logits: F32) -> int:
        return pick(logits, rng, temperature=temperature, top_k=top_k, top_p=top_p)

    return pick_next
