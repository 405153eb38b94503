"""Writers of packed layouts, one code at a time, from the layouts' definitions: no array shifts, no awq_ref.

    Integers          codes, zero points, scales (or scales and biases) and the group of every input
    random_integers   drawn freely
    PACKERS           layout -> Integers -> arrays, keyed by the end of the tensor's name
    dequantized       the float32 weight that they stand for

A stream of codes of b bits is one large number, sum_i code_i 2^(b i); its words are its digits to the base 2^32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from helpers.scalar_blocks import block_rows, int8_block_rows
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Integers:
    """codes (out, in), zeros (out, groups), scales (out, groups) float; groups: the group of every input."""

    bits: int
    codes: NDArray[np.int64]
    zeros: NDArray[np.int64]
    scales: NDArray[Any]
    groups: NDArray[np.int64]

    @property
    def neighbours(self) -> bool:
        return bool((np.diff(self.groups) >= 0).all())


def random_integers(
    rng: np.random.Generator,
    out_features: int,
    in_features: int,
    *,
    bits: int = 4,
    group_size: int = 32,
    symmetric: bool = False,
    scattered: bool = False,
) -> Integers:
    """Draw codes, zero points that are 0 now and then, and float16 scales such that weights are about 1 / sqrt(in)."""
    n_groups = -(-in_features // group_size)
    middle = 2 ** (bits - 1)
    zeros = rng.integers(0, 2**bits, (out_features, n_groups))
    zeros[rng.random(zeros.shape) < 0.1] = 0
    if symmetric:
        zeros[:] = middle
    groups = np.arange(in_features, dtype=np.int64) // group_size
    scales = rng.uniform(0.5, 2.0, zeros.shape) / middle / in_features**0.5
    return Integers(
        bits,
        rng.integers(0, 2**bits, (out_features, in_features)),
        zeros,
        scales.astype(np.float16),
        rng.permutation(groups) if scattered else groups,
    )


def words_of(codes: Sequence[int], bits: int) -> list[int]:
    """Return the 32-bit words, unsigned, of a stream of codes."""
    number = sum(int(code) << (bits * i) for i, code in enumerate(codes))
    return [(number >> (32 * k)) & 0xFFFFFFFF for k in range(-(-len(codes) * bits // 32))]


def _int32(words: Any) -> NDArray[np.int32]:
    return np.array(words, dtype=np.uint32).view(np.int32)


def pack_gemm(stored: Integers) -> Arrays:
    """AutoAWQ "gemm"."""

    def packed(columns: NDArray[np.int64]) -> NDArray[np.int32]:  # (out, n): rows of the file are the columns
        rows = []
        for column in columns.T:
            eights = [column[8 * c : 8 * c + 8] for c in range(len(column) // 8)]
            rows.append([words_of([eight[k] for k in ORDER], 4)[0] for eight in eights])
        return _int32(rows)

    scales = np.ascontiguousarray(stored.scales.T)
    return {"qweight": packed(stored.codes), "qzeros": packed(stored.zeros), "scales": scales}


def _padded(values: NDArray[Any], group_size: int) -> NDArray[Any]:
    words = -(-values.shape[1] // 8)
    multiple = {32: 4, 64: 2}.get(group_size, 1)
    out = np.zeros((len(values), 8 * (-(-words // multiple) * multiple)), dtype=values.dtype)
    out[:, : values.shape[1]] = values
    return out


def pack_gemv(stored: Integers) -> Arrays:
    """AutoAWQ "gemv"."""
    group_size = int((stored.groups == 0).sum())
    zeros = _padded(stored.zeros, group_size)
    return {
        "qweight": _int32([words_of(row, 4) for row in stored.codes]),
        "qzeros": _int32([words_of(row, 4) for row in zeros]),
        "scales": _padded(stored.scales, group_size),
    }


def scaled_zeros(stored: Integers) -> NDArray[Any]:
    """-(scale * zero) rounded once to the dtype of the scales."""
    return (-(stored.scales.astype(np.float64) * stored.zeros)).astype(stored.scales.dtype)


def pack_gemv_fast(stored: Integers, zeros_name: str = "qzeros") -> Arrays:
    """AutoAWQ "gemv_fast", llm-awq "v2"."""
    out_features, in_features = stored.codes.shape
    words = [[0] * in_features for _ in range(out_features // 4)]
    for n in range(out_features):
        for k in range(in_features):
            column = 64 * (k // 64) + 16 * (n % 4) + 8 * ((k % 64) // 32) + k % 8
            words[n // 4][column] |= int(stored.codes[n, k]) << (4 * ((k % 32) // 8))
    group_size = int((stored.groups == 0).sum())
    return {
        "qweight": np.array(words, dtype=np.uint16).view(np.int16),
        "scales": np.ascontiguousarray(_padded(stored.scales, group_size).T),
        zeros_name: np.ascontiguousarray(_padded(scaled_zeros(stored), group_size).T),
    }


def _less_one(words: list[int], codes: Sequence[int], bits: int) -> list[int]:
    """The words of zero points less 1: whole words for 2, 4 and 8 bits, field by field for 3."""
    if bits == 3:
        return words_of([(int(code) - 1) % 8 for code in codes], 3)
    ones = sum(1 << (bits * j) for j in range(32 // bits))
    return [(word - ones) % 2**32 for word in words]


def pack_gptq(stored: Integers, version: int = 1) -> Arrays:
    """AutoGPTQ, version 1 or 2."""
    bits = stored.bits
    zeros = [words_of(column, bits) for column in stored.zeros.T]
    if version == 1:
        zeros = [_less_one(words, column, bits) for words, column in zip(zeros, stored.zeros.T, strict=True)]
    return {
        "qweight": np.ascontiguousarray(_int32([words_of(row, bits) for row in stored.codes]).T),
        "qzeros": _int32(zeros),
        "scales": np.ascontiguousarray(stored.scales.T),
        "g_idx": stored.groups.astype(np.int32),
    }


def pack_pack_quantized(stored: Integers) -> Arrays:
    """compressed-tensors "pack-quantized"; no zero points where all are the middle."""
    tensors = {
        "weight_packed": _int32([words_of(row, stored.bits) for row in stored.codes]),
        "weight_scale": stored.scales,
        "weight_shape": np.array(stored.codes.shape, dtype=np.int64),
    }
    if (stored.zeros != 2 ** (stored.bits - 1)).any():
        columns = [words_of(column, stored.bits) for column in stored.zeros.T]
        tensors["weight_zero_point"] = np.ascontiguousarray(_int32(columns).T)
    if not stored.neighbours:
        tensors["weight_g_idx"] = stored.groups.astype(np.int32)
    return tensors


def pack_mlx(stored: Integers) -> Arrays:
    """MLX, affine."""
    words = [words_of(row, stored.bits) for row in stored.codes]
    return {
        "weight": np.array(words, dtype=np.uint32),
        "scales": stored.scales,
        "biases": scaled_zeros(stored),
    }


def _bytes(streams: list[list[int]], bits: int) -> NDArray[np.uint8]:
    """The bytes of streams of codes: each one number, whose digits to the base 256 they are."""
    rows = []
    for codes in streams:
        number = sum(int(code) << (bits * i) for i, code in enumerate(codes))
        rows.append(list(number.to_bytes(-(-len(codes) * bits // 8), "little")))
    return np.array(rows, dtype=np.uint8)


def pack_marlin(stored: Integers) -> Arrays:
    """AutoAWQ "marlin", by the permutation of 1024 places that it publishes."""
    places = []
    for t in range(32):
        eight = [
            16 * row + t // 4 + 8 * block
            for block in (0, 1)
            for row in (2 * (t % 4) + r for r in (0, 1, 8, 9))
        ]
        places += [eight[k] + 256 * j for j in range(4) for k in ORDER]
    rows = []
    for first in range(0, stored.codes.shape[1], 16):
        tiles = [
            int(stored.codes[out + column, first + row])
            for out in range(0, len(stored.codes), 16)
            for row in range(16)
            for column in range(16)
        ]
        runs = [tiles[k : k + 1024] for k in range(0, len(tiles), 1024)]
        rows.append(words_of([run[p] for run in runs for p in places], 4))
    if stored.scales.shape[1] > 1:
        order = [i + 8 * j for i in range(8) for j in range(8)]
    else:
        order = [2 * i + k for i in range(4) for k in (0, 1, 8, 9, 16, 17, 24, 25)]
    outputs = [start + k for start in range(0, len(stored.codes), len(order)) for k in order]
    return {"qweight": _int32(rows), "scales": np.ascontiguousarray(stored.scales[outputs].T)}


def pack_qm(stored: Integers, distance: int) -> Arrays:
    """TinyChatEngine on CPUs: the codes k and k + distance of a block of 2 distance share a byte."""
    streams = []
    for row in stored.codes.tolist():
        blocks = [row[k : k + 2 * distance] for k in range(0, len(row), 2 * distance)]
        streams.append([block[e + d] for block in blocks for e in range(distance) for d in (0, distance)])
    return {
        "weight_int4": _bytes(streams, 4),
        "scaling_factor_int4": stored.scales,
        "zero_point_int4": np.array([8.0], dtype=np.float32),
    }


def pack_qm_cuda(stored: Integers) -> Arrays:
    """TinyChatEngine on CUDA: words in sequence, scales padded, zero points that are eights everywhere."""
    scales = _padded(stored.scales, 128)
    eights = _int32([[0x88888888] * (scales.shape[1] // 8)] * len(scales))
    words = _int32([words_of(row, 4) for row in stored.codes])
    return {"weight_int4": words, "scaling_factor_int4": scales, "zero_point_int4": eights}


def pack_matmulnbits(stored: Integers) -> Arrays:
    """Onnxruntime's MatMulNBits."""
    packed = _bytes(stored.codes.tolist(), stored.bits)
    return {
        "B": packed.reshape(len(packed), stored.zeros.shape[1], -1),
        "scales": stored.scales,
        "zero_points": _bytes(stored.zeros.tolist(), stored.bits),
    }


def pack_blocks(stored: Integers, name: str) -> Arrays:
    """GGUF."""
    offsets = scaled_zeros(stored) + np.float16(0) if name == "q4_1" else None  # +0, where z is 0
    if name == "q8_0":
        return {"weight": int8_block_rows(stored.codes, stored.scales, stored.groups)}
    return {"weight": block_rows(stored.codes, stored.scales, offsets, stored.groups)}


PACKERS: dict[str, Callable[[Integers], Arrays]] = {
    "gemm": pack_gemm,
    "gemv": pack_gemv,
    "gemv_fast": pack_gemv_fast,
    "llm-awq": lambda stored: pack_gemv_fast(stored, "scaled_zeros"),
    "gptq": pack_gptq,
    "gptq_v2": lambda stored: pack_gptq(stored, 2),
    "pack-quantized": pack_pack_quantized,
    "mlx": pack_mlx,
    "llm-awq-v1": pack_gemv,
    "marlin": pack_marlin,
    "qm_arm": lambda stored: pack_qm(stored, 16),
    "qm_x86": lambda stored: pack_qm(stored, 32),
    "qm_metal": lambda stored: pack_qm(stored, 4),
    "qm_cuda": pack_qm_cuda,
    "matmulnbits": pack_matmulnbits,
    "q4_0": lambda stored: pack_blocks(stored, "q4_0"),
    "q4_1": lambda stored: pack_blocks(stored, "q4_1"),
    "q8_0": lambda stored: pack_blocks(stored, "q8_0"),
}
OFFSETS = ("gemv_fast", "llm-awq", "mlx", "q4_1")  # the layouts that store what is added


def dequantized(stored: Integers, layout: str) -> NDArray[np.float32]:
    """Return the weight: (q - z) s, or q s + o with the stored o, rounded once to float32; exact before that."""
    scales = stored.scales.astype(np.float64)[:, stored.groups]  # (out, in)
    if layout in OFFSETS:
        offset = scaled_zeros(stored).astype(np.float64)[:, stored.groups]
        return (stored.codes * scales + offset).astype(np.float32)
    return ((stored.codes - stored.zeros[:, stored.groups]) * scales).astype(np.float32)
