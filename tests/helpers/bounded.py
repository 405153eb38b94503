"""Numbers that know how wrong float32 may have made them: running error analysis.

    Bounded     a value in float64 and a bound on |float32 result - value|
    exact       numbers that float32 holds as they are (weights, inputs)
    rounded     constants that float32 rounds (1 / sqrt(D), eps)
    dot, total  sums in any order, with or without fused multiply-add
    split       nested lists of Bounded -> values, bounds as float64 arrays

Each operation adds its own rounding, at most U relative to the result, to the bounds of its operands, carried through
exactly (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.3; a sum of n terms in any order:
gamma_(n-1) times the sum of the absolute values, lemma 3.1). float64's own rounding is 2**-29 of that and left out.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

U = 2.0**-24
TINY = 2.0**-126  # below it float32 loses digits: an absolute error of at most this
# float32 exp of NumPy's vector code is within 2.52 ulp (its release notes 1.17); an ulp is at most 2 U.
EXP_ULPS = 4
TANH_ULPS = 4  # of its table of polynomials the largest measured error is 1.6


@dataclass(frozen=True, slots=True)
class Bounded:
    """A real number, and a bound on the distance of its float32 counterpart."""

    value: float
    error: float = 0.0

    def _rounded(self, value: float, carried: float, unit: float = U) -> "Bounded":
        return Bounded(value, carried + unit * (abs(value) + carried) + TINY * (value != 0.0))

    def __add__(self, other: "Bounded") -> "Bounded":
        return self._rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other: "Bounded") -> "Bounded":
        return self._rounded(self.value - other.value, self.error + other.error)

    def __mul__(self, other: "Bounded") -> "Bounded":
        carried = abs(self.value) * other.error + abs(other.value) * self.error + self.error * other.error
        return self._rounded(self.value * other.value, carried)

    def __truediv__(self, other: "Bounded") -> "Bounded":
        value = self.value / other.value
        carried = (self.error + abs(value) * other.error) / (abs(other.value) - other.error)
        return self._rounded(value, carried)

    def __neg__(self) -> "Bounded":
        return Bounded(-self.value, self.error)

    def sqrt(self) -> "Bounded":
        """|sqrt(a') - sqrt(a)| = |a' - a| / (sqrt(a') + sqrt(a)) <= |a' - a| / sqrt(a)."""
        value = math.sqrt(self.value)
        return self._rounded(value, self.error / value if value else math.sqrt(self.error))

    def exp(self) -> "Bounded":
        value = math.exp(self.value)
        return self._rounded(value, value * math.expm1(self.error), 2 * EXP_ULPS * U)

    def tanh(self) -> "Bounded":
        """|tanh(a') - tanh(a)| <= |a' - a|."""
        return self._rounded(math.tanh(self.value), self.error, 2 * TANH_ULPS * U)


def exact(values: Any) -> Any:
    """Turn an array or nested list of float32 numbers into nested lists of Bounded without error."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    return [exact(v) for v in values] if isinstance(values, list) else Bounded(float(values))


def rounded(value: float) -> Bounded:
    return Bounded(value, U * abs(value))


def _gamma(n: int) -> float:
    return n * U / (1 - n * U)


def total(terms: Iterable[Bounded]) -> Bounded:
    terms = list(terms)
    carried = sum(t.error for t in terms)
    size = sum(abs(t.value) for t in terms) + carried
    return Bounded(sum(t.value for t in terms), carried + _gamma(len(terms) - 1) * size)


def dot(x: Sequence[Bounded], y: Sequence[Bounded]) -> Bounded:
    return total(a * b for a, b in zip(x, y, strict=True))


def split(nested: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values and the bounds of nested lists of Bounded."""
    values = np.array(_each(nested, lambda b: b.value), dtype=np.float64)
    return values, np.array(_each(nested, lambda b: b.error), dtype=np.float64)


def _each(nested: Any, get: Any) -> Any:
    return [_each(n, get) for n in nested] if isinstance(nested, list) else get(nested)
