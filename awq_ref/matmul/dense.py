"""A linear layer held as float32.

as_tokens     check activations and flatten their leading axes
DenseLinear   y = x W^T + b through BLAS, tokens or outputs shared among our threads
"""

from dataclasses import dataclass

import numpy as np

from awq_ref.checks import require_dtype, require_shape
from awq_ref.dtypes import F32
from awq_ref.threads import THREADED_WEIGHTS, blas_on_one_thread, default_threads, run_in_shares


def as_tokens(who: str, x: F32, in_features: int) -> F32:
    """Return x (..., in_features) as (tokens, in_features); DtypeError or ShapeError unless it fits."""
    x = np.asarray(x)
    require_dtype(who, "x", x, np.float32)
    require_shape(who, "x", x, (*x.shape[:-1], in_features))
    return x.reshape(-1, in_features)


@dataclass(frozen=True)
class DenseLinear:
    """A linear layer whose weights stay float32: the LinearOperator of residency "dense".

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    bias : float32 array, shape (out_features,), or None

    Raises
    ------
    ShapeError
        If weight is not 2-D or bias does not fit; when called, if x has another number of features.
    DtypeError
        If weight or bias, or x when called, is not float32.
    """

    weight: F32
    bias: F32 | None = None

    def __post_init__(self) -> None:
        require_shape("DenseLinear", "weight", self.weight, (None, None))
        require_dtype("DenseLinear", "weight", self.weight, np.float32)
        if self.bias is not None:
            require_shape("DenseLinear", "bias", self.bias, (self.out_features,))
            require_dtype("DenseLinear", "bias", self.bias, np.float32)

    @property
    def residency(self) -> str:
        return "dense"

    @property
    def in_features(self) -> int:
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.weight.shape[0])

    @property
    def resident_bytes(self) -> int:
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: F32) -> F32:
        """Map (..., in_features) float32 to (..., out_features) float32."""
        tokens = as_tokens("DenseLinear", x, self.in_features)
        y = np.empty((len(tokens), self.out_features), dtype=np.float32)
        by_tokens = 2 * len(tokens) >= self.out_features  # the longer axis is cut

        def work(start: int, stop: int) -> None:
            if by_tokens:
                np.matmul(tokens[start:stop], self.weight.T, out=y[start:stop])
            elif len(tokens) == 1:  # a matrix times a vector: BLAS has a way of its own for it
                np.dot(self.weight[start:stop], tokens[0], out=y[0, start:stop])
            else:
                np.matmul(tokens, self.weight[start:stop].T, out=y[:, start:stop])

        enough = self.weight.size * len(tokens) >= THREADED_WEIGHTS
        with blas_on_one_thread():
            run_in_shares(
                work,
                len(tokens) if by_tokens else self.out_features,
                n_threads=default_threads() if enough else 1,
                multiple=16,
            )
        if self.bias is not None:
            y += self.bias
        return y.reshape(*x.shape[:-1], self.out_features)
