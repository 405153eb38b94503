"""Random inputs for cases: the same on every machine and Python, whatever NumPy's generators do.

Draws   a seeded source of codes, words, floats and scales

`random.Random(text).random()` is fixed by Python's documentation; everything here is made of it by arithmetic that
IEEE 754 fixes. No other method of `random` is used.
"""

import random
import struct

Table = list[list[float]]
Codes = list[list[int]]


def to_float32(value: float) -> float:
    """Return the nearest float32, as a Python float."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def to_float16(value: float) -> float:
    """Return the nearest float16, as a Python float."""
    return float(struct.unpack("<e", struct.pack("<e", value))[0])


class Draws:
    """A seeded source of inputs; the seed is a text, the case's id."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def below(self, n: int) -> int:
        """Return an integer from 0 to n - 1."""
        return int(self._random.random() * n)

    def normal(self) -> float:
        """Return a number of about a normal distribution: twelve uniform ones, summed one by one, less 6."""
        total = -6.0
        for _ in range(12):
            total += self._random.random()
        return total

    def codes(self, rows: int, columns: int, bits: int) -> Codes:
        """Return codes of these many bits."""
        return [[self.below(2**bits) for _ in range(columns)] for _ in range(rows)]

    def words(self, rows: int, columns: int, bits: int = 32) -> Codes:
        """Return random words, signed: every bit pattern is as likely as any other."""
        return [[self.below(2**bits) - 2 ** (bits - 1) for _ in range(columns)] for _ in range(rows)]

    def floats(self, rows: int, columns: int, scale: float = 1.0) -> Table:
        """Return float32 numbers of about a normal distribution."""
        return [[to_float32(self.normal() * scale) for _ in range(columns)] for _ in range(rows)]

    def halves(self, rows: int, columns: int, scale: float = 1.0) -> Table:
        """Return float16 numbers of about a normal distribution."""
        return [[to_float16(self.normal() * scale) for _ in range(columns)] for _ in range(rows)]

    def scales(self, rows: int, columns: int, scale: float = 0.02) -> Table:
        """Return positive float16 numbers between scale / 2 and 3 scale / 2."""
        return [
            [to_float16((0.5 + self._random.random()) * scale) for _ in range(columns)] for _ in range(rows)
        ]
