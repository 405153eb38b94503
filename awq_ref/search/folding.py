"""Folding: channel scales move from the consumers' columns into the producer; the block computes the same.

    round_to            float32 values rounded to a checkpoint's dtype
    fold_into_norm      norm weight / s as it will be stored, and the s that this really amounts to
    fold_into_linear    rows / s, bias / s
    scale_consumer      columns * s
    scaled_gram         the Gram matrix of x / s
    LinearFold          what happens to one linear layer before it is quantized: columns, rows, clips

Source: Lin et al. 2023, arXiv:2306.00978, section 3.2; docs/equations.md#awq-8.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from awq_ref.checks import require_one_of, require_shape
from awq_ref.dtypes import F32, U32
from awq_ref.errors import RangeError

StorageDtype = Literal["float32", "float16", "bfloat16", "1+float32", "1+float16", "1+bfloat16"]

# The largest finite and the smallest positive number of a norm weight in each dtype. bfloat16 and float32
# stop at the smallest normal number: a product with a subnormal one is slow, and nothing is gained. "1+": what is
# stored is the weight's distance from 1 (Gemma); the smallest is the step of the dtype above 1, so that neither sign
# can round to 0.
STORAGE_LIMITS: dict[str, tuple[float, float]] = {
    "float32": (3.0e38, 2.0**-126),
    "float16": (65504.0, 2.0**-24),
    "bfloat16": (3.0e38, 2.0**-126),
    "1+float32": (3.0e38, 2.0**-23),
    "1+float16": (65504.0, 2.0**-10),
    "1+bfloat16": (3.0e38, 2.0**-7),
}
OFFSET_DTYPES: dict[str, StorageDtype] = {
    "1+float32": "float32",
    "1+float16": "float16",
    "1+bfloat16": "bfloat16",
}


def round_to(values: F32, storage_dtype: StorageDtype) -> F32:
    """Return finite float32 values rounded to a storage dtype (ties to even), as float32.

    Examples
    --------
    >>> round_to(np.float32([0.25 + 2.0**-10]), "1+bfloat16").tolist()  # -0.75 is stored: steps of 2**-8
    [0.25]
    """
    if storage_dtype in OFFSET_DTYPES:
        distance: F32 = values - np.float32(1.0)
        rounded: F32 = round_to(distance, OFFSET_DTYPES[storage_dtype]) + np.float32(1.0)
        return rounded
    if storage_dtype == "float32":
        return values.copy()
    if storage_dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits: U32 = values.view(np.uint32)
    half = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)  # a tie goes to the even upper half
    return ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)


def _require_scales(who: str, channel_scales: F32, size: int) -> None:
    require_shape(who, "channel_scales", channel_scales, (size,))
    good = (channel_scales > 0) & np.isfinite(channel_scales)
    if not good.all():
        first = int(np.argmin(good))
        raise RangeError(
            f"{who}: channel_scales must be positive and finite; got {channel_scales[first]} at {first}."
        )


def fold_into_norm(norm_weight: F32, channel_scales: F32, *, storage_dtype: StorageDtype) -> tuple[F32, F32]:
    """Return the norm weight that absorbs 1 / s, and the scales that its rounding turns s into.

    Equation [AWQ-8]  gamma' = round(gamma / s),   s' = gamma / gamma',   gamma' x^ s' = gamma x^
        gamma  -> norm_weight       (in_features,)
        s      -> channel_scales    (in_features,)
        gamma' -> stored            (in_features,)
        s'     -> effective         (in_features,)
    Source: docs/equations.md#awq-8; docs/decisions.md#fold-compensated.

    Parameters
    ----------
    norm_weight, channel_scales : float32 array, shape (in_features,)
    storage_dtype : "float32", "float16" or "bfloat16", or one of them after "1+"
        The dtype of norms in the checkpoint that is written; "1+": of their distance from 1, gamma - 1 (Gemma).

    Returns
    -------
    stored : float32 array, shape (in_features,), values representable in storage_dtype
        gamma', whatever the form in which it goes to the file.
    effective : float32 array, shape (in_features,), > 0
        What the consumers' columns are multiplied with. 1 where the norm weight is 0.

    Raises
    ------
    ShapeError
        If the shapes differ.
    RangeError
        If a scale is not positive and finite, or storage_dtype is unknown.

    Notes
    -----
    Numerics: float32; `effective` has one rounding, so the fold changes the product by 2**-24, whatever the
    storage dtype. A quotient beyond the dtype's range is stored as the nearest nonzero finite number.
    Differs from: llm-awq scales the consumers by s itself and leaves the rounding of the norm as an error.

    Examples
    --------
    >>> norm, s = np.float32([1.0, 0.0]), np.float32([3.0, 3.0])
    >>> stored, effective = fold_into_norm(norm, s, storage_dtype="bfloat16")
    >>> stored.tolist(), bool(effective[0] == np.float32(1.0 / 0.333984375)), float(effective[1])
    ([0.333984375, 0.0], True, 1.0)
    """
    require_one_of("fold_into_norm", "storage_dtype", storage_dtype, STORAGE_LIMITS)
    _require_scales("fold_into_norm", channel_scales, len(norm_weight))
    largest, smallest = STORAGE_LIMITS[storage_dtype]
    with np.errstate(over="ignore", under="ignore"):  # both ends are clipped below
        magnitude = np.clip(np.abs(norm_weight) / channel_scales, smallest, largest)
    live = norm_weight != 0
    stored = round_to(np.copysign(magnitude, norm_weight), storage_dtype)
    effective = np.where(live, norm_weight / stored, np.float32(1.0))
    return np.where(live, stored, np.float32(0.0)), effective


def fold_into_linear(weight: F32, bias: F32 | None, channel_scales: F32) -> tuple[F32, F32 | None]:
    """Return the rows and the bias of the producing linear layer divided by s.

    Equation [AWQ-8]  W'_oi = W_oi / s_o,   b'_o = b_o / s_o

    Source: Lin et al. 2023, arXiv:2306.00978, section 3.2; docs/equations.md#awq-8.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    bias : float32 array, shape (out_features,), or None
    channel_scales : float32 array, shape (out_features,)

    Raises
    ------
    ShapeError, RangeError
        If channel_scales do not fit or are not positive.
    """
    _require_scales("fold_into_linear", channel_scales, len(weight))
    return weight / channel_scales[:, None], None if bias is None else bias / channel_scales


def scale_consumer(weight: F32, channel_scales: F32) -> F32:
    """Return the columns of a consuming linear layer multiplied by s: W'_oi = W_oi s_i  [AWQ-8].

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    channel_scales : float32 array, shape (in_features,)

    Raises
    ------
    ShapeError, RangeError
        If channel_scales do not fit or are not positive.
    """
    _require_scales("scale_consumer", channel_scales, weight.shape[1])
    return weight * channel_scales


def scaled_gram(gram: F32, channel_scales: F32) -> F32:
    """Return the Gram matrix of x / s: C'_ij = C_ij / (s_i s_j). No second look at the tokens.

    Parameters
    ----------
    gram : float32 array, shape (in_features, in_features)
    channel_scales : float32 array, shape (in_features,)

    Raises
    ------
    ShapeError, RangeError
        If channel_scales do not fit or are not positive.
    """
    _require_scales("scaled_gram", channel_scales, len(gram))
    inverse = 1.0 / channel_scales
    scaled: F32 = gram * inverse * inverse[:, None]
    return scaled


@dataclass(frozen=True)
class LinearFold:
    """What the search decided for one linear layer; `apply` does it, then the layer is quantized.

    columns : float32 (in_features,) or None, channel scales that multiply the columns
    rows    : float32 (out_features,) or None, channel scales of the next site, which divide the rows
    clip    : float32 (out_features, n_groups) or None, the largest |w| left in each group, after both
    """

    columns: F32 | None = None
    rows: F32 | None = None
    clip: F32 | None = None

    def part(self, rows: slice) -> "LinearFold":
        """Return what happens to some rows of the layer."""
        scales, clip = (None if whole is None else whole[rows] for whole in (self.rows, self.clip))
        return LinearFold(self.columns, scales, clip)

    def scale(self, weight: F32, *, out: F32 | None = None) -> F32:
        """Return the weight scaled but not clipped: a new array, or out."""
        scaled: F32 = np.multiply(weight, np.float32(1.0) if self.columns is None else self.columns, out=out)
        if self.rows is not None:
            scaled /= self.rows[:, None]
        return scaled

    def limit(self, scaled: F32) -> F32:
        """Return the scaled weight with every group clipped to its limit; without limits, the same array."""
        if self.clip is None:
            return scaled
        clip = self.clip[:, :, None]
        groups = scaled.reshape(len(scaled), clip.shape[1], -1)  # (out_features, n_groups, group_size)
        return np.minimum(np.maximum(groups, -clip), clip).reshape(scaled.shape)

    def apply(self, weight: F32) -> F32:
        """Return the float32 weight that is to be quantized: scaled and clipped. A new array."""
        return self.limit(self.scale(weight))

    def apply_bias(self, bias: F32) -> F32:
        """Return the bias that goes with it."""
        return bias.copy() if self.rows is None else bias / self.rows
