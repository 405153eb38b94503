"""Linears that read the same input, as one product.

    JoinedPart   some rows of a joined linear, as a linear of its own
    parts_of     a joined linear -> its parts
    project      x -> what several linears make of it, in one product if they are parts of one

Queries, keys and values read one array, gate and up another. Where a model is loaded to run, the rows of such linears
lie in one matrix: a token then costs four products in each layer, not seven. The names stay: whoever replaces a part,
to watch its inputs or to change its weights, gets what is asked for, and the others are multiplied alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from awq_ref.dtypes import F32
from awq_ref.spec import LinearOperator


@dataclass(frozen=True, eq=False)
class JoinedPart:
    """Rows first to last of a joined linear: a LinearOperator, which called alone multiplies by the whole."""

    whole: LinearOperator
    first: int
    last: int

    @property
    def in_features(self) -> int:
        return self.whole.in_features

    @property
    def out_features(self) -> int:
        return self.last - self.first

    @property
    def residency(self) -> str:
        return str(getattr(self.whole, "residency", "dense"))

    @property
    def resident_bytes(self) -> int:
        """Its share of the whole; the shares of all parts add up to it."""
        total, rows = self.whole.resident_bytes, self.whole.out_features
        return total * self.last // rows - total * self.first // rows

    @property
    def weight(self) -> Any:
        """Its rows of a whole that is held as floats: a view."""
        return self.whole.weight[self.first : self.last]  # type: ignore[attr-defined]

    @property
    def bias(self) -> F32 | None:
        bias: F32 | None = getattr(self.whole, "bias", None)
        return None if bias is None else bias[self.first : self.last]

    def __call__(self, x: F32) -> F32:
        """Map (..., in_features) float32 to (..., out_features) float32."""
        return self.whole(x)[..., self.first : self.last]


def parts_of(whole: LinearOperator, sizes: Sequence[int]) -> list[JoinedPart]:
    """Return the parts of a joined linear, given the rows of each."""
    ends = list(accumulate(sizes))
    return [JoinedPart(whole, last - size, last) for size, last in zip(sizes, ends, strict=True)]


def project(x: F32, linears: Mapping[str, LinearOperator], names: Sequence[str]) -> list[F32]:
    """Return what each of some linears makes of x, (..., its out_features): views of one product where that is all.

    Parameters
    ----------
    x : float32 array, shape (..., in_features)
    linears : mapping from name to linear
    names : sequence of str
        Of those that read x.
    """
    parts = [linears[name] for name in names]
    whole = getattr(parts[0], "whole", None)
    if whole is None or any(getattr(part, "whole", None) is not whole for part in parts):
        return [part(x) for part in parts]
    y = whole(x)  # (..., rows of all parts)
    return [y[..., part.first : part.last] for part in parts]  # type: ignore[attr-defined]
