"""Rounding in exact arithmetic: what float16 and float32 make of a rational number.

    round_to     nearest number of so many digits, ties to even, with subnormals
    fl16, fl32   the two formats
    rint         nearest integer, ties to even
    OutOfFormatError  raised where the format has only infinity

Everything is a Fraction: no float takes part, so nothing depends on a machine. Source: IEEE 754-2019, section 4.3.1.
"""

from fractions import Fraction

from awq_ref.errors import RangeError


class OutOfFormatError(RangeError):
    """A number that a float format cannot hold."""


def _exponent(value: Fraction) -> int:
    """Return e with 2**e <= |value| < 2**(e+1)."""
    guess = abs(value.numerator).bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= abs(value) else guess - 1


def rint(value: Fraction) -> int:
    """Return the nearest integer, of two the even one.

    Examples
    --------
    >>> [rint(Fraction(n, 2)) for n in (-3, -1, 1, 3, 5)]
    [-2, 0, 0, 2, 2]
    """
    below = value.numerator // value.denominator
    rest = value - below
    if rest == Fraction(1, 2):
        return below + below % 2
    return below + (rest > Fraction(1, 2))


def round_to(value: Fraction, digits: int, smallest: int, largest: int) -> Fraction:
    """Return the nearest number m 2**e with |m| < 2**digits and e >= smallest.

    Raises
    ------
    OutOfFormatError
        If the result is 2**largest or more.
    """
    if value == 0:
        return value
    unit = Fraction(2) ** max(_exponent(value) - digits + 1, smallest)
    result = rint(value / unit) * unit
    if abs(result) >= Fraction(2) ** largest:
        raise OutOfFormatError(f"round_to: must be below 2**{largest}; got {float(value):g}.")
    return result


def fl16(value: Fraction) -> Fraction:
    """Return the nearest float16.

    Examples
    --------
    >>> fl16(Fraction(1, 10)) == Fraction(1638, 2**14)
    True
    """
    return round_to(value, 11, -24, 16)


def fl32(value: Fraction) -> Fraction:
    """Return the nearest float32.

    Examples
    --------
    >>> fl32(Fraction(1, 10)) == Fraction(13421773, 2**27)
    True
    """
    return round_to(value, 24, -149, 128)


FORMATS = {"float16": fl16, "float32": fl32}
