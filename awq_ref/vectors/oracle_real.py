"""Functions of real numbers that are the same on every machine: 40 digits of decimal arithmetic, rounded once.

    exp, log, power, tanh, cos_sin   float64 results; the mathematical library of a platform takes no part

Python's `decimal` computes exp and ln to the last digit of its precision; the series of cosine and sine are summed in
it. Source: Python documentation, module decimal; the Taylor series.
"""

from decimal import Context, Decimal
from functools import lru_cache

CONTEXT = Context(prec=40)
TURN = Decimal("6.28318530717958647692528676655900576839433879875021164194988918")  # 2 pi
ONE = Decimal(1)
TERMS = 40  # of the series: pi**40 / 40! is below 1e-27


@lru_cache(maxsize=1 << 16)
def exp(x: float) -> float:
    """Return e**x."""
    return float(CONTEXT.exp(Decimal(x)))


def log(x: float) -> float:
    """Return the natural logarithm."""
    return float(CONTEXT.ln(Decimal(x)))


@lru_cache(maxsize=1 << 12)
def power(base: float, exponent: float) -> float:
    """Return base**exponent for base >= 0; 0**0 is 1."""
    if exponent == 0.0:
        return 1.0
    if base == 0.0:
        return 0.0
    logarithm = CONTEXT.ln(Decimal(base))
    return float(CONTEXT.exp(CONTEXT.multiply(logarithm, Decimal(exponent))))


def tanh(x: float) -> float:
    """Return (e**2x - 1) / (e**2x + 1)."""
    if abs(x) > 30.0:
        return 1.0 if x > 0 else -1.0
    double = CONTEXT.exp(Decimal(2.0 * x))
    return float(CONTEXT.divide(CONTEXT.subtract(double, ONE), CONTEXT.add(double, ONE)))


@lru_cache(maxsize=1 << 12)
def cos_sin(angle: float) -> tuple[float, float]:
    """Return cosine and sine of an angle in radians.

    Examples
    --------
    >>> cos_sin(0.0)
    (1.0, 0.0)
    """
    turns = CONTEXT.remainder_near(Decimal(angle), TURN)  # within +-pi
    square = CONTEXT.multiply(turns, turns)
    cosine, sine = Decimal(0), Decimal(0)
    cosine_term, sine_term = Decimal(1), turns
    for k in range(1, TERMS):
        cosine, sine = CONTEXT.add(cosine, cosine_term), CONTEXT.add(sine, sine_term)
        cosine_term = CONTEXT.divide(CONTEXT.multiply(cosine_term, square), Decimal(-(2 * k - 1) * 2 * k))
        sine_term = CONTEXT.divide(CONTEXT.multiply(sine_term, square), Decimal(-2 * k * (2 * k + 1)))
    return float(cosine), float(sine)
