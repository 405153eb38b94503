"""Level 5: rope, of every type.

rope_cases   its cases
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.case import Case, within_bound
from awq_ref.vectors.draws import Draws
from awq_ref.vectors.oracle_rope import ANGLE_ULPS, NEWER, RESCALED_ULPS, Rope, rotated
from awq_ref.vectors.running import exact_row

WHY = (
    "running error analysis: every float32 operation adds u = 2^-24 of its result, sums of n terms gamma_n of their "
    "absolute terms in any order, exp and tanh 4 ulps, divisions and roots 4 u, angles 8 u"
)
WHY_NEWER = WHY.replace(f"angles {ANGLE_ULPS} u", f"angles {RESCALED_ULPS} u, the attention factor 2 u")
SOURCE = "vectors/oracle_rope.py"
ORDER = (
    *("theta", "rotary_dim", "pairing", "rope_type", "factor", "low_freq_factor", "high_freq_factor"),
    *("original_max_position_embeddings", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"),
    *("short_factor", "long_factor"),
)
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
DYNAMIC = {
    "theta": 100.0,
    "rotary_dim": 8,
    "rope_type": "dynamic",
    "factor": 2.0,
    "original_max_position_embeddings": 32,
}
# In 4096 tokens pair 2.6 turns 32 times and pair 5.6 once: the ramp goes from 2 to 6.
YARN = {
    "theta": 10000.0,
    "rotary_dim": 16,
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": True,
}
LONGROPE = {
    "theta": 100.0,
    "rotary_dim": 8,
    "rope_type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "short_factor": (1.0, 1.25, 1.5, 1.75),
    "long_factor": (1.0, 2.0, 3.0, 4.5),
}
FAR = (0, 1, 2, 7, 100)
BELOW, BOUNDARY, PAST = (0, 1, 2, 7, 19), (0, 1, 2, 7, 31), (0, 1, 2, 7, 32)  # texts of 20, 32 and 33 tokens
Row = tuple[str, int, tuple[int, ...], dict[str, Any], tuple[str, ...]]
# name, head_dim, positions, parameters, flags
ROPES: tuple[Row, ...] = (
    ("half", 8, FAR, {"theta": 10000.0, "rotary_dim": 8}, ("RopePairs",)),
    ("neighbours", 8, FAR, {"theta": 10000.0, "rotary_dim": 8, "pairing": "neighbours"}, ("RopePairs",)),
    ("partial", 12, FAR, {"theta": 500.0, "rotary_dim": 8}, ("RopePartial", "RopePairs")),
    (
        "linear",
        8,
        FAR,
        {"theta": 100.0, "rotary_dim": 8, "rope_type": "linear", "factor": 4.0},
        ("RopeScaled",),
    ),
    ("llama3", 16, FAR, {"theta": 500.0, "rotary_dim": 16, "rope_type": "llama3", **LLAMA3}, ("RopeScaled",)),
    ("dynamic", 8, FAR, DYNAMIC, ("RopeDynamic",)),
    ("dynamic-boundary", 8, BOUNDARY, DYNAMIC, ("RopeDynamic", "RopeBoundary")),
    ("dynamic-below", 8, BELOW, DYNAMIC, ("RopeDynamic",)),
    ("dynamic-partial", 12, FAR, {**DYNAMIC, "pairing": "neighbours"}, ("RopeDynamic", "RopePartial")),
    ("yarn", 16, FAR, YARN, ("RopeYarn", "RopeAttention")),
    ("yarn-untruncated", 16, FAR, {**YARN, "truncate": False}, ("RopeYarn", "RopeAttention")),
    ("yarn-betas", 16, FAR, {**YARN, "beta_fast": 8.0, "beta_slow": 2.0}, ("RopeYarn", "RopeAttention")),
    ("yarn-step", 16, FAR, {**YARN, "beta_fast": 4.0, "beta_slow": 4.0, "truncate": False}, ("RopeYarn",)),
    ("yarn-clamped", 16, FAR, {**YARN, "original_max_position_embeddings": 150}, ("RopeYarn",)),
    ("yarn-mscale", 16, FAR, {**YARN, "mscale": 0.5, "mscale_all_dim": 1.5}, ("RopeAttention",)),
    ("longrope-boundary", 8, BOUNDARY, LONGROPE, ("RopeLong", "RopeBoundary", "RopeAttention")),
    ("longrope-past", 8, PAST, LONGROPE, ("RopeLong", "RopeBoundary", "RopeAttention")),
    ("longrope", 8, FAR, LONGROPE, ("RopeLong", "RopeAttention")),
)


def rope_cases() -> Iterator[Case]:
    """Yield every case of rope."""
    for name, head_dim, positions, changes, flags in ROPES:
        rope, heads, why = Rope(**changes), 2, WHY_NEWER if changes.get("rope_type") in NEWER else WHY
        x = Draws(f"rope {name}").floats(len(positions) * heads, head_dim)
        length = max(positions) + 1
        y = [rotated(exact_row(row), positions[i // heads], rope, length) for i, row in enumerate(x)]
        shape = (len(positions), heads, head_dim)
        values, errors = ([[getattr(b, part) for b in row] for row in y] for part in ("value", "error"))
        expected = within_bound(values, errors, why)
        assert expected.bound is not None
        outputs = {"y": within_bound(expected.array.reshape(shape), expected.bound.reshape(shape), why)}
        named = {**changes, "pairing": rope.pairing, "rope_type": rope.rope_type}
        params: dict[str, Any] = {
            key: list(named[key]) if isinstance(named[key], tuple) else named[key]
            for key in ORDER
            if key in named
        }
        inputs: dict[str, AnyArray] = {
            "x": np.array(x, dtype=np.float32).reshape(shape),
            "positions": np.array(positions, dtype=np.int64),
        }
        comment = f"Positions {' '.join(map(str, positions))}, {head_dim} channels."
        yield Case(f"L5/rope/{name}", params, inputs, outputs, comment, SOURCE, flags)
