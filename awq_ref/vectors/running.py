"""Numbers that know how wrong float32 may have made them: running error analysis.

    Bounded      a value in float64, and a bound on the distance of a float32 backend's
    Likely       the same with roundings taken as independent: for long chains, where the bound would say nothing
    exact_row    numbers that float32 holds as they are
    dot, total   sums in any order, fused or not
    slack        room for a few more roundings
    Weights      a linear

Each operation adds its own rounding, at most U of the result, to the bounds of its operands, carried through exactly
(Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.3 and lemma 3.1). Through the two matrices of
an MLP such a bound grows a hundredfold, though errors of both signs mostly cancel; `Likely` adds them in quadrature,
and takes sqrt(n) for n in a sum (Higham and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis, SIAM J.
Sci. Comput. 41). float64's own rounding is 2^-29 of all that and left out. No function of a platform's mathematical
library takes part but sqrt, which IEEE 754 fixes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul

from awq_ref.vectors import oracle_real

U = 2.0**-24
TINY = 2.0**-126  # below it float32 loses digits: an absolute error of at most this
FUNCTION_ULPS = 4  # of exp and tanh in float32: what vector libraries promise
GPU_ULPS = 4  # of a division or root that is computed as a product with an approximate reciprocal


def _gamma(k: int) -> float:
    return k * U / (1.0 - k * U)


@dataclass(frozen=True, slots=True)
class Bounded:
    """A real number, and a bound on the distance of its float32 counterpart."""

    value: float
    error: float = 0.0

    @staticmethod
    def together(errors: Iterable[float]) -> float:
        """Return what several errors make together."""
        return math.fsum(errors)

    @staticmethod
    def of_sum(n: int) -> float:
        """Return the error of a sum of n terms, relative to the sum of their absolute values."""
        return _gamma(n)

    def _result(self, other: "Bounded", value: float, errors: Iterable[float], unit: float = U) -> "Bounded":
        kind = type(self) if type(self) is not Bounded else type(other)
        carried = kind.together(errors)
        return kind(value, kind.together((carried, unit * (abs(value) + carried))) + TINY * (value != 0.0))

    def __add__(self, other: "Bounded") -> "Bounded":
        return self._result(other, self.value + other.value, (self.error, other.error))

    def __sub__(self, other: "Bounded") -> "Bounded":
        return self._result(other, self.value - other.value, (self.error, other.error))

    def __mul__(self, other: "Bounded") -> "Bounded":
        mine, theirs = abs(self.value) * other.error, abs(other.value) * self.error
        return self._result(other, self.value * other.value, (mine, theirs, self.error * other.error))

    def __truediv__(self, other: "Bounded") -> "Bounded":
        value, least = self.value / other.value, abs(other.value) - other.error
        assert least > 0.0, "a divisor that may be 0"
        return self._result(
            other, value, (self.error / least, abs(value) * other.error / least), GPU_ULPS * U
        )

    def __neg__(self) -> "Bounded":
        return type(self)(-self.value, self.error)

    def sqrt(self) -> "Bounded":
        """|sqrt(a') - sqrt(a)| = |a' - a| / (sqrt(a') + sqrt(a)) <= |a' - a| / sqrt(a)."""
        value = math.sqrt(self.value)
        return self._result(self, value, (self.error / value,), GPU_ULPS * U)

    def exp(self) -> "Bounded":
        """|e^a' - e^a| <= e^a (e^|a' - a| - 1), and e^d - 1 <= d (1 + d) for d <= 1."""
        assert self.error <= 1.0, "an exponent that is not known"
        value = oracle_real.exp(self.value)
        return self._result(self, value, (value * self.error * (1.0 + self.error),), 2 * FUNCTION_ULPS * U)

    def tanh(self) -> "Bounded":
        """|tanh(a') - tanh(a)| <= |a' - a|."""
        return self._result(self, oracle_real.tanh(self.value), (self.error,), 2 * FUNCTION_ULPS * U)


class Likely(Bounded):
    """A real number, and the size that the error of its float32 counterpart is likely to have."""

    __slots__ = ()

    @staticmethod
    def together(errors: Iterable[float]) -> float:
        """Return what several independent errors make together: the root of the sum of their squares."""
        return math.sqrt(math.fsum(error * error for error in errors))

    @staticmethod
    def of_sum(n: int) -> float:
        """Return sqrt(n) u."""
        return math.sqrt(n) * U


Vector = list[Bounded]


def exact_row(values: Sequence[float], kind: type[Bounded] = Bounded) -> Vector:
    """Return numbers without error."""
    return [kind(value) for value in values]


def slack(x: Bounded, roundings: int) -> Bounded:
    """Return x with room for a few more roundings of its own."""
    return type(x)(x.value, x.error + roundings * U * (abs(x.value) + x.error))


def dot(a: Vector, b: Vector) -> Bounded:
    """Return the sum of products, in any order."""
    kind = type(a[0]) if type(a[0]) is not Bounded else type(b[0])
    errors: list[float] = []
    for x, y in zip(a, b, strict=True):
        errors += (abs(x.value) * y.error, abs(y.value) * x.error, x.error * y.error)
    carried = kind.together(errors)
    products = [x.value * y.value for x, y in zip(a, b, strict=True)]
    size = math.fsum(map(abs, products))
    own = kind.of_sum(len(a) + 1) * (size + carried) + TINY
    return kind(math.fsum(products), kind.together((carried, own)))


def total(a: Vector) -> Bounded:
    """Return the sum, in any order."""
    kind = type(a[0])
    carried, size = kind.together(x.error for x in a), math.fsum(abs(x.value) for x in a)
    own = kind.of_sum(len(a)) * (size + carried)
    return kind(math.fsum(x.value for x in a), kind.together((carried, own)))


@dataclass(frozen=True)
class Weights:
    """A linear's weights: exact values, and the size of the terms that a backend may add up to get each of them.

    rows      : w, exact in float64
    sizes     : |w| of a float linear; s (q + z) of one of integers, whose zero point may be taken out of the sum
    roundings : on the way of a term into the sum
    """

    rows: list[list[float]]
    sizes: list[list[float]]
    roundings: int

    def __call__(self, x: Vector) -> Vector:
        """Return y = x w^T."""
        kind = type(x[0])
        values, errors = [b.value for b in x], [b.error for b in x]
        reached = [abs(b.value) + b.error for b in x]
        factor = kind.of_sum(self.roundings)
        outputs: Vector = []
        for row, sizes in zip(self.rows, self.sizes, strict=True):
            carried = kind.together(map(mul, map(abs, row), errors))
            own = factor * math.fsum(map(mul, sizes, reached))
            outputs.append(kind(math.fsum(map(mul, row, values)), kind.together((carried, own))))
        return outputs


def float_weights(rows: list[list[float]]) -> Weights:
    """Return the weights of a float linear."""
    return Weights(rows, [[abs(w) for w in row] for row in rows], len(rows[0]) + 1)
