"""Mixture of experts: each token goes through a few of many MLPs, which a router chooses.

    route     router logits -> the experts of every token, and their weights
    mixture   the weighted sum of what they make

Source: Shazeer et al. 2017, arXiv:1701.06538, section 2; Jiang et al. 2024, arXiv:2401.04088, section 2.1;
docs/equations.md#llm-15.
"""

from collections.abc import Callable

import numpy as np

from awq_ref.dtypes import F32, I64
from awq_ref.model.ops import softmax
from awq_ref.spec import LinearOperator


def route(logits: F32, *, top_k: int, normalized: bool) -> tuple[I64, F32]:
    """Return the experts of every token, likeliest first, and their weights.

    Equation [LLM-15]  p = softmax(r),  E = the k largest of p,  a_e = p_e, or p_e / sum_{f in E} p_f if normalized
        r -> logits
        E -> chosen
        a -> weights
    Source: docs/equations.md#llm-15.

    Parameters
    ----------
    logits : float32 array, shape (tokens, experts)
    top_k : int
    normalized : bool
        The weights of a token add up to 1.

    Returns
    -------
    chosen : int64 array, shape (tokens, top_k)
        Of equally likely experts the one with the smaller number comes first.
    weights : float32 array, shape (tokens, top_k)

    Examples
    --------
    >>> chosen, weights = route(np.log(np.float32([[0.5, 0.125, 0.375]])), top_k=2, normalized=False)
    >>> chosen.tolist(), weights.round(3).tolist()
    ([[0, 2]], [[0.5, 0.375]])
    """
    probabilities = softmax(logits)  # over all experts, (tokens, experts)
    chosen = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(probabilities, chosen, axis=1)
    if normalized:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return chosen.astype(np.int64, copy=False), weights


def mixture(
    x: F32, router: LinearOperator, expert: Callable[[int, F32], F32], *, top_k: int, normalized: bool
) -> F32:
    """Return the weighted sum of the experts that the router chooses for each token.

    Equation [LLM-15]  y = sum_{e in E(x)} a_e(x) mlp_e(x)
        E, a  -> `route` of router(x)
        mlp_e -> expert(e, tokens)
    Source: docs/equations.md#llm-15.

    Parameters
    ----------
    x : float32 array, shape (..., hidden_size)
        What router and experts read both.
    router : LinearOperator
        hidden_size -> experts.
    expert : callable
        Number of an expert and its tokens (n, hidden_size) -> (n, hidden_size). Not called for one without tokens.

    Returns
    -------
    y : float32 array, shape (..., hidden_size)
    """
    tokens = x.reshape(-1, x.shape[-1])
    chosen, weights = route(router(tokens), top_k=top_k, normalized=normalized)
    y = np.zeros(tokens.shape, dtype=np.float32)
    for number in np.unique(chosen).tolist():
        rows, places = np.nonzero(chosen == number)
        y[rows] += weights[rows, places, None] * expert(number, tokens[rows])
    return y.reshape(x.shape)
