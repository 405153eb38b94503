"""A linear layer whose weights stay packed while the model runs.

    PackedLinear   y = x W^T + b straight from packed bytes (or from codes, one byte each)

Few tokens go through the factored product, where weights are only masked and cast; for many tokens each tile is
dequantized once and BLAS does the rest. Both loops are in `awq_ref.matmul.tiles`, their meaning in
`awq_ref.matmul.reference`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from awq_ref.buffers import scratch
from awq_ref.checks import require_one_of
from awq_ref.dtypes import F32, I64, U8
from awq_ref.errors import UnsupportedError
from awq_ref.matmul.columns import (
    Columns,
    fits,
    in_tiles,
    nest_activations,
    pack_columns,
    shift_of,
    unpack_columns,
)
from awq_ref.matmul.dense import as_tokens
from awq_ref.matmul.tiles import apply_grid, multiply_dequantized, multiply_factored, weights_at_once
from awq_ref.spec import QuantizedLinear
from awq_ref.threads import THREADED_WEIGHTS, blas_on_one_thread, default_threads, run_in_shares

FEW_TOKENS = 32  # above, dequantizing pays: benchmarks/packed_vs_dense.py
MOST_SUMS = 2**24  # sums of groups of few tokens: 64 MiB
MOST_OUTPUTS = 4096  # outputs of a tile


@dataclass(frozen=True)
class PackedLinear:
    """A linear layer held as packed bytes, or as codes of one byte: a LinearOperator.

    Made by PackedLinear.from_quantized.

    weight      : Columns
    bias        : float32 (out_features,) or None
    out_features, in_features : int
    residency   : "packed" or "codes"
    n_threads   : int
    input_order : int64 (in_features,) or None: column j of the weight meets feature input_order[j] of x
    """

    weight: Columns
    bias: F32 | None
    out_features: int
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
            If a group does not fill whole bytes.
        RangeError
            If residency is another word.
        """
        require_one_of("PackedLinear", "residency", residency, ("packed", "codes"))
        bits = linear.spec.bits if residency == "packed" else 8
        why = fits(linear.in_features, linear.group_size, bits)
        if why:
            raise UnsupportedError(f'PackedLinear: {why}. Use residency="codes".')
        threads = 1 if linear.int_weight.size < THREADED_WEIGHTS else n_threads or default_threads()
        n_tiles = threads * -(-linear.out_features // (threads * MOST_OUTPUTS))  # as many for each thread
        planes = pack_columns(linear.int_weight, bits, n_groups=linear.n_groups, n_tiles=n_tiles)
        scales = in_tiles(linear.scales.T.astype(np.float32), n_tiles)
        zero_point = in_tiles(linear.zero_point.T, n_tiles)
        offset = None if linear.offset is None else in_tiles(linear.offset.T.astype(np.float32), n_tiles)
        weight = Columns(planes, scales, zero_point, shift_of(scales, zero_point, offset), bits, offset)
        out_features, in_features = linear.int_weight.shape
        return cls(weight, linear.bias, out_features, in_features, residency, threads, linear.input_order)

    @property
    def resident_bytes(self) -> int:
        return self.weight.nbytes + sum(a.nbytes for a in (self.bias, self.input_order) if a is not None)

    def int_weight(self) -> U8:
        """Return the codes, uint8 (out_features, in_features), in the order in which they lie."""
        weight, codes = self.weight, np.empty((self.out_features, self.in_features), dtype=np.uint8)
        fields = np.empty(
            (len(weight.planes), weight.n_groups, weight.group_size, weight.width), dtype=np.uint8
        )
        for tile in range(weight.n_tiles):
            rows = codes[tile * weight.width : (tile + 1) * weight.width]
            rows[:] = (
                unpack_columns(weight, tile, slice(None), fields).reshape(self.in_features, -1).T[: len(rows)]
            )
        return codes

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
        few = 0 < len(tokens) <= min(FEW_TOKENS, MOST_SUMS // self.weight.scales.size)
        with blas_on_one_thread():
            y = self._multiply_few(tokens) if few else self._multiply_many(tokens)
        y = np.ascontiguousarray(
            y[:, : self.out_features]
        )  # (tokens, out_features), without filled-up places
        if self.bias is not None:
            y += self.bias
        return y.reshape(*np.shape(x)[:-1], self.out_features)

    def _multiply_few(self, x: F32) -> F32:
        """The factored product of a few tokens."""
        weight = self.weight
        n_units = weight.n_tiles * weight.n_groups
        factors = [np.concatenate([each] * weight.n_tiles) for each in nest_activations(x, weight)]
        x_sums = np.add.reduce(x.reshape(len(x), weight.n_groups, -1), axis=2)
        (dots,) = scratch(((n_units, len(x), weight.width), np.float32), use="sums")
        work = partial(multiply_factored, factors, weight, dots, weights_at_once(self.n_threads))
        run_in_shares(work, n_units, n_threads=self.n_threads)
        return apply_grid(dots, x_sums, weight)

    def _multiply_many(self, x: F32) -> F32:
        """The product of many tokens, by the dequantized weight."""
        y = np.empty((len(x), self.weight.n_tiles * self.weight.width), dtype=np.float32)
        work = partial(multiply_dequantized, x, self.weight, y)
        run_in_shares(work, self.weight.n_tiles, n_threads=self.n_threads)
        return y
