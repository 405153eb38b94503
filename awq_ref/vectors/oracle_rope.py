"""Oracle of rope at level 5: frequencies of every type, pair by pair, and one head turned.

    Rope      the parameters of `rope`, with the frequencies and the attention factor that follow from them
    rotated   one head's channels, turned by the angles of a position

Logarithms, powers, cosines and sines come from 40-digit decimals (`awq_ref.vectors.oracle_real`). Source: the papers
named in docs/equations.md#llm-14; docs/conformance.md#l5-operators.
"""

import math
from dataclasses import dataclass

from awq_ref.vectors.oracle_real import cos_sin, log, power
from awq_ref.vectors.running import Bounded, U, Vector

ANGLE_ULPS = 8  # of an angle that was held in float32: frequency, product, argument
# A base that is rescaled, or a ramp between two frequencies: its end, width, quotient, two products and their sum.
RESCALED_ULPS = 24
NEWER = ("dynamic", "yarn", "longrope")
APART = 0.01  # how far a pair's number must be from an integer that it is rounded to


@dataclass(frozen=True)
class Rope:
    """The parameters of `rope`, as the request names them."""

    theta: float
    rotary_dim: int
    pairing: str = "half"
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 1
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def frequencies(self, length: int = 0) -> list[float]:
        """Return the angle from one position to the next, for each pair, in a text of `length` tokens."""
        plain = [power(self.theta, -2.0 * i / self.rotary_dim) for i in range(self.rotary_dim // 2)]
        if self.rope_type == "linear":
            return [f / self.factor for f in plain]
        if self.rope_type == "llama3":
            return [self._blended(f) for f in plain]
        if self.rope_type == "dynamic":
            base = self._larger_base(length)
            return [power(base, -2.0 * i / self.rotary_dim) for i in range(len(plain))]
        if self.rope_type == "yarn":
            return [self._ramped(i, f) for i, f in enumerate(plain)]
        if self.rope_type == "longrope":
            is_long = length > self.original_max_position_embeddings
            factors = self.long_factor if is_long else self.short_factor
            return [f / factor for f, factor in zip(plain, factors, strict=True)]
        return plain

    def _blended(self, f: float) -> float:
        turns = self.original_max_position_embeddings * f / (2.0 * math.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = max(0.0, min(1.0, kept))
        return kept * f + (1.0 - kept) * f / self.factor

    def _larger_base(self, length: int) -> float:
        original, dim = self.original_max_position_embeddings, self.rotary_dim
        stretch = self.factor * max(length, original) / original - (self.factor - 1.0)
        return self.theta * power(stretch, dim / (dim - 2))

    def _pair_that_turns(self, times: float) -> float:
        """Return i, a fraction, where original * theta^(-2 i / rotary_dim) = 2 pi times."""
        waves = self.original_max_position_embeddings / (2.0 * math.pi * times)
        return self.rotary_dim * log(waves) / (2.0 * log(self.theta))

    def _ramped(self, i: int, f: float) -> float:
        fast, slow = self._pair_that_turns(self.beta_fast), self._pair_that_turns(self.beta_slow)
        assert all(abs(end - round(end)) > APART for end in (fast, slow)), "a pair that rounding decides"
        if self.truncate:
            fast, slow = math.floor(fast), math.ceil(slow)
        fast, slow = max(fast, 0), min(slow, self.rotary_dim - 1)
        if i <= fast:
            return f
        if i >= slow:
            return f / self.factor
        slowed = (i - fast) / (slow - fast)
        return (1.0 - slowed) * f + slowed * f / self.factor

    def attention_factor(self) -> float:
        """Return what cosines and sines are multiplied by."""
        grown = log(self.factor) if self.factor > 1.0 else 0.0
        if self.rope_type == "yarn":
            if self.mscale and self.mscale_all_dim:
                return (0.1 * self.mscale * grown + 1.0) / (0.1 * self.mscale_all_dim * grown + 1.0)
            return 0.1 * grown + 1.0
        if self.rope_type == "longrope":
            return math.sqrt(1.0 + grown / log(self.original_max_position_embeddings))
        return 1.0

    def pair(self, i: int) -> tuple[int, int]:
        """Return the channels that turn together."""
        half = self.rotary_dim // 2
        return (i, i + half) if self.pairing == "half" else (2 * i, 2 * i + 1)


def rotated(x: Vector, position: int, rope: Rope, length: int = 0) -> Vector:
    """Return one head's channels, turned by the angles of a position in a text of `length` tokens."""
    y = list(x)
    newer = rope.rope_type in NEWER
    ulps, m = RESCALED_ULPS if newer else ANGLE_ULPS, rope.attention_factor()
    for i, frequency in enumerate(rope.frequencies(length)):
        angle = position * frequency
        cosine, sine = cos_sin(angle)
        off = ulps * U * abs(angle) + 2 * U
        c, s = Bounded(cosine, off), Bounded(sine, off)
        if newer:
            c, s = c * Bounded(m, 2 * U * m), s * Bounded(m, 2 * U * m)
        a, b = rope.pair(i)
        y[a], y[b] = x[a] * c - x[b] * s, x[b] * c + x[a] * s
    return y
