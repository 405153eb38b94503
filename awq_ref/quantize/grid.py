"""The grid of each group: from the range of its weights to a scale and a zero point.

    group_extremes  lowest and highest weight of every group
    group_range     the range that its grid spans
    grid_of_range   scales and zero points from such a range
    codes_of_range  the same for those who go on with codes
    choose_grid     both in one: weight -> scales, zero points

In: a float32 weight. Out: two small arrays, (out_features, n_groups).
Sources: Lin et al. 2023, arXiv:2306.00978, section 3; the code published with it for the floor of the range.
"""

from typing import NamedTuple

import numpy as np

from awq_ref.checks import require_dtype, require_finite, require_group_size, require_shape
from awq_ref.dtypes import F16, F32, U8, Bool
from awq_ref.errors import RangeError, ShapeError
from awq_ref.spec import QuantSpec

# The published code lets no range be narrower than this. It keeps the scale of an all-zero group above 0:
# 1e-5 / 255 = 3.9e-8 is more than half of float16's smallest number, 2**-24 = 6.0e-8, so no scale of 2 to 8
# bits rounds to 0 when it is stored.
RANGE_FLOOR = 1e-5


def checked_group_size(who: str, weight: F32, spec: QuantSpec) -> int:
    """Return the number of weights in a group after checking that weight is float32, 2-D and not empty."""
    require_dtype(who, "weight", weight, np.float32)
    require_shape(who, "weight", weight, (None, None))
    if weight.size == 0:
        raise ShapeError(
            f"{who}: weight must have at least one row and one column; got shape {weight.shape}."
        )
    return require_group_size(who, weight.shape[1], spec.group_size)


def _first(where: Bool) -> tuple[int, int]:
    row, group = np.argwhere(where)[0]
    return int(row), int(group)


def _require_finite_range(who: str, low: F32, high: F32) -> None:
    """A NaN or an infinity in a group reaches its lowest or its highest weight."""
    if low.min() > -np.inf and high.max() < np.inf:  # neither holds for a NaN
        return
    bad = ~(np.isfinite(low) & np.isfinite(high))
    if bad.any():
        row, group = _first(bad)
        value = low[row, group] if not np.isfinite(low[row, group]) else high[row, group]
        raise RangeError(
            f"{who}: weight must be finite; got {value} in row {row}, group {group}. "
            "Check where it comes from."
        )


def checked_clip(who: str, clip: F32, shape: tuple[int, int]) -> F32:
    """Return clip after checking dtype, shape and that no limit is negative or NaN."""
    require_dtype(who, "clip", clip, np.float32)
    require_shape(who, "clip", clip, shape)
    if not clip.min() >= 0.0:  # nor is a NaN
        row, group = _first(~(clip >= 0.0))
        raise RangeError(
            f"{who}: clip must be at least 0; got {clip[row, group]} in row {row}, group {group}."
        )
    return clip


def check_grid(who: str, scales: F16 | F32, zero_point: U8, spec: QuantSpec, shape: tuple[int, int]) -> None:
    """Raise unless scales and zero points have this shape, their dtypes, and values that make a grid."""
    require_shape(who, "scales", scales, shape)
    require_shape(who, "zero_point", zero_point, shape)
    require_dtype(who, "scales", scales, spec.scale_dtype)
    require_dtype(who, "zero_point", zero_point, np.uint8)
    require_finite(who, "scales", scales)
    if (scales <= 0.0).any():
        raise RangeError(f"{who}: scales must be positive; got {scales.min()}. Take them from choose_grid.")
    if zero_point.max() > spec.qmax:
        raise RangeError(f"{who}: zero_point must be at most {spec.qmax}; got {zero_point.max()}.")


def group_extremes(weight: F32, group_size: int) -> tuple[F32, F32]:
    """Return the lowest and the highest weight of every group, each (out_features, n_groups).

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    group_size : int
        Divides in_features.
    """
    starts = np.arange(0, weight.size, group_size, dtype=np.intp)
    weights, shape = weight.reshape(-1), (len(weight), -1)
    low: F32 = np.minimum.reduceat(weights, starts).reshape(shape)  # half of the time of min along an axis
    high: F32 = np.maximum.reduceat(weights, starts).reshape(shape)
    return low, high


def group_range(
    weight: F32,
    *,
    spec: QuantSpec,
    clip: F32 | None = None,
    extremes: tuple[F32, F32] | None = None,
    who: str = "group_range",
) -> tuple[F32, F32]:
    """Return the range that the grid of every group spans.

    Equation [AWQ-1]  lo = min(min_j w_j, 0),  hi = max(max_j w_j, 0)      (range_rule "zero")
                      lo = min_j w_j,          hi = max_j w_j              (range_rule "minmax", as published)
        w       -> weight   (out_features, in_features), w_j after clamping to [-c, c] where a clip is given
        c       -> clip     (out_features, n_groups)
        lo, hi  -> low, high
    Source: Lin et al. 2023, arXiv:2306.00978, section 3; docs/equations.md#awq-1.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    spec : QuantSpec
        group_size and range_rule are used.
    clip : float32 array, shape (out_features, n_groups), or None
        Largest magnitude kept in each group; infinity keeps all. It is applied before the range rule.
    extremes : (low, high), or None
        What `group_extremes` says of this weight, if it is known.
    who : str
        The function that errors name.

    Returns
    -------
    low, high : float32 arrays, shape (out_features, n_groups)

    Raises
    ------
    DtypeError
        If weight or clip is not float32.
    ShapeError
        If weight is not 2-D or is empty, group_size does not divide in_features, or clip has another shape.
    RangeError
        If weight holds a NaN or an infinity (row and group are named), or clip a NaN or a negative number.

    Notes
    -----
    Differs from: the published formula, which lets a range lie on one side of 0, where the zero point cannot
    follow it: the group saturates, down to one value (docs/decisions.md#range-contains-zero).
    """
    group_size = checked_group_size(who, weight, spec)
    low, high = group_extremes(weight, group_size) if extremes is None else extremes
    _require_finite_range(who, low, high)
    if clip is not None:
        limit = checked_clip(who, clip, (low.shape[0], low.shape[1]))
        low, high = (np.minimum(np.maximum(edge, -limit), limit) for edge in (low, high))
    if spec.range_rule == "zero":
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    return low, high


def _stored_scales(exact: F32, spec: QuantSpec, who: str) -> tuple[F16 | F32, F32]:
    """Round to the dtype that is stored; return that and the same as float32. An overflow names its row and group."""
    scales: F16 | F32 = exact.astype(spec.scale_dtype)
    delta = scales.astype(np.float32)
    if not delta.max(initial=0.0) < np.inf:  # nor is a NaN
        bad = ~np.isfinite(scales)
        row, group = _first(bad)
        limit = float(np.finfo(spec.scale_dtype).max)
        raise RangeError(
            f"{who}: a scale must fit {spec.scale_dtype} (at most {limit:g}); got {exact[row, group]:g} "
            f"in row {row}, group {group}. Scale the weight down, or choose scale_dtype='float32'."
        )
    return scales, delta


class GroupCodes(NamedTuple):
    """The grid of every group in terms of codes less the zero point, q - z: each array (out_features, n_groups).

    scales  : as they are stored
    delta   : the same, float32
    lowest  : round(lo / delta), float32
    first   : the first code of the grid, -z, float32
    """

    scales: F16 | F32
    delta: F32
    lowest: F32
    first: F32


def codes_of_range(low: F32, high: F32, *, spec: QuantSpec, who: str) -> GroupCodes:
    """Do the work of `grid_of_range`, whose arguments and errors these are, in few passes over small arrays."""
    with np.errstate(over="ignore"):  # too wide a range: an infinite scale, reported with its place
        width: F32 = np.maximum(-low, high) if spec.symmetric else np.subtract(high, low)
        steps = spec.symmetric_zero_point - 1 if spec.symmetric else spec.qmax
        exact: F32 = np.divide(np.maximum(width, RANGE_FLOOR), steps, dtype=np.float32)
        scales, delta = _stored_scales(exact, spec, who)
        # "minmax" alone: the quotient of a far one-sided group overflows; it is clipped to the grid's end
        lowest = np.rint(low / delta)
    if spec.symmetric:
        return GroupCodes(scales, delta, lowest, np.full_like(delta, -spec.symmetric_zero_point))
    first = np.minimum(np.maximum(lowest, -float(spec.qmax)), 0.0)
    return GroupCodes(scales, delta, lowest, first)


def grid_of_range(
    low: F32, high: F32, *, spec: QuantSpec, who: str = "grid_of_range"
) -> tuple[F16 | F32, U8]:
    """Return the scale and the zero point of every group from its range.

    Equation [AWQ-1]  delta = round_to_storage( max(hi - lo, 1e-5) / (2**bits - 1) )               asymmetric
                      delta = round_to_storage( max(|lo|, |hi|, 1e-5) / (2**(bits-1) - 1) )        symmetric
    Equation [AWQ-2]  z = clip(-round(lo / delta), 0, 2**bits - 1)                                 asymmetric
                      z = 2**(bits-1)                                                              symmetric
        lo, hi  -> low, high     (out_features, n_groups)
        delta   -> scales        (out_features, n_groups)
        z       -> zero_point    (out_features, n_groups)
    Source: Lin et al. 2023, arXiv:2306.00978, section 3; docs/equations.md#awq-1.

    Parameters
    ----------
    low, high : float32 arrays, shape (out_features, n_groups), finite
    spec : QuantSpec
        bits, symmetric and scale_dtype are used.
    who : str
        The function that errors name.

    Returns
    -------
    scales : array of spec.scale_dtype, shape (out_features, n_groups), > 0
    zero_point : uint8 array, shape (out_features, n_groups), values in [0, 2**bits - 1]

    Raises
    ------
    RangeError
        If a scale overflows its storage dtype; row and group are named.

    Notes
    -----
    Numerics: float32, one rounding per step, ties to even. The zero point is computed from the scale *as
    stored*, so writing the scale to a file changes nothing. Storing in float16 can take 2**-11 of the scale away
    (below 2**-14: at most 2**-25), and the grid's far end moves in by that much times its steps:
    docs/equations.md#p-round.
    """
    codes = codes_of_range(low, high, spec=spec, who=who)
    return codes.scales, (-codes.first).astype(np.uint8)


def choose_grid(
    weight: F32, *, spec: QuantSpec, clip: F32 | None = None, who: str = "choose_grid"
) -> tuple[F16 | F32, U8]:
    """Return the scale and the zero point of every group of a weight: `grid_of_range` of `group_range`.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    spec : QuantSpec
    clip : float32 array, shape (out_features, n_groups), or None
        Largest magnitude kept in each group.
    who : str
        The function that errors name.

    Returns
    -------
    scales : array of spec.scale_dtype, shape (out_features, n_groups), > 0
    zero_point : uint8 array, shape (out_features, n_groups), values in [0, 2**bits - 1]

    Raises
    ------
    DtypeError, ShapeError, RangeError
        As `group_range` and `grid_of_range`.

    Examples
    --------
    >>> import numpy as np
    >>> from awq_ref.spec import QuantSpec
    >>> weight = np.array([[-1.0, -0.5, 0.25, 0.875]], dtype=np.float32)
    >>> scales, zero_point = choose_grid(weight, spec=QuantSpec(bits=4, group_size=4))
    >>> float(scales[0, 0]), int(zero_point[0, 0])
    (0.125, 8)
    """
    low, high = group_range(weight, spec=spec, clip=clip, who=who)
    return grid_of_range(low, high, spec=spec, who=who)
