"""Level 5: the operators of a decoder, and one block.

model_cases   all cases of the level
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.case import Case, Expected, within_bound
from awq_ref.vectors.cases_rope import WHY, rope_cases
from awq_ref.vectors.draws import Codes, Draws, Table, to_float16, to_float32
from awq_ref.vectors.oracle_bits import Linear
from awq_ref.vectors.oracle_model import (
    LIKELY,
    Layer,
    Sizes,
    attend,
    gated_mlp,
    layer_norm,
    rms_norm,
    run_block,
)
from awq_ref.vectors.running import Likely, Vector, Weights, exact_row, float_weights

SOURCE = "vectors/oracle_model.py"
LIKELY_WHY = (
    "8 times the likely error: as running error analysis, with roundings taken as independent (Higham and Mary 2019): "
    "errors added in quadrature, sums of n terms sqrt(n) u of their absolute terms; worst-case bounds would grow a "
    "hundredfold with every MLP and say nothing"
)
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def bounded(rows: Sequence[Vector]) -> Expected:
    """Return rows of numbers with their bounds as an output."""
    is_likely = isinstance(rows[0][0], Likely)
    factor, why = (LIKELY, LIKELY_WHY) if is_likely else (1.0, WHY)
    values = [[b.value for b in row] for row in rows]
    return within_bound(values, [[factor * b.error for b in row] for row in rows], why)


def array32(rows: Any) -> AnyArray:
    """Return a float32 array."""
    return np.array(rows, dtype=np.float32)


def _around(draws: Draws, n: int, centre: float, spread: float) -> list[float]:
    return [to_float32(centre + spread * value) for value in draws.floats(1, n)[0]]


def _norm_cases() -> Iterator[Case]:
    rows = (("plain", 1.0, 0.0, 1e-5), ("small", 1e-3, 0.0, 1e-5), ("shifted", 1.0, 3.0, 1e-6))
    for name, scale, shift, eps in rows:
        draws = Draws(f"norm {name}")
        x = [[to_float32(v + shift) for v in row] for row in draws.floats(3, 24, scale)]
        weight, bias = _around(draws, 24, 1.0, 0.3), _around(draws, 24, 0.0, 0.3)
        inputs = {"x": array32(x), "weight": array32(weight)}
        y = bounded([rms_norm(exact_row(row), weight, eps) for row in x])
        flags = ("NormEps", "NormMean")
        comment = f"x of size {scale} around {shift}."
        yield Case(f"L5/rms_norm/{name}", {"eps": eps}, inputs, {"y": y}, comment, SOURCE, flags)
        y = bounded([layer_norm(exact_row(row), weight, bias, eps) for row in x])
        inputs = {**inputs, "bias": array32(bias)}
        yield Case(f"L5/layer_norm/{name}", {"eps": eps}, inputs, {"y": y}, comment, SOURCE, flags)


# name, tokens, columns, heads, key-value heads, window, cap, size of q and k, flags
ATTENTIONS: tuple[tuple[str, int, int, int, int, int, float, float, tuple[str, ...]], ...] = (
    ("causal", 5, 5, 2, 2, 0, 0.0, 1.0, ("CausalMask",)),
    ("grouped", 4, 4, 6, 2, 0, 0.0, 1.0, ("GroupedQueries", "CausalMask")),
    ("cache", 3, 9, 4, 2, 0, 0.0, 1.0, ("CachePosition", "CausalMask", "GroupedQueries")),
    ("one-token", 1, 7, 4, 1, 0, 0.0, 1.0, ("CachePosition", "GroupedQueries")),
    ("window", 4, 10, 2, 1, 3, 0.0, 1.0, ("Window", "CachePosition")),
    ("cap", 3, 5, 2, 1, 0, 2.0, 2.0, ("SoftCap",)),
    ("large-scores", 3, 6, 2, 2, 0, 0.0, 40.0, ("LargeScores",)),
)


def _attention_cases() -> Iterator[Case]:
    dim = 8
    for name, tokens, columns, heads, kv_heads, window, cap, size, flags in ATTENTIONS:
        draws = Draws(f"attention {name}")
        q = draws.floats(tokens * heads, dim, size)
        k, v = draws.floats(columns * kv_heads, dim, size), draws.floats(columns * kv_heads, dim)
        scale = to_float32(0.3)
        y = []
        for t in range(tokens):
            for h in range(heads):
                kv, last = h // (heads // kv_heads), columns - tokens + t
                seen = [[exact_row(rows[c * kv_heads + kv]) for c in range(last + 1)] for rows in (k, v)]
                y.append(attend(exact_row(q[t * heads + h]), seen[0], seen[1], scale, window=window, cap=cap))
        expected, shape = bounded(y), (tokens, heads, dim)
        assert expected.bound is not None
        outputs = {"y": within_bound(expected.array.reshape(shape), expected.bound.reshape(shape), WHY)}
        inputs = {
            "q": array32(q).reshape(shape),
            "k": array32(k).reshape(columns, kv_heads, dim),
            "v": array32(v).reshape(columns, kv_heads, dim),
        }
        params = {"scale": scale, "window": window, "cap": cap}
        comment = f"{tokens} of {columns} columns, {heads} query heads on {kv_heads}."
        yield Case(f"L5/attention/{name}", params, inputs, outputs, comment, SOURCE, flags)


def _mlp(x: list[float], gate: Table, up: Table, down: Table, activation: str) -> Vector:
    return gated_mlp(exact_row(x), float_weights(gate), float_weights(up), float_weights(down), activation)


def _mlp_cases() -> Iterator[Case]:
    for activation in ("silu", "gelu_tanh"):
        draws = Draws(f"mlp {activation}")
        x = draws.floats(3, 16)
        gate, up, down = draws.floats(24, 16, 0.5), draws.floats(24, 16, 0.5), draws.floats(16, 24, 0.3)
        y = bounded([_mlp(row, gate, up, down, activation) for row in x])
        inputs = {"x": array32(x), "gate": array32(gate), "up": array32(up), "down": array32(down)}
        params = {"activation": activation}
        comment = "The activation acts on the gate."
        flags = ("GateAndUp",)
        yield Case(f"L5/gated_mlp/{activation}", params, inputs, {"y": y}, comment, SOURCE, flags)


def linear_shapes(sizes: Sizes) -> dict[str, tuple[int, int]]:
    """Return outputs and inputs of a block's linears."""
    query, key = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    hidden, inner = sizes.hidden, sizes.intermediate
    return {
        "q_proj": (query, hidden),
        "k_proj": (key, hidden),
        "v_proj": (key, hidden),
        "o_proj": (hidden, query),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }


def _rounded_group(group: list[float]) -> tuple[list[int], float, int]:
    """Return 4-bit codes, scale and zero point: inputs of a case, so any integers would do."""
    low, high = min(0.0, *group), max(0.0, *group)
    scale = to_float16((high - low) / 15.0)
    zero = max(0, min(15, round(-low / scale)))
    return [max(0, min(15, round(w / scale) + zero)) for w in group], scale, zero


def _rounded(rows: Table, size: int) -> Linear:
    codes: Codes = []
    scales: Table = []
    zeros: Codes = []
    for row in rows:
        groups = [_rounded_group(row[i : i + size]) for i in range(0, len(row), size)]
        codes.append([q for part, _, _ in groups for q in part])
        scales.append([s for _, s, _ in groups])
        zeros.append([z for _, _, z in groups])
    return Linear(codes, scales, zeros, None, 4, size)


def quantized_weights(rows: Table, group_size: int, inputs: dict[str, AnyArray], name: str) -> Weights:
    """Return a linear rounded to 4-bit integers, which join the inputs under its name."""
    linear = _rounded(rows, group_size)
    codes, scales, zeros = linear.codes, linear.scales, linear.zeros
    assert zeros is not None
    inputs[f"{name}.int_weight"] = np.array(codes, dtype=np.uint8)
    inputs[f"{name}.scales"] = np.array(scales, dtype=np.float16)
    inputs[f"{name}.zero_point"] = np.array(zeros, dtype=np.uint8)
    exact: Table = []
    reached: Table = []
    for o, row in enumerate(codes):
        grid = [(scales[o][linear.group_of(i)], zeros[o][linear.group_of(i)]) for i in range(len(row))]
        exact.append([(q - z) * s for q, (s, z) in zip(row, grid, strict=True)])
        reached.append([(q + z) * s for q, (s, z) in zip(row, grid, strict=True)])
    return Weights(exact, reached, len(codes[0]) + linear.groups + 8)


def draw_layer(
    draws: Draws, sizes: Sizes, group_size: int | None, inputs: dict[str, AnyArray], prefix: str = ""
) -> Layer:
    """Return a random block; its arrays join the inputs of a case, as integers if there is a group size."""
    linears = {}
    for name, (n_out, n_in) in linear_shapes(sizes).items():
        rows = draws.floats(n_out, n_in, 1.2 / math.sqrt(n_in))
        if group_size is None:
            inputs[prefix + name] = array32(rows)
            linears[name] = float_weights(rows)
        else:
            linears[name] = quantized_weights(rows, group_size, inputs, prefix + name)
    norms = {name: _around(draws, sizes.hidden, 1.0, 0.2) for name in NORMS}
    inputs |= {prefix + name: array32(weight) for name, weight in norms.items()}
    return Layer(linears, norms)


BLOCK = Sizes(32, 48, 4, 2, 8, theta=100.0, eps=1e-5)
NEIGHBOURS = Sizes(24, 40, 6, 2, 4, theta=10000.0, eps=1e-6, pairing="neighbours", activation="gelu_tanh")
# name, sizes, group size, past columns, new tokens
BLOCKS: tuple[tuple[str, Sizes, int | None, int, int], ...] = (
    ("float", BLOCK, None, 0, 4),
    ("float-cache", BLOCK, None, 5, 2),
    ("neighbours-gelu", NEIGHBOURS, None, 3, 3),
    ("int4", BLOCK, 16, 0, 3),
    ("int4-cache", BLOCK, 16, 6, 1),
)


def _block_cases() -> Iterator[Case]:
    for name, sizes, group_size, past, tokens in BLOCKS:
        draws = Draws(f"block {name}")
        x = draws.floats(tokens, sizes.hidden)
        shape = (past, sizes.kv_heads, sizes.head_dim)
        caches = [draws.floats(past * sizes.kv_heads, sizes.head_dim) for _ in range(2)]
        inputs: dict[str, AnyArray] = {"x": array32(x)}
        inputs["cache_k"], inputs["cache_v"] = (array32(rows).reshape(shape) for rows in caches)
        layer = draw_layer(draws, sizes, group_size, inputs)
        for rows, columns in zip(caches, (layer.keys, layer.values), strict=True):
            vectors = [exact_row(row) for row in rows]
            columns += [vectors[c * sizes.kv_heads : (c + 1) * sizes.kv_heads] for c in range(past)]
        y = [run_block(exact_row(row, Likely), layer, sizes, past + t) for t, row in enumerate(x)]
        params = {
            **sizes.params(),
            "bits": None if group_size is None else 4,
            "group_size": group_size,
        }
        flags = (
            "CachePosition",
            "GroupedQueries",
            "NormEps",
            "GateAndUp",
            "Float" if group_size is None else "Int4",
        )
        comment = f"{tokens} tokens behind {past} in the cache."
        yield Case(f"L5/decoder_block/{name}", params, inputs, {"y": bounded(y)}, comment, SOURCE, flags)


def model_cases() -> Iterator[Case]:
    """Yield every case of level 5."""
    yield from _norm_cases()
    yield from rope_cases()
    yield from _attention_cases()
    yield from _mlp_cases()
    yield from _block_cases()
