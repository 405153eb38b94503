"""Groups of arbitrary columns: the index (g_idx) that says which group each input belongs to.

    regroup     codes in the order of the inputs, and their index -> a linear whose groups are neighbours
    index_of    the index of a linear

A file that was rounded in the order of falling activations, without static groups, keeps its columns in place and
stores for each the number of its group. Here the columns are sorted by group and the linear remembers the order: groups
are then neighbours again, and all that multiplies stays as it is. Groups of different sizes become smaller ones of one
size, the greatest common divisor, which repeats scales and changes no weight
(docs/decisions.md#groups-of-arbitrary-columns).
"""

from dataclasses import replace

import numpy as np

from awq_ref.dtypes import F16, F32, I32, U8, AnyArray
from awq_ref.errors import FormatError
from awq_ref.pack.tensor_checks import require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec


def index_of(linear: QuantizedLinear) -> I32:
    """Return the group of every input, int32 (in_features,)."""
    places = np.arange(linear.in_features, dtype=np.int32) // linear.group_size
    if linear.input_order is None:
        return places
    index = np.empty_like(places)
    index[linear.input_order] = places
    return index


def _require_index(layout: str, name: str, index: AnyArray, in_features: int, n_groups: int) -> None:
    require_tensor(layout, name, index, "int32", (in_features,))
    if index.size and (index.min() < 0 or index.max() >= n_groups):
        raise FormatError(
            f"{layout}: {name} must hold groups from 0 to {n_groups - 1}; got {index.min()} to {index.max()}. "
            "Check the group_size in the configuration."
        )


def regroup(
    int_weight: U8,
    scales: F16 | F32,
    zero_point: U8,
    spec: QuantSpec,
    *,
    index: I32 | None,
    layout: str,
    name: str,
) -> QuantizedLinear:
    """Return the linear whose column i belongs to group index[i].

    Parameters
    ----------
    int_weight : uint8 array, shape (out_features, in_features)
        In the order of the inputs.
    scales, zero_point : arrays, shape (out_features, n_groups)
    spec : QuantSpec
        Its group_size is replaced where the groups have other sizes.
    index : int32 array, shape (in_features,), or None
        None: neighbours, group_size each; the last group may be smaller.
    layout, name : str
        The layout and the name of the index in it, for messages.

    Raises
    ------
    FormatError
        If the index has another dtype or shape, or a group that there is not.
    """
    in_features, n_groups = int_weight.shape[1], scales.shape[1]
    group_size = in_features if spec.group_size == -1 else spec.group_size
    if index is None:
        index = np.arange(in_features, dtype=np.int32) // np.int32(group_size)
    _require_index(layout, name, index, in_features, n_groups)
    counts = np.bincount(index, minlength=n_groups)
    size = int(np.gcd.reduce(counts))
    if size != group_size:
        spec = replace(spec, group_size=size)
    if (counts != size).any():
        whose = np.repeat(np.arange(n_groups, dtype=np.int64), counts // size)
        scales, zero_point = scales[:, whose], zero_point[:, whose]
    order = np.argsort(index, kind="stable").astype(np.int64)
    if (np.diff(index) >= 0).all():
        return QuantizedLinear(int_weight, scales, zero_point, spec)
    return QuantizedLinear(int_weight[:, order], scales, zero_point, spec, input_order=order)
