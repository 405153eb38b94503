"""The operations of a decoder that are no matrix product.

    rms_norm            scale each token to unit mean square
    silu                x * sigmoid(x)
    softmax             exponentials that add up to one
    take_exponentials   the same, in place and not yet divided
    causal_mask         -inf where a query would see the future
    NORMS, ACTIVATIONS  the kinds that a family's row or a config.json may name

All arrays are float32, and so is all arithmetic. Shapes are checked where a model is put together
(`Decoder`), not in every call.

Sources: [1] Zhang and Sennrich 2019, arXiv:1910.07467 (RMSNorm); [2] Hendrycks and Gimpel 2016,
arXiv:1606.08415, and Ramachandran et al. 2017, arXiv:1710.05941 (SiLU, swish).
"""

from collections.abc import Callable

import numpy as np

from awq_ref.dtypes import F32


def rms_norm(x: F32, weight: F32, *, eps: float) -> F32:
    """Divide each token by its root mean square, then scale each channel.

    Equation [LLM-1]  y_i = g_i x_i / sqrt(mean_j(x_j**2) + eps)
        x -> x         (..., features)
        g -> weight    (features,)
    Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4; docs/equations.md#llm-1.

    Returns
    -------
    y : float32 array, shape (..., features)

    Notes
    -----
    Numerics: float32 throughout, the sum of squares included.

    Examples
    --------
    >>> rms_norm(np.float32([[3, 3]]), np.float32([1, 2]), eps=7.0).tolist()
    [[0.75, 1.5]]
    """
    mean_square: F32 = np.vecdot(x, x)[..., None] / x.shape[-1]  # (..., 1)
    y: F32 = x / np.sqrt(mean_square + eps)
    y *= weight
    return y


def silu(x: F32, *, out: F32 | None = None) -> F32:
    """Return x * sigmoid(x) = x / (1 + exp(-x)).

    Parameters
    ----------
    x : float32 array, any shape
    out : float32 array, same shape, optional
        Receives the result; must not share memory with x.

    Examples
    --------
    >>> silu(np.float32([0, 100, -100])).tolist()
    [0.0, 100.0, -0.0]
    """
    out = np.negative(x, out=out)
    with np.errstate(over="ignore"):  # exp(-x) is inf below x = -88.7, and x / inf the right limit, -0
        np.exp(out, out=out)
    out += 1.0
    return np.divide(x, out, out=out)


def take_exponentials(scores: F32) -> F32:
    """Overwrite scores by exp(scores - maximum) along the last axis; return the sums, (..., 1).

    Scores may be -inf, but not a whole row of them. Dividing by the sums is left to the caller, who may have
    a smaller array to divide (attention divides its output).
    """
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    sums: F32 = scores.sum(axis=-1, keepdims=True)
    return sums


def softmax(x: F32) -> F32:
    """Return exp(x) / sum(exp(x)) along the last axis, free of overflow.

    Examples
    --------
    >>> softmax(np.float32([[0.0, 0.0, -np.inf], [1000.0, 0.0, 0.0]])).tolist()
    [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    """
    y = x.copy()
    sums = take_exponentials(y)
    y /= sums
    return y


def causal_mask(length: int) -> F32:
    """Return (length, length) float32: 0 where key <= query, -inf where the key lies in the query's future.

    Examples
    --------
    >>> causal_mask(2).tolist()
    [[0.0, -inf], [0.0, 0.0]]
    """
    return np.triu(np.full((length, length), -np.inf, dtype=np.float32), k=1)


NORMS: dict[str, Callable[..., F32]] = {"rms": rms_norm}
ACTIVATIONS: dict[str, Callable[..., F32]] = {"silu": silu, "swish": silu}
