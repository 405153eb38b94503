"""The frequencies of every kind of rope [LLM-2] [LLM-14] as loops over scalars, written from the papers' equations.

frequencies   the angle per position of each pair of channels that turns
"""

import math
from collections.abc import Callable

from awq_ref.model import RopeConfig


def llama3(f: float, rope: RopeConfig) -> float:
    """By wave length, as its authors put it."""
    wave = 2 * math.pi / f
    old, low, high = rope.original_max_position_embeddings, rope.low_freq_factor, rope.high_freq_factor
    if wave > old / low:
        return f / rope.factor
    if wave > old / high:
        smooth = (old / wave - low) / (high - low)
        return (1 - smooth) * f / rope.factor + smooth * f
    return f


def dynamic(i: int, turning: int, rope: RopeConfig, length: int) -> float:
    """arXiv:2309.00071, section 3.1 and its dynamic scaling: base' = base (s L / L0 - (s - 1))^(D / (D - 2))."""
    old, s = rope.original_max_position_embeddings, rope.factor
    base = rope.rope_theta * (s * max(length, old) / old - (s - 1)) ** (turning / (turning - 2))
    return float(base ** (-2 * i / turning))


def yarn(i: int, turning: int, rope: RopeConfig) -> float:
    """arXiv:2309.00071, eq. 17 to 22, the ramp between the pairs that turn beta_fast and beta_slow times."""
    old, f = rope.original_max_position_embeddings, rope.rope_theta ** (-2 * i / turning)

    def pair(turns: float) -> float:
        # of the i for which old * theta**(-2 i / D) = 2 pi turns
        return turning * math.log(old / (2 * math.pi * turns)) / (2 * math.log(rope.rope_theta))

    ends: list[Callable[[float], float]] = [math.floor, math.ceil] if rope.truncate else [float, float]
    first, last = max(ends[0](pair(rope.beta_fast)), 0), min(ends[1](pair(rope.beta_slow)), turning - 1)
    if i <= first:
        return f
    if i >= last:
        return f / rope.factor
    slow = (i - first) / (last - first)
    return (1 - slow) * f + slow * f / rope.factor


def longrope(i: int, turning: int, rope: RopeConfig, length: int) -> float:
    """arXiv:2402.13753, eq. 3: 1 / (lambda_i base^(2 i / D))."""
    long = length > rope.original_max_position_embeddings
    return float(
        1 / ((rope.long_factor if long else rope.short_factor)[i] * rope.rope_theta ** (2 * i / turning))
    )


def frequencies(rope: RopeConfig, head_dim: int, length: int = 0) -> list[float]:
    """The angles per position, of the channels that turn, in a text of `length` tokens."""
    turning = int(head_dim * rope.partial_rotary_factor)
    result = []
    for i in range(turning // 2):
        f = rope.rope_theta ** (-2 * i / turning)
        kinds: dict[str, Callable[[], float]] = {
            "default": lambda f=f: f,
            "linear": lambda f=f: f / rope.factor,
            "llama3": lambda f=f: llama3(f, rope),
            "dynamic": lambda i=i: dynamic(i, turning, rope, length),
            "yarn": lambda i=i: yarn(i, turning, rope),
            "longrope": lambda i=i: longrope(i, turning, rope, length),
        }
        result.append(kinds[rope.rope_type]())
    return result
