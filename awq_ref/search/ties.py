"""Which channels of a site must have one scale, because one row makes them.

query_head_tie   which row of v_proj feeds which input channel of o_proj
"""

import numpy as np

from awq_ref.checks import require_between
from awq_ref.dtypes import I64
from awq_ref.errors import RangeError


def query_head_tie(*, n_heads: int, n_kv_heads: int, head_dim: int) -> I64:
    """Return for every input channel of o_proj the row of v_proj that feeds it.

    Channel d of query head h reads row (h // (n_heads / n_kv_heads)) * head_dim + d.

    Parameters
    ----------
    n_heads, n_kv_heads, head_dim : int
        num_attention_heads, num_key_value_heads and head_dim of the configuration.

    Returns
    -------
    tie : int64 array, shape (n_heads * head_dim,), values in [0, n_kv_heads * head_dim)

    Raises
    ------
    RangeError
        If a number is less than 1, or n_kv_heads does not divide n_heads.

    Examples
    --------
    >>> query_head_tie(n_heads=4, n_kv_heads=2, head_dim=2).tolist()
    [0, 1, 0, 1, 2, 3, 2, 3]
    """
    for name, value in (("n_heads", n_heads), ("n_kv_heads", n_kv_heads), ("head_dim", head_dim)):
        require_between("query_head_tie", name, value, 1, 2**31)
    if n_heads % n_kv_heads:
        raise RangeError(
            f"query_head_tie: n_kv_heads must divide n_heads; got n_heads={n_heads}, n_kv_heads={n_kv_heads}."
        )
    rows = np.arange(n_kv_heads * head_dim, dtype=np.int64).reshape(n_kv_heads, 1, head_dim)
    return np.repeat(rows, n_heads // n_kv_heads, axis=1).ravel()  # (n_heads * head_dim,)
