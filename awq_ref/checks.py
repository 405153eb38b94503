"""Argument checks: the one place where messages about arrays are built.

    require_shape       number of axes and sizes
    require_dtype       dtype
    require_finite      no NaN, no infinity: names the first bad index
    require_between     a number lies in a range
    require_one_of      a word is one of a few
    require_names       a mapping holds all that is needed
    require_group_size  group_size divides in_features; says what would

Each takes the name of the function that complains first, the array's name next.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.errors import DtypeError, RangeError, ShapeError


def require_shape(who: str, name: str, array: AnyArray, shape: Sequence[int | None]) -> None:
    """Raise ShapeError unless the array has this shape; None stands for any size."""
    fits = array.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
        raise ShapeError(f"{who}: {name} must have shape {wanted}; got {array.shape}.")


def require_dtype(who: str, name: str, array: AnyArray, *dtypes: Any) -> None:
    """Raise DtypeError unless the array has one of these dtypes."""
    if array.dtype not in [np.dtype(d) for d in dtypes]:
        wanted = " or ".join(np.dtype(d).name for d in dtypes)
        raise DtypeError(f"{who}: {name} must be {wanted}; got {array.dtype}. Convert it with .astype first.")


def require_finite(who: str, name: str, array: AnyArray) -> None:
    """Raise RangeError if the array holds a NaN or an infinity, naming the first one's index."""
    # A sum is finite whenever every term is and none overflows: one cheap pass for the usual case.
    with np.errstate(over="ignore", invalid="ignore"):  # the sum is only asked whether it is finite
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise RangeError(
            f"{who}: {name} must be finite; got {array[index]} at index {index} ({len(bad)} such values of "
            f"{array.size}). Check where this array comes from."
        )


def require_between(who: str, name: str, value: float, low: float, high: float) -> None:
    """Raise RangeError unless low <= value <= high (a NaN fails)."""
    if not low <= value <= high:
        raise RangeError(f"{who}: {name} must lie in [{low}, {high}]; got {value}.")


def require_one_of(who: str, name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise RangeError unless value is one of the allowed ones."""
    allowed = list(allowed)
    if value not in allowed:
        raise RangeError(f"{who}: {name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


def fitting_group_sizes(in_features: int) -> list[int]:
    """Return the usual group sizes that divide in_features; a single one is in_features itself."""
    usual = [size for size in (256, 128, 64, 32, 16, 8) if in_features % size == 0]
    return usual or [in_features]


def require_names(who: str, name: str, have: Mapping[str, object], need: Sequence[str]) -> None:
    """Raise RangeError unless every name is there."""
    missing = [each for each in need if each not in have]
    if missing:
        raise RangeError(f"{who}: {name} must hold {', '.join(need)}; missing: {', '.join(missing)}.")


def require_group_size(who: str, in_features: int, group_size: int, name: str = "the weight") -> int:
    """Return the number of weights in a group (group_size, or in_features for -1); ShapeError unless it divides."""
    if group_size == -1:
        return in_features
    if group_size < 1 or in_features % group_size:
        fits = ", ".join(map(str, fitting_group_sizes(in_features)))
        raise ShapeError(
            f"{who}: group_size must divide in_features of {name}; got group_size={group_size}, "
            f"in_features={in_features}. Choose {fits}, or -1 for one group per row."
        )
    return group_size
