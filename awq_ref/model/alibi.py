"""ALiBi: where a token stands, told by scores that fall with the distance.

    Alibi           how fast they fall, and how that is rounded
    alibi_slopes    one slope for each head
    alibi_bias      what is added to the scores of each column

Sources: Press et al. 2022, arXiv:2108.12409, section 3; docs/equations.md#llm-11.
"""

from dataclasses import dataclass

import numpy as np

from awq_ref.dtypes import F32, F64, I64


@dataclass(frozen=True)
class Alibi:
    """What differs between the models that have it.

    bias_max : the slope of the last head is 2**-bias_max
    rounded  : slopes, and slopes times positions, are bfloat16, in which Falcon was trained
    scaled   : the bias is multiplied by what the products of queries and keys are multiplied by
    """

    bias_max: float = 8.0
    rounded: bool = False
    scaled: bool = False


def alibi_slopes(n_heads: int, bias_max: float = 8.0) -> F64:
    """Return the slopes of the heads: a falling geometric series, twice as dense where it is filled up.

    Equation [LLM-11]  m_h = 2**(-b h / p),  h = 1 .. p;  then 2**(-b (2 h - 1) / (2 p)),  h = 1 .. n - p
        n -> n_heads;  p: the largest power of two that is not above it
        b -> bias_max
    Source: Press et al. 2022, arXiv:2108.12409, section 3, and their code for other numbers of heads;
    docs/equations.md#llm-11.

    Examples
    --------
    >>> alibi_slopes(2).tolist()
    [0.0625, 0.00390625]
    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """
    power = 1 << (n_heads.bit_length() - 1)
    steps = np.arange(1, power + 1, dtype=np.float64) / power
    between = (np.arange(1, n_heads - power + 1, dtype=np.float64) - 0.5) / power
    return 2.0 ** (-bias_max * np.concatenate([steps, between]))


def _to_bfloat16(values: F32) -> F32:
    """Round to the nearest bfloat16, ties to even: the upper half of the bits."""
    bits = values.view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)).view(np.float32)


def alibi_bias(alibi: Alibi, positions: I64, n_heads: int, *, scale: float) -> F32:
    """Return what is added to the scores of each column, for each head.

    Equation [LLM-11]  m_h c    the score of a query at t differs from this by m_h t, which the softmax does not notice
        m -> `alibi_slopes`
        c -> positions
    Source: docs/equations.md#llm-11.

    Parameters
    ----------
    positions : int64 array, shape (batch, columns)
    n_heads : int
        Of the queries.
    scale : float
        What the products of queries and keys are multiplied by.

    Returns
    -------
    bias : float32 array, shape (batch, n_heads, columns)
    """
    slopes = alibi_slopes(n_heads, alibi.bias_max).astype(np.float32)
    if alibi.rounded:
        slopes = _to_bfloat16(slopes)
    bias: F32 = slopes[:, None] * positions.astype(np.float32)[:, None]  # (batch, n_heads, columns)
    if alibi.rounded:
        bias = _to_bfloat16(bias)
    return bias * np.float32(scale) if alibi.scaled else bias
