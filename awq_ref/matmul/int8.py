"""A linear layer held as int8 rows, one step size each: for the head, the largest matrix of a small model.

    round_rows      a weight's rows -> int8 codes and steps
    Int8Linear      y = x W^T + b from the codes, a tile of rows at a time

The head is a quarter of Qwen2.5-0.5B. As int8 it takes a quarter of the bytes of float32, and no float copy of it ever
lies in memory: neither while it is made nor while it multiplies.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from awq_ref.buffers import scratch
from awq_ref.checks import require_dtype, require_finite, require_shape
from awq_ref.dtypes import F32
from awq_ref.matmul.dense import as_tokens
from awq_ref.threads import THREADED_WEIGHTS, blas_on_one_thread, default_threads, run_in_shares

I8: TypeAlias = NDArray[np.int8]

LARGEST = 127  # codes lie in [-127, 127]: a row and its negative have the same steps
FEW_TOKENS = 16  # above, tiles are larger and the result lies as it is returned
TILE = 2**20  # weights that a thread casts at a time: 4 MiB as float32
LARGE_TILE = 2**21


def round_rows(weight: F32) -> tuple[I8, F32]:
    """Round the rows of a weight to int8, each by its own step.

    Equation [AWQ-12]  s_r = max_c |w_rc| / 127,   q_rc = round(w_rc / s_r);  a row of zeros has s_r = 0 and q = 0
        w -> weight
        s -> steps
        q -> codes
    Source: docs/equations.md#awq-12.

    Parameters
    ----------
    weight : float32 array, shape (rows, in_features)

    Returns
    -------
    codes : int8 array, shape (rows, in_features), values in [-127, 127]
    steps : float32 array, shape (rows,)

    Raises
    ------
    RangeError
        If weight holds a NaN or an infinity.

    Notes
    -----
    Numerics: float32; ties to even.

    Examples
    --------
    >>> codes, steps = round_rows(np.float32([[127, -3, 0.25], [0, 0, 0]]))
    >>> codes.tolist(), steps.tolist()
    ([[127, -3, 0], [0, 0, 0]], [1.0, 0.0])
    """
    require_finite("round_rows", "weight", weight)
    steps: F32 = np.abs(weight).max(axis=1) / np.float32(LARGEST)
    divisors = np.where(steps > 0, steps, np.float32(1.0))
    quotients = weight / divisors[:, None]
    np.rint(quotients, out=quotients)
    np.clip(quotients, -LARGEST, LARGEST, out=quotients)  # a step below the normal numbers is itself rounded
    return quotients.astype(np.int8), steps


@dataclass(frozen=True)
class Int8Linear:
    """A linear layer as int8 codes with a step for each row: a LinearOperator.

    codes : int8, (out_features, in_features)
    steps : float32, (out_features,)
    bias  : float32, (out_features,), or None
    """

    codes: I8
    steps: F32
    bias: F32 | None = None

    def __post_init__(self) -> None:
        require_shape("Int8Linear", "codes", self.codes, (None, None))
        require_dtype("Int8Linear", "codes", self.codes, np.int8)
        for name, array in (("steps", self.steps), ("bias", self.bias)):
            if array is not None:
                require_shape("Int8Linear", name, array, (self.out_features,))
                require_dtype("Int8Linear", name, array, np.float32)

    @classmethod
    def from_rows(
        cls, parts: Iterable[F32], shape: tuple[int, int], *, bias: F32 | None = None
    ) -> "Int8Linear":
        """Round a weight that comes part by part, each float32 (rows, in_features); shape is that of all rows."""
        codes, steps = np.empty(shape, dtype=np.int8), np.empty(shape[0], dtype=np.float32)
        first = 0
        for part in parts:
            last = first + len(part)
            codes[first:last], steps[first:last] = round_rows(part)
            first = last
        require_shape("Int8Linear", "the rows of all parts", codes[:first], shape)
        return cls(codes, steps, bias)

    @property
    def residency(self) -> str:
        return "int8"

    @property
    def in_features(self) -> int:
        return int(self.codes.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.codes.shape[0])

    @property
    def resident_bytes(self) -> int:
        return self.codes.nbytes + self.steps.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: F32) -> F32:
        """Map (..., in_features) float32 to (..., out_features) float32.

        Equation [AWQ-12]  y_r = s_r (q_r . x) + b_r

        Raises
        ------
        DtypeError, ShapeError
            As `DenseLinear`.
        """
        tokens = as_tokens("Int8Linear", x, self.in_features)
        y = self._few(tokens) if len(tokens) <= FEW_TOKENS else self._many(tokens)  # (tokens, out_features)
        y *= self.steps
        if self.bias is not None:
            y += self.bias
        return y.reshape(*np.shape(x)[:-1], self.out_features)

    def _few(self, x: F32) -> F32:
        """Codes times a few tokens, rows shared among threads."""
        y = np.empty((self.out_features, len(x)), dtype=np.float32)
        threads = default_threads() if self.codes.size >= THREADED_WEIGHTS else 1
        with blas_on_one_thread():
            run_in_shares(lambda start, stop: self._share(x, y, start, stop), len(y), n_threads=threads)
        return np.ascontiguousarray(y.T)

    def _share(self, x: F32, y: F32, start: int, stop: int) -> None:
        """Write rows start..stop of y (out_features, tokens), a tile at a time."""
        step = max(1, TILE // self.in_features)
        (memory,) = scratch(((min(step, stop - start), self.in_features), np.float32))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            tile = memory[: last - first]
            np.copyto(tile, self.codes[first:last])  # exact
            if len(x) == 1:  # a matrix times a vector: BLAS has a way of its own for it
                np.dot(tile, x[0], out=y[first:last, 0])
            else:
                np.matmul(tile, x.T, out=y[first:last])

    def _many(self, x: F32) -> F32:
        """Codes times many tokens, larger tiles."""
        y = np.empty((len(x), self.out_features), dtype=np.float32)

        def share(start: int, stop: int) -> None:
            step = min(max(1, LARGE_TILE // self.in_features), stop - start)
            (memory,) = scratch(((step, self.in_features), np.float32))
            for first in range(start, stop, step):
                last = min(first + step, stop)
                tile = memory[: last - first]
                np.copyto(tile, self.codes[first:last])
                np.matmul(x, tile.T, out=y[:, first:last])

        with blas_on_one_thread():
            run_in_shares(share, self.out_features, n_threads=default_threads())
        return y
