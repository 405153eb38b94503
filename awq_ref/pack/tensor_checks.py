"""Checks on tensors that come from a file: a mismatch is the file's fault, so they raise FormatError.

    groups_of               number of groups in a row, from the configuration
    require_tensor          dtype and shape
    require_finite_scales   no NaN, no infinity
    require_symmetric       every zero point is the middle of the grid
    require_possible        the layout can hold a linear of this size

Each takes the layout's name and the tensor's name first.
"""

from collections.abc import Sequence

import numpy as np

from awq_ref.dtypes import U8, AnyArray, AnyFloat
from awq_ref.errors import FormatError
from awq_ref.spec import QuantSpec


def groups_of(layout: str, in_features: int, spec: QuantSpec) -> int:
    """Return the number of groups in a row of in_features weights; FormatError unless it is whole."""
    group_size = in_features if spec.group_size == -1 else spec.group_size
    if group_size < 1 or in_features % group_size:
        raise FormatError(
            f"{layout}: group_size must divide in_features; got group_size={spec.group_size}, "
            f"in_features={in_features}. Check the group_size in the configuration."
        )
    return in_features // group_size


def require_tensor(layout: str, name: str, array: AnyArray, dtype: str, shape: Sequence[int | None]) -> None:
    """Raise FormatError unless the tensor has this dtype and shape; None stands for any size."""
    sizes_fit = array.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    if array.dtype != np.dtype(dtype) or not sizes_fit:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise FormatError(
            f"{layout}: {name} must be {dtype} of shape ({wanted}); got {array.dtype} {array.shape}. "
            "Check the configuration's bits and group_size."
        )


def require_finite_scales(layout: str, name: str, scales: AnyFloat) -> None:
    """Raise FormatError if a scale is NaN or infinite, naming the first one's index."""
    bad = np.argwhere(~np.isfinite(scales))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise FormatError(
            f"{layout}: {name} must be finite; got {scales[index]} at index {index}. The file is damaged."
        )


def require_symmetric(layout: str, name: str, zero_point: U8, spec: QuantSpec) -> None:
    """Raise FormatError if a symmetric configuration meets another zero point than the middle."""
    if spec.symmetric and (zero_point != spec.symmetric_zero_point).any():
        raise FormatError(
            f"{layout}: {name} must be {spec.symmetric_zero_point} everywhere in a symmetric file; "
            f"got {zero_point.min()} to {zero_point.max()}. Read it as asymmetric."
        )


def require_possible(layout: str, reason: str | None, spec: QuantSpec) -> None:
    """Raise FormatError if a layout that cannot hold such a linear is said to hold one; reason is its obstacle."""
    if reason is not None:
        raise FormatError(
            f"{layout}: {reason}. Check the configuration's version and group_size ({spec.group_size})."
        )
