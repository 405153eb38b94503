"""The records that travel between the rooms.

QuantSpec         how weights become integers: bits, group size, symmetric or not, range rule, scale dtype
Rounding          how a weight finds its integer on the grid: to the nearest, or with error feedback
QuantizedLinear   one linear layer as integers, scales and zero points, before packing
LinearOperator    what the decoder asks of a linear layer, however its weights are stored
"""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from awq_ref.checks import (
    require_between,
    require_dtype,
    require_group_size,
    require_one_of,
    require_shape,
)
from awq_ref.dtypes import F16, F32, I64, U8
from awq_ref.errors import RangeError

BITS = (2, 3, 4, 8)
RangeRule = Literal["zero", "minmax"]
ScaleDtype = Literal["float16", "float32"]
StateDtype = Literal["float32", "float16"]  # of hidden states between blocks, while a model is calibrated
STATE_DTYPES: tuple[StateDtype, ...] = get_args(StateDtype)


@dataclass(frozen=True)
class QuantSpec:
    """How the weights of a linear layer become integers.

    Parameters
    ----------
    bits : int
        2, 3, 4 or 8.
    group_size : int
        Number of neighbouring weights of a row that share a scale; divides in_features. -1: the whole row.
    symmetric : bool
        True: the zero point is 2**(bits-1) everywhere; False: every group has its own.
    range_rule : "zero" or "minmax"
        "zero" widens the range of a group to contain 0 (docs/decisions.md#range-contains-zero); "minmax" is the
        published AWQ formula, which destroys groups whose weights all have one sign.
    scale_dtype : "float16" or "float32"
        The dtype in which scales are stored. Integers are computed from the scale rounded to it.

    Raises
    ------
    RangeError
        If a field is none of these.
    """

    bits: int = 4
    group_size: int = 128
    symmetric: bool = False
    range_rule: RangeRule = "zero"
    scale_dtype: ScaleDtype = "float16"

    def __post_init__(self) -> None:
        require_one_of("QuantSpec", "bits", self.bits, BITS)
        require_one_of("QuantSpec", "range_rule", self.range_rule, get_args(RangeRule))
        require_one_of("QuantSpec", "scale_dtype", self.scale_dtype, get_args(ScaleDtype))
        if self.group_size != -1:
            require_between("QuantSpec", "group_size", self.group_size, 1, 2**31)

    @property
    def qmax(self) -> int:
        """The largest code: 2**bits - 1. The smallest is 0."""
        return int(2**self.bits) - 1

    @property
    def symmetric_zero_point(self) -> int:
        return int(2 ** (self.bits - 1))


@dataclass(frozen=True)
class Rounding:
    """How the weights of a layer become integers, once their channel scales are folded in.

    Parameters
    ----------
    method : "nearest" or "feedback"
        Each weight by itself, or GPTQ: the weights after it mend what rounding one breaks.
    act_order : bool
        Feedback in the order of falling activations, on grids that are fixed before it starts ("static groups").
    searched_ranges : bool
        Both ends of a group's range are searched for; else they are its extreme weights.
    descent : int
        Passes of coordinate descent over the integers afterwards.
    guard : bool
        Rows that round-to-nearest serves better keep its integers.
    damping : float
        Share of the Gram matrix's mean diagonal that is added to it.

    Raises
    ------
    RangeError
        If a field is none of these, or one that needs feedback is set without it.
    """

    method: Literal["nearest", "feedback"] = "nearest"
    act_order: bool = False
    searched_ranges: bool = False
    descent: int = 0
    guard: bool = False
    damping: float = 0.01

    def __post_init__(self) -> None:
        require_one_of("Rounding", "method", self.method, ("nearest", "feedback"))
        require_between("Rounding", "descent", self.descent, 0, 2**31)
        require_between("Rounding", "damping", self.damping, 0.0, 1.0)
        if not self.feeds_back and (self.act_order or self.searched_ranges or self.descent or self.guard):
            raise RangeError(
                "Rounding: act_order, searched_ranges, descent and guard need method='feedback'."
            )

    @property
    def feeds_back(self) -> bool:
        """True where the Gram matrix of the inputs is needed."""
        return self.method == "feedback"


@dataclass(frozen=True)
class QuantizedLinear:
    """One linear layer as integers: weight ~ (int_weight - zero_point) * scales, group by group.

    int_weight  : uint8, (out_features, in_features), values in [0, 2**bits - 1]
    scales      : float16 or float32 (spec.scale_dtype), (out_features, n_groups), finite; > 0 unless a file says else
    zero_point  : uint8, (out_features, n_groups), values in [0, 2**bits - 1]
    bias        : float32 (out_features,) or None
    offset      : spec.scale_dtype, (out_features, n_groups), or None; what a file adds to int_weight * scales where
                  it stores no zero points: they are 0 then (docs/decisions.md#stored-offsets)
    input_order : int64 (in_features,) or None; column j of int_weight belongs to input input_order[j]
                  (docs/decisions.md#groups-of-arbitrary-columns)
    """

    int_weight: U8
    scales: F16 | F32
    zero_point: U8
    spec: QuantSpec
    bias: F32 | None = None
    offset: F16 | F32 | None = None
    input_order: I64 | None = None

    def __post_init__(self) -> None:
        who = "QuantizedLinear"
        require_shape(who, "int_weight", self.int_weight, (None, None))
        group = require_group_size(who, self.in_features, self.spec.group_size)
        shape = (self.out_features, self.in_features // group)
        for name, array in (("scales", self.scales), ("zero_point", self.zero_point)):
            require_shape(who, name, array, shape)
        require_dtype(who, "int_weight", self.int_weight, np.uint8)
        require_dtype(who, "zero_point", self.zero_point, np.uint8)
        require_dtype(who, "scales", self.scales, self.spec.scale_dtype)
        for name, codes in (("int_weight", self.int_weight), ("zero_point", self.zero_point)):
            if codes.size and int(codes.max()) > self.spec.qmax:
                raise RangeError(f"{who}: {name} must be at most {self.spec.qmax}; got {int(codes.max())}.")
        if self.bias is not None:
            require_shape(who, "bias", self.bias, (self.out_features,))
        self._check_stored()

    def _check_stored(self) -> None:
        """Check what only files of others have."""
        who = "QuantizedLinear"
        if self.offset is not None:
            require_shape(who, "offset", self.offset, self.scales.shape)
            require_dtype(who, "offset", self.offset, self.spec.scale_dtype)
            if self.zero_point.any():
                raise RangeError(
                    f"{who}: zero_point must be 0 everywhere beside an offset; got {int(self.zero_point.max())}. "
                    "Give one of the two."
                )
        if self.input_order is not None:
            require_shape(who, "input_order", self.input_order, (self.in_features,))
            require_dtype(who, "input_order", self.input_order, np.int64)
            if not np.array_equal(np.sort(self.input_order), np.arange(self.in_features, dtype=np.int64)):
                raise RangeError(f"{who}: input_order must hold each of 0 to {self.in_features - 1} once.")

    @property
    def out_features(self) -> int:
        return int(self.int_weight.shape[0])

    @property
    def in_features(self) -> int:
        return int(self.int_weight.shape[1])

    @property
    def n_groups(self) -> int:
        return int(self.scales.shape[1])

    @property
    def group_size(self) -> int:
        """The number of weights in a group; never -1."""
        return self.in_features // self.n_groups


class LinearOperator(Protocol):
    """A linear layer as the decoder sees it: y = x W^T + b, however W is stored."""

    @property
    def in_features(self) -> int: ...

    @property
    def out_features(self) -> int: ...

    @property
    def resident_bytes(self) -> int:
        """Bytes of the arrays that stay in memory."""

    def __call__(self, x: F32) -> F32:
        """Map (..., in_features) float32 to (..., out_features) float32."""
