"""A linear layer whose weights stay packed while the model runs.

    PackedLinear   y = x W^T + b straight from packed bytes (or from codes, one byte each)

Few tokens go through the factored product, where weights are only masked and cast; for many tokens each tile is
dequantized once and BLAS does the rest. Both loops are in `awq_ref.matmul.tiles`, their meaning in
`awq_ref.matmul.reference`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from awq_ref.checks import require_one_of
from awq_ref.dtypes import F32, I64, U8
from awq_ref.errors import UnsupportedError
from awq_ref.matmul.dense import as_tokens
from awq_ref.matmul.planes import fits, pack_planes
from awq_ref.matmul.threads import default_threads, run_in_shares
from awq_ref.matmul.tiles import (
    Planes,
    multiply_dequantized,
    multiply_factored,
    reorder_activations,
    segment_bytes,
    unpack_rows,
)
from awq_ref.spec import QuantizedLinear

FEW_TOKENS = 32  # above, dequantizing pays: benchmarks/packed_vs_dense.py
THREADED_WEIGHTS = 2**20  # a smaller layer is done before a second thread has started


@dataclass(frozen=True)
class PackedLinear:
    """A linear layer held as packed bytes, or as codes of one byte: a LinearOperator.

    Made by PackedLinear.from_quantized.

    weight      : Planes
    bias        : float32 (out_features,) or None
    in_features : int
    residency   : "packed" or "codes"
    n_threads   : int
    input_order : int64 (in_features,) or None: column j of the weight meets feature input_order[j] of x
    """

    weight: Planes
    bias: F32 | None
    in_features: int
    residency: Literal["packed", "codes"]
    n_threads: int
    input_order: I64 | None = None

    @classmethod
    def from_quantized(
        cls,
        linear: QuantizedLinear,
        *,
        residency: Literal["packed", "codes"] = "packed",
        n_threads: int | None = None,
    ) -> "PackedLinear":
        """Pack a quantized layer for running.

        Parameters
        ----------
        linear : QuantizedLinear
        residency : "packed" or "codes"
            Fields of spec.bits bits, or one byte per code, which takes any group size.
        n_threads : int or None
            Threads for a large layer; None: one per processor this process may use. A small one uses one.

        Raises
        ------
        UnsupportedError
            If the group size is no multiple of the block that packed planes need.
        RangeError
            If residency is another word.
        """
        require_one_of("PackedLinear", "residency", residency, ("packed", "codes"))
        bits = linear.spec.bits if residency == "packed" else 8
        why = fits(linear.in_features, linear.group_size, bits)
        if why:
            raise UnsupportedError(f'PackedLinear: {why}. Use residency="codes".')
        planes = tuple(_by_segments(plane, linear.n_groups) for plane in pack_planes(linear.int_weight, bits))
        offset = None if linear.offset is None else linear.offset.T.copy()
        weight = Planes(planes, linear.scales.T.copy(), linear.zero_point.T.copy(), bits, offset)
        threads = 1 if linear.int_weight.size < THREADED_WEIGHTS else n_threads or default_threads()
        return cls(weight, linear.bias, linear.in_features, residency, threads, linear.input_order)

    @property
    def out_features(self) -> int:
        return int(self.weight.scales.shape[1])

    @property
    def resident_bytes(self) -> int:
        arrays = [*self.weight.planes, self.weight.scales, self.weight.zero_point]
        optional = (self.bias, self.weight.offset, self.input_order)
        return sum(array.nbytes for array in (*arrays, *optional) if array is not None)

    def int_weight(self) -> U8:
        """Return the codes, uint8 (out_features, in_features), in the order in which they lie."""
        return unpack_rows(self.weight, 0, self.out_features)

    def __call__(self, x: F32) -> F32:
        """Map (..., in_features) float32 to (..., out_features) float32.

        Equation [AWQ-10]; the forward-error bound is in docs/equations.md#awq-10.

        Raises
        ------
        DtypeError
            If x is not float32.
        ShapeError
            If x has another number of features.
        """
        tokens = as_tokens("PackedLinear", x, self.in_features)
        if self.input_order is not None:
            tokens = tokens[:, self.input_order]
        few = 0 < len(tokens) <= FEW_TOKENS
        y = self._multiply_few(tokens) if few else self._multiply_many(tokens)  # (tokens, out_features)
        if self.bias is not None:
            y += self.bias
        return y.reshape(*np.shape(x)[:-1], self.out_features)

    def _multiply_few(self, x: F32) -> F32:
        """The factored product of a few tokens, rows shared among threads."""
        y = np.empty((self.out_features, len(x)), dtype=np.float32)
        reordered = reorder_activations(x, self.weight)
        x_sums = x.reshape(len(x), self.weight.n_groups, -1).sum(axis=2).T[:, None]  # (n_groups, 1, tokens)
        run_in_shares(
            lambda start, stop: multiply_factored(reordered, x_sums, self.weight, y, start, stop),
            self.out_features,
            n_threads=self.n_threads,
            multiple=256,
        )
        return np.ascontiguousarray(y.T)  # (tokens, out_features)

    def _multiply_many(self, x: F32) -> F32:
        """The product of many tokens, tile by dequantized tile."""
        y = np.empty((len(x), self.out_features), dtype=np.float32)
        multiply_dequantized(x, self.weight, y, n_threads=self.n_threads)
        return y


def _by_segments(plane: U8, n_groups: int) -> U8:
    """(out_features, row bytes) -> (segments, out_features, bytes): what one product reads lies together."""
    n_bytes = segment_bytes(plane.shape[1] // n_groups)
    return np.ascontiguousarray(
        plane.reshape(len(plane), plane.shape[1] // n_bytes, n_bytes).transpose(1, 0, 2)
    )
