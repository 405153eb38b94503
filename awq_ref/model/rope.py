"""Rotary position embedding: where a token stands, told by turning its queries and keys.

    RopeConfig          which frequencies: base, kind of rescaling and its parameters
    ROPE_TYPES          the known rescalings, one row each
    rope_frequencies    one angle per position for each pair of channels
    rope_tables         cosines and sines at given positions
    apply_rope          turn queries or keys

Channel i is paired with channel i + D / 2 (the half-split convention of Hugging Face checkpoints), in some families
with its neighbour. D channels turn, the first of each head; the others, if there are any, do not.

Sources: Su et al. 2021, arXiv:2104.09864, section 3.2; Hugging Face transformers, modeling_rope_utils.py, for
the rescalings ``linear`` and ``llama3``; docs/equations.md#llm-2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from awq_ref.dtypes import F32, F64, I64


@dataclass(frozen=True)
class RopeConfig:
    """The rope part of a model's configuration, with Hugging Face's names; fields of other types are 0."""

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    original_max_position_embeddings: int = 0
    partial_rotary_factor: float = 1.0  # share of a head's channels that turn, the first ones
    neighbours: bool = False  # channel 2i is paired with 2i + 1, not i with i + D / 2

    def channels(self, head_dim: int) -> int:
        """Return how many channels of a head turn."""
        return int(head_dim * self.partial_rotary_factor)


@dataclass(frozen=True)
class RopeType:
    """One kind of rescaling: the fields of RopeConfig that it needs, and what it does to the frequencies."""

    parameters: tuple[str, ...]
    rescale: Callable[[F64, RopeConfig], F64]


def _unchanged(frequencies: F64, rope: RopeConfig) -> F64:
    """Keep the frequencies."""
    return frequencies


def _linear(frequencies: F64, rope: RopeConfig) -> F64:
    """Slow every pair down by the same factor: positions are interpolated."""
    return frequencies / rope.factor


def _llama3(frequencies: F64, rope: RopeConfig) -> F64:
    """Slow long waves down by the factor, leave short ones, and blend in between."""
    turns = rope.original_max_position_embeddings * frequencies / (2.0 * math.pi)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)  # 1: a short wave, unchanged; 0: a long wave, fully slowed down
    return kept * frequencies + (1.0 - kept) * frequencies / rope.factor


ROPE_TYPES: dict[str, RopeType] = {
    "default": RopeType((), _unchanged),
    "linear": RopeType(("factor",), _linear),
    "llama3": RopeType(
        ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), _llama3
    ),
}


@lru_cache(maxsize=16)
def rope_frequencies(rope: RopeConfig, head_dim: int) -> F64:
    """Return the angle in radians that each pair of channels turns by from one position to the next.

    Equation [LLM-2]  f_i = theta**(-2 i / D), then rescaled as rope_type says
        f     -> the result     (D // 2,)
        theta -> rope.rope_theta
        D     -> rope.channels(head_dim)

    Returns
    -------
    frequencies : float64 array, shape (D // 2,), read-only (the same one on every call)

    Examples
    --------
    >>> rope_frequencies(RopeConfig(rope_theta=100.0), 4).tolist()
    [1.0, 0.1]
    """
    turning = rope.channels(head_dim)
    exponents = np.arange(0, turning, 2, dtype=np.float64) / turning
    frequencies = ROPE_TYPES[rope.rope_type].rescale(rope.rope_theta**-exponents, rope)
    frequencies.flags.writeable = False
    return frequencies


def rope_tables(positions: I64, frequencies: F64) -> tuple[F32, F32]:
    """Return the cosine and sine of position times frequency.

    Parameters
    ----------
    positions : int64 array, any shape
    frequencies : float64 array, shape (D // 2,)

    Returns
    -------
    cos, sin : float32 arrays, shape positions.shape + (D // 2,)

    Notes
    -----
    Numerics: angles, cosines and sines in float64, rounded once. An angle held in float32, as
    transformers has it, is off by up to position * 2**-24 radians (docs/numerics.md).
    """
    angles = positions[..., None] * frequencies  # (..., D // 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def apply_rope(x: F32, cos: F32, sin: F32, *, out: F32, neighbours: bool = False) -> F32:
    """Turn pairs of channels of x by the angle of its position, into out.

    Equation [LLM-2]  out_i = x_i cos - x_j sin ;  out_j = x_j cos + x_i sin
        x   -> x          (..., head_dim)
        cos -> cos, sin   broadcast to (..., D // 2): of the first D channels; the others are copied
        i, j -> i and i + D / 2; neighbours: 2 i and 2 i + 1
    Source: Su et al. 2021, arXiv:2104.09864, eq. 34; docs/equations.md#llm-2.

    Parameters
    ----------
    x : float32 array, shape (..., head_dim)
    cos, sin : float32 arrays, broadcast to (..., D // 2), D <= head_dim
    out : float32 array, shape (..., head_dim)
        Receives the result; any strides (a slice of the key cache, say), and no memory in common with x.
    neighbours : bool
        Which channels are a pair.

    Returns
    -------
    out : float32 array, shape (..., head_dim)

    Notes
    -----
    Numerics: float32; each result is two rounded products and a rounded sum.
    """
    half = cos.shape[-1]
    pairs = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if neighbours else (slice(half), slice(half, 2 * half))
    )
    first, second = (x[..., part] for part in pairs)
    new_first, new_second = (out[..., part] for part in pairs)
    product = second * sin
    np.multiply(first, cos, out=new_first)
    new_first -= product
    np.multiply(first, sin, out=product)
    np.multiply(second, cos, out=new_second)
    new_second += product
    if 2 * half < x.shape[-1]:
        out[..., 2 * half :] = x[..., 2 * half :]
    return out
