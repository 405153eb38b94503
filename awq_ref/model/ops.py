"""The operations of a decoder that are no matrix product.

    rms_norm            scale each token to unit mean square
    layer_norm          the same around its mean
    apply_norm          a norm by its name, and its bias
    silu                x * sigmoid(x)
    gelu_tanh           x times the normal distribution function, by its approximation with tanh
    gelu                the same with the distribution function itself
    relu                x where it is positive, else 0
    soft_cap            nearly x while it is small, never beyond the cap
    softmax             exponentials that add up to one
    take_exponentials   the same, in place and not yet divided
    causal_mask         -inf where a query would see the future
    window_mask         -inf where a query would look back beyond its window
    NORMS, ACTIVATIONS  the kinds that a family's row or a config.json may name

All arrays are float32, and so is all arithmetic. Shapes are checked where a model is put together
(`Decoder`), not in every call.

Sources: [1] Zhang and Sennrich 2019, arXiv:1910.07467 (RMSNorm); [2] Hendrycks and Gimpel 2016,
arXiv:1606.08415 (GELU, SiLU), and Ramachandran et al. 2017, arXiv:1710.05941 (swish); [3] Gemma team 2024,
arXiv:2408.00118, section 2 (caps of logits); [4] Ba et al. 2016, arXiv:1607.06450 (LayerNorm).
"""

import math
from collections.abc import Callable

import numpy as np

from awq_ref.dtypes import F32

# exp(60) = 1.1e26: thousands of such weights, times values up to 1e8, are in float32's range, and so is exp(-60).
SMALL_SCORE = 60.0
# The polynomial of [LLM-10], from the constant up: log(Q(a) / t) + a**2 / 2 at 400 Chebyshev nodes of t for
# 0 <= a <= 14, Q by float64's erfc, fitted to 5e-8.
TAIL_STEP = 0.35
TAIL = (
    -1.96870760,
    0.998923037,
    0.385951355,
    0.0588892831,
    -0.0633587725,
    0.0840730770,
    -0.918771631,
    1.31396314,
    -0.737125722,
    0.153016701,
)


def rms_norm(x: F32, weight: F32, *, eps: float, out: F32 | None = None) -> F32:
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
    y: F32 = np.divide(x, np.sqrt(mean_square + eps), out=out)
    y *= weight
    return y


def layer_norm(x: F32, weight: F32, *, eps: float, out: F32 | None = None) -> F32:
    """Subtract each token's mean, divide by its standard deviation, then scale each channel.

    Equation [LLM-9]  y_i = g_i (x_i - m) / sqrt(mean_j((x_j - m)**2) + eps),   m = mean_j(x_j)
        x -> x         (..., features)
        g -> weight    (features,)
    Source: Ba et al. 2016, arXiv:1607.06450, eq. 4; docs/equations.md#llm-9.

    Returns
    -------
    y : float32 array, shape (..., features)

    Notes
    -----
    Numerics: float32; the variance is that of the centred numbers, not a difference of two large sums.

    Examples
    --------
    >>> layer_norm(np.float32([[4, 10]]), np.float32([1, 2]), eps=7.0).tolist()
    [[-0.75, 1.5]]
    """
    return rms_norm(x - x.mean(axis=-1, keepdims=True), weight, eps=eps, out=out)


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


def gelu_tanh(x: F32, *, out: F32 | None = None) -> F32:
    """Return x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3))), which is x Phi(x) to about 3e-4.

    Parameters
    ----------
    x : float32 array, any shape
    out : float32 array, same shape, optional
        Receives the result; must not share memory with x.

    Examples
    --------
    >>> gelu_tanh(np.float32([0, 100, -100])).tolist()
    [0.0, 100.0, -0.0]
    """
    with np.errstate(over="ignore"):  # x**3 is inf above 7e12, and tanh(inf) = 1 the right limit
        y: F32 = np.multiply(x, x, out=out)
        y *= 0.044715
        y += 1.0
        y *= x
    y *= math.sqrt(2.0 / math.pi)
    np.tanh(y, out=y)
    y += 1.0
    y *= 0.5
    y *= x
    return y


def gelu(x: F32, *, out: F32 | None = None) -> F32:
    """Return x Phi(x), Phi the normal distribution function.

    Equation [LLM-10]  y = max(x, 0) - |x| Q(|x|),    Q(a) = 1 - Phi(a) = t exp(P(t) - a**2 / 2),  t = 1 / (1 + c a)
        P -> TAIL
        c -> TAIL_STEP
    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2; docs/equations.md#llm-10.

    Parameters
    ----------
    x : float32 array, any shape
    out : float32 array, same shape, optional
        Receives the result; must not share memory with x.

    Notes
    -----
    Numerics: float32, within 2.4e-7 of the true value for |x| <= 6, and there within 3e-6 of it in proportion, far in
    the left tail too.

    Examples
    --------
    >>> gelu(np.float32([0, 100, -100])).tolist()
    [0.0, 100.0, 0.0]
    """
    size: F32 = np.minimum(np.abs(x), 16.0)  # the tail is 0 in float32 beyond 14.4
    t = 1.0 / (1.0 + TAIL_STEP * size)
    y: F32 = np.multiply(t, TAIL[-1], out=out)
    for coefficient in TAIL[-2:0:-1]:
        y += coefficient
        y *= t
    y += TAIL[0]
    y -= 0.5 * size * size
    np.exp(y, out=y)
    y *= t
    y *= size
    return np.subtract(np.maximum(x, 0.0), y, out=y)


def relu(x: F32, *, out: F32 | None = None) -> F32:
    """Return max(x, 0).

    Examples
    --------
    >>> relu(np.float32([-2, 3])).tolist()
    [0.0, 3.0]
    """
    y: F32 = np.maximum(x, 0.0, out=out)
    return y


def soft_cap(x: F32, cap: float, *, out: F32 | None = None) -> F32:
    """Return numbers that are nearly x while |x| is far below the cap, and never beyond it.

    Equation [LLM-6]  y = c tanh(x / c)
        x -> x      any shape
        c -> cap    > 0
    Source: Gemma team 2024, arXiv:2408.00118, section 2; docs/equations.md#llm-6.

    Parameters
    ----------
    out : float32 array, same shape, optional
        Receives the result; may be x.

    Examples
    --------
    >>> soft_cap(np.float32([0.0, 1e9, -1e9]), 30.0).tolist()
    [0.0, 30.0, -30.0]
    """
    y: F32 = np.divide(x, cap, out=out)
    np.tanh(y, out=y)
    y *= cap
    return y


def take_exponentials(scores: F32, *, small: bool = False) -> F32:
    """Overwrite scores by exp(scores - maximum) along the last axis; return the sums, (..., 1).

    Scores may be -inf, but not a whole row of them. Dividing by the sums is left to the caller, who may have
    a smaller array to divide (attention divides its output). Where scores are `small`, none but -inf beyond
    +-SMALL_SCORE, the maximum need not be subtracted: the quotients are the same.
    """
    if not small:
        scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    sums: F32 = (scores @ np.ones(scores.shape[-1], dtype=np.float32))[..., None]  # BLAS adds faster than sum
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


def window_mask(tokens: int, columns: int, window: int) -> F32:
    """Return (tokens, columns) float32: -inf where a key lies `window` or more columns before its query.

    Equation [LLM-5]  m_tc = 0 where t - c < w,  -inf elsewhere
        w -> window    its own column counts
    The tokens are the last of the columns. The future is not hidden: that is `causal_mask`.
    Source: Beltagy et al. 2020, arXiv:2004.05150, section 3.1; docs/equations.md#llm-5.

    Examples
    --------
    >>> window_mask(2, 3, 2).tolist()
    [[0.0, 0.0, 0.0], [-inf, 0.0, 0.0]]
    """
    own = np.arange(columns - tokens, columns, dtype=np.int64)[:, None]  # (tokens, 1)
    keys = np.arange(columns, dtype=np.int64)
    return np.where(keys <= own - window, np.float32(-np.inf), np.float32(0.0))


NORMS: dict[str, Callable[..., F32]] = {"rms": rms_norm, "layer": layer_norm}
ACTIVATIONS: dict[str, Callable[..., F32]] = {
    "silu": silu,
    "swish": silu,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu": gelu,
    "relu": relu,
}


def apply_norm(
    kind: str, x: F32, weight: F32, bias: F32 | None, *, eps: float, out: F32 | None = None
) -> F32:
    """Return x after a norm of NORMS, plus the bias if there is one: out, or a new array."""
    y = NORMS[kind](x, weight, eps=eps, out=out)
    if bias is not None:
        y += bias
    return y
