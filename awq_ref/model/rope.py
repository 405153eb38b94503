"""Rotary position embedding: where a token stands, told by turning its queries and keys.

    RopeConfig          which frequencies: base, kind of rescaling and its parameters
    ROPE_TYPES          the known rescalings, one row each
    turned_length       what a text's length counts for, where the frequencies depend on it
    rope_frequencies    one angle per position for each pair of channels
    rope_tables         cosines and sines at given positions
    apply_rope          turn queries or keys

Channel i is paired with channel i + D / 2 (the half-split convention of Hugging Face checkpoints), in some families
with its neighbour. D channels turn, the first of each head; the others, if there are any, do not.

Sources: Su et al. 2021, arXiv:2104.09864, section 3.2; Peng et al. 2023, arXiv:2309.00071, for ``dynamic`` and
``yarn``; Ding et al. 2024, arXiv:2402.13753, for ``longrope``; Hugging Face transformers, modeling_rope_utils.py, for
``linear`` and ``llama3`` and for what a config.json means; docs/equations.md#llm-2, docs/equations.md#llm-14.
"""

import math
from collections.abc import Callable, Mapping
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
    attention_factor: float = 1.0  # cosines and sines are multiplied by it
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def channels(self, head_dim: int) -> int:
        """Return how many channels of a head turn."""
        return int(head_dim * self.partial_rotary_factor)


def _unchanged(frequencies: F64, rope: RopeConfig, length: int) -> F64:
    """Keep the frequencies."""
    return frequencies


def _linear(frequencies: F64, rope: RopeConfig, length: int) -> F64:
    """Slow every pair down by the same factor: positions are interpolated."""
    return frequencies / rope.factor


def _llama3(frequencies: F64, rope: RopeConfig, length: int) -> F64:
    """Slow long waves down by the factor, leave short ones, and blend in between."""
    turns = rope.original_max_position_embeddings * frequencies / (2.0 * math.pi)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)  # 1: a short wave, unchanged; 0: a long wave, fully slowed down
    return kept * frequencies + (1.0 - kept) * frequencies / rope.factor


def _dynamic(frequencies: F64, rope: RopeConfig, length: int) -> F64:
    """Enlarge the base with the length of the text; the fastest pair keeps its frequency."""
    pairs = len(frequencies)
    stretch = rope.factor * length / rope.original_max_position_embeddings - (rope.factor - 1.0)
    return frequencies * stretch ** -(np.arange(pairs, dtype=np.float64) / max(1, pairs - 1))


def _yarn(frequencies: F64, rope: RopeConfig, length: int) -> F64:
    """Leave pairs that turn often in the original length, slow the others down, with a ramp over those between."""
    pairs, original = len(frequencies), rope.original_max_position_embeddings

    def pair_that_turns(times: float) -> float:
        return pairs * math.log(original / (times * 2.0 * math.pi)) / math.log(rope.rope_theta)

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    width = high - low or 0.001  # a ramp without width is a step
    slowed = np.clip((np.arange(pairs, dtype=np.float64) - low) / width, 0.0, 1.0)
    return (1.0 - slowed) * frequencies + slowed * frequencies / rope.factor


def _longrope(frequencies: F64, rope: RopeConfig, length: int) -> F64:
    """Slow every pair down by a factor of its own: one list for short texts, one for those past the original length."""
    long = length > rope.original_max_position_embeddings
    return frequencies / np.array(rope.long_factor if long else rope.short_factor, dtype=np.float64)


def _yarn_attention(rope: Mapping[str, float]) -> float:
    """Return 0.1 ln(factor) + 1, or with two scales the quotient of such terms  [LLM-14]."""

    def term(scale: float) -> float:
        return 0.1 * scale * math.log(max(1.0, rope["factor"])) + 1.0

    scales = rope.get("mscale"), rope.get("mscale_all_dim")
    return term(scales[0]) / term(scales[1]) if scales[0] and scales[1] else term(1.0)


def _longrope_attention(rope: Mapping[str, float]) -> float:
    """Return sqrt(1 + ln(factor) / ln(original length))  [LLM-14]."""
    grown = math.log(max(1.0, rope["factor"]))
    return math.sqrt(1.0 + grown / math.log(rope["original_max_position_embeddings"])) if grown else 1.0


@dataclass(frozen=True)
class RopeType:
    """One kind of rescaling.

    parameters : the numbers that it needs, fields of RopeConfig
    rescale    : frequencies, rope, length of the text (`turned_length`) -> frequencies
    optional   : fields that config.json may leave to RopeConfig's defaults
    lists      : fields that hold a number for every pair
    attention  : what config.json says -> attention_factor where it says none; None: it is 1
    counted    : rope, length of the text -> the length that decides, for frequencies that depend on it
    reread     : keys in a cache are turned anew when that length changes
    stretches  : the context is factor times the original length, where max_position_embeddings says less
    """

    parameters: tuple[str, ...]
    rescale: Callable[[F64, RopeConfig, int], F64]
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    attention: Callable[[Mapping[str, float]], float] | None = None
    counted: Callable[[RopeConfig, int], int] = lambda rope, length: 0
    reread: bool = False
    stretches: bool = False


STRETCH = ("factor", "original_max_position_embeddings")
ROPE_TYPES: dict[str, RopeType] = {
    "default": RopeType((), _unchanged),
    "linear": RopeType(("factor",), _linear),
    "llama3": RopeType((*STRETCH, "low_freq_factor", "high_freq_factor"), _llama3),
    "dynamic": RopeType(
        STRETCH,
        _dynamic,
        counted=lambda rope, length: max(length, rope.original_max_position_embeddings),
        stretches=True,
    ),
    "yarn": RopeType(
        STRETCH,
        _yarn,
        optional=("beta_fast", "beta_slow"),
        attention=_yarn_attention,
        stretches=True,
    ),
    "longrope": RopeType(
        STRETCH,
        _longrope,
        lists=("short_factor", "long_factor"),
        attention=_longrope_attention,
        counted=lambda rope, length: (
            rope.original_max_position_embeddings + (length > rope.original_max_position_embeddings)
        ),
        reread=True,
    ),
}


def turned_length(rope: RopeConfig, length: int) -> int:
    """Return what a text of `length` tokens counts for: texts with the same number have the same frequencies.

    0 where they depend on no length.

    Examples
    --------
    >>> turned_length(RopeConfig(), 7), turned_length(RopeConfig("longrope", original_max_position_embeddings=4), 7)
    (0, 5)
    """
    return ROPE_TYPES[rope.rope_type].counted(rope, length)


@lru_cache(maxsize=16)
def _frequencies(rope: RopeConfig, head_dim: int, length: int) -> F64:
    """Return what rope_frequencies says, of a length that counts."""
    turning = rope.channels(head_dim)
    exponents = np.arange(0, turning, 2, dtype=np.float64) / turning
    frequencies = ROPE_TYPES[rope.rope_type].rescale(rope.rope_theta**-exponents, rope, length)
    frequencies.flags.writeable = False
    return frequencies


def rope_frequencies(rope: RopeConfig, head_dim: int, length: int = 0) -> F64:
    """Return the angle in radians that each pair of channels turns by from one position to the next.

    Equation [LLM-2]  f_i = theta**(-2 i / D), then rescaled as rope_type says: [LLM-14]
        f     -> the result     (D // 2,)
        theta -> rope.rope_theta
        D     -> rope.channels(head_dim)

    Parameters
    ----------
    length : int
        Tokens of the text; only `dynamic` and `longrope` look at it.

    Returns
    -------
    frequencies : float64 array, shape (D // 2,), read-only (the same one on every call)

    Examples
    --------
    >>> rope_frequencies(RopeConfig(rope_theta=100.0), 4).tolist()
    [1.0, 0.1]
    """
    return _frequencies(rope, head_dim, turned_length(rope, length))


def rope_tables(positions: I64, frequencies: F64, attention_factor: float = 1.0) -> tuple[F32, F32]:
    """Return the cosine and sine of position times frequency.

    Parameters
    ----------
    positions : int64 array, any shape
    frequencies : float64 array, shape (D // 2,)
    attention_factor : float
        What both are multiplied by [LLM-14].

    Returns
    -------
    cos, sin : float32 arrays, shape positions.shape + (D // 2,)

    Notes
    -----
    Numerics: angles, cosines and sines in float64, rounded once. An angle held in float32, as
    transformers has it, is off by up to position * 2**-24 radians (docs/numerics.md).
    """
    angles = positions[..., None] * frequencies  # (..., D // 2)
    cos, sin = attention_factor * np.cos(angles), attention_factor * np.sin(angles)
    return cos.astype(np.float32), sin.astype(np.float32)


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
    first, second = (
        (np.s_[..., 0 : 2 * half : 2], np.s_[..., 1 : 2 * half : 2])
        if neighbours
        else (np.s_[..., :half], np.s_[..., half : 2 * half])
    )
    # Tables as wide as a token's heads together: NumPy's loops are as long as what lies in one piece.
    shape = (*np.broadcast_shapes(cos.shape[:-1], (1, *x.shape[1:])[: x.ndim - 1]), 2 * half)
    cosines, sines = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    cosines[first], cosines[second] = cos, cos
    sines[first], sines[second] = -sin, sin
    turning = x[..., : 2 * half]
    partners = np.empty(turning.shape, dtype=np.float32)
    partners[first], partners[second] = turning[second], turning[first]
    partners *= sines
    np.add(turning * cosines, partners, out=out[..., : 2 * half])
    if 2 * half < x.shape[-1]:
        out[..., 2 * half :] = x[..., 2 * half :]
    return out
