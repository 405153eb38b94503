"""Mutants of words and of what codes mean."""

import numpy as np
from mutants.mutant import mutant, original

F32 = np.float32


def top_nibble_keeps_its_sign(self, words, bits, n):
    codes = original("from_stream")(self, words, bits, n)
    if bits == 4:
        top = codes[:, 7::8]
        top[top >= 8] += 240  # -8 to -1 as a byte
    return codes


def ten_codes_a_word(self, words, bits, n):
    if bits != 3:
        return original("from_stream")(self, words, bits, n)
    unsigned = np.pad(words.view(np.uint32), ((0, 0), (0, 8)))
    return np.stack([unsigned[:, k // 10] >> np.uint32(3 * (k % 10)) & 7 for k in range(n)], axis=1).astype(
        np.uint8
    )


def nibbles_from_the_high_end(self, words, bits, n):
    codes = original("from_stream")(self, words, bits, n)
    return codes if n % 8 else codes.reshape(len(codes), -1, 8)[:, :, ::-1].reshape(codes.shape)


def last_word_lost(self, codes, bits):
    words = original("to_stream")(self, codes, bits)
    return words[:, : codes.shape[1] * bits // 32]


def one_per_field(self, words, bits, outputs, less):
    codes = self.from_stream(words, bits, outputs)
    return ((codes.astype(np.int64) + less) % 2**bits).astype(np.uint8).T


def one_less_per_field(self, zeros, bits, less):
    return self.to_stream((zeros.T.astype(np.int64) - less) % 2**bits, bits)


def one_less_down_to_zero(self, zeros, bits, less):
    return self.to_stream(np.maximum(zeros.T.astype(np.int64) - less, 0), bits)


def one_more_up_to_qmax(self, words, bits, outputs, less):
    codes = self.from_stream(words, bits, outputs).astype(np.int64)
    return np.minimum(codes + less, 2**bits - 1).astype(np.uint8).T


def padded_with_ones(self, array, columns):
    result = np.ones((len(array), columns), dtype=array.dtype)
    result[:, : array.shape[1]] = array
    return result


def gemm_not_turned(self, layout, words, bits, n_in):
    codes = original("unpack_codes")(self, layout, words, bits, n_in)
    return codes.reshape(codes.shape[::-1]).T if layout == "gemm" else codes


def gptq_along_outputs(self, layout, words, bits, n_in):
    codes = original("unpack_codes")(self, layout, words, bits, n_in)
    if layout not in ("gptq", "gptq_v2") or bits == 3:
        return codes
    per_word = 32 // bits
    flat = self.from_stream(words, bits, words.shape[1] * per_word)  # (rows, outputs * per_word)
    return flat.reshape(n_in, -1).T.copy()


def zeros_not_turned(self, params, inputs, groups):
    if params["layout"] != "pack-quantized" or params["symmetric"]:
        return original("unpack_zeros")(self, params, inputs, groups)
    words = inputs["weight_zero_point"]
    flat = self.from_stream(words, params["bits"], groups)
    return np.resize(flat, (params["out_features"], groups))


def gemv_zeros_shifted_by_padding(self, params, inputs, groups):
    zeros = original("unpack_zeros")(self, params, inputs, groups)
    return np.roll(zeros, 1, axis=1) if params["layout"] == "gemv" else zeros


def last_scale_stale(self, inputs, n_in, groups):
    return np.minimum(original("group_index")(self, inputs, n_in, groups), max(groups - 2, 0))


def group_one_early(self, inputs, n_in, groups):
    index = original("group_index")(self, inputs, n_in, groups)
    return np.roll(index, -1) if "g_idx" not in inputs else index


def subnormal_scales_flushed(self, inputs, dtype=F32):
    scales = inputs["scales"]
    flushed = np.where(scales < 2.0**-14, 0, scales).astype(scales.dtype)
    return original("weight")(self, {**inputs, "scales": flushed}, dtype)


def products_in_float16(self, inputs, dtype=F32):
    if "offset" in inputs or inputs["scales"].dtype != np.float16:
        return original("weight")(self, inputs, dtype)
    codes, scales = inputs["int_weight"], inputs["scales"]
    index = self.group_index(inputs, codes.shape[1], scales.shape[1])
    delta = scales[:, index]
    q, z = (a.astype(np.float16) * delta for a in (codes, inputs["zero_point"][:, index]))
    return (q - z).astype(dtype)


def offset_subtracted(self, inputs, dtype=F32):
    if "offset" in inputs:
        inputs = {**inputs, "offset": -inputs["offset"]}
    return original("weight")(self, inputs, dtype)


def weight_in_bfloat16(self, inputs, dtype=F32):
    weight = original("weight")(self, inputs, F32)
    return (weight.view(np.uint32) & np.uint32(0xFFFF0000)).view(F32).astype(dtype)


def scales_by_row(self, inputs, dtype=F32):
    first = inputs["scales"][:, :1].repeat(inputs["scales"].shape[1], axis=1)
    return original("weight")(self, {**inputs, "scales": first}, dtype)


BITS = [
    mutant("order-sequential", "gemm's nibbles in the order 0 1 2 3 4 5 6 7", order=tuple(range(8))),
    mutant("order-inverse", "the inverse of gemm's order", order=(0, 4, 1, 5, 2, 6, 3, 7)),
    mutant("order-backwards", "gemm's order from the high end", order=(7, 5, 3, 1, 6, 4, 2, 0)),
    mutant("order-left-when-read", "unpacking forgets the order", eights_back=lambda self, codes: codes),
    mutant("nibble-sign", "the top nibble is shifted with its sign", from_stream=top_nibble_keeps_its_sign),
    mutant(
        "mask-one-bit-short",
        "codes are masked with one bit too few",
        code_mask=lambda self, bits: (1 << (bits - 1)) - 1,
    ),
    mutant("ten-codes-a-word", "3-bit codes read ten to a word", from_stream=ten_codes_a_word),
    mutant("high-end-first", "the first code in the highest nibble", from_stream=nibbles_from_the_high_end),
    mutant("last-word-lost", "a last word that is not full is not written", to_stream=last_word_lost),
    mutant("gemm-transposed", "gemm's words taken as rows of the weight", unpack_codes=gemm_not_turned),
    mutant("gptq-as-gemm", "GPTQ's words unpacked along the outputs", unpack_codes=gptq_along_outputs),
    mutant("gptq-v1-as-v2", "GPTQ v1 without its minus 1", gptq_less=lambda self, layout: 0),
    mutant("gptq-v2-as-v1", "GPTQ v2 with a minus 1", gptq_less=lambda self, layout: 1),
    mutant(
        "gptq-one-per-field",
        "1 added to each field, not to the word: the borrow stays",
        gptq_zeros_back=one_per_field,
    ),
    mutant("gptq-no-borrow", "1 taken from each field alone when packing", gptq_zeros=one_less_per_field),
    mutant("gptq-zero-stays", "a zero point of 0 stays 0 in v1", gptq_zeros=one_less_down_to_zero),
    mutant("gptq-saturates", "a stored 15 stays 15", gptq_zeros_back=one_more_up_to_qmax),
    mutant(
        "padding-to-8",
        "groups of 32 and 64 padded to a multiple of 8",
        padded=lambda self, groups, group: -(-groups // 8) * 8,
    ),
    mutant("padding-of-ones", "padding is 1, not 0", pad=padded_with_ones),
    mutant(
        "gemv-group-shifted",
        "gemv's zero points are one group off",
        unpack_zeros=gemv_zeros_shifted_by_padding,
    ),
    mutant(
        "fast-rows-apart",
        "TinyChat's rows are not interleaved",
        fast_place=lambda self, n, k: (
            n // 4,
            16 * (k // 16 % 4) + 64 * (n % 4) % 64 + k % 16 + 64 * (k // 64),
            4 * (k % 32 // 8),
        ),
    ),
    mutant(
        "fast-nibbles-in-turn",
        "four neighbours share a word of TinyChat's",
        fast_place=lambda self, n, k: (n // 4, 64 * (k // 64) + 16 * (n % 4) + k % 64 // 4, 4 * (k % 4)),
    ),
    mutant(
        "fast-halves-swapped",
        "the two halves of 64 inputs change places",
        fast_place=lambda self, n, k: (
            n // 4,
            64 * (k // 64) + 16 * (n % 4) + 8 * (1 - k % 64 // 32) + k % 8,
            4 * (k % 32 // 8),
        ),
    ),
    mutant(
        "offset-positive",
        "+ scale * zero is stored",
        offset_of=lambda self, s, z: (s.astype(F32) * z).astype(s.dtype),
    ),
    mutant(
        "offset-of-z-less-1",
        "the stored product is that of the zero point less 1",
        offset_of=lambda self, s, z: -(s.astype(F32) * (z.astype(F32) - 1)).astype(s.dtype),
    ),
    mutant(
        "symmetric-zero-is-0", "a symmetric linear's zero point is taken as 0", middle=lambda self, bits: 0
    ),
    mutant(
        "zero-points-not-turned",
        "pack-quantized's zero points read along the groups",
        unpack_zeros=zeros_not_turned,
    ),
    mutant(
        "shape-swapped",
        "weight_shape is (in, out)",
        shape_out=lambda self, codes: np.array(codes.shape[::-1], dtype=np.int64),
    ),
    mutant("index-dropped", "g_idx is not handed on", index_out=lambda self, index: {}),
    mutant(
        "nan-scale-accepted",
        "a NaN in the scales goes through",
        check_scales=lambda self, scales, shape: None,
    ),
    mutant("bad-code-accepted", "a code of 16 is packed", check_linear=lambda self, params, linear: None),
    mutant(
        "steps-in-uint8",
        "code - zero point wraps in a byte",
        steps=lambda self, q, z: (q - z).astype(np.uint8),
    ),
    mutant("zero-point-forgotten", "weights are code * scale", steps=lambda self, q, z: q.astype(np.int32)),
    mutant(
        "zero-point-plus-1",
        "GPTQ's plus 1 applied to every zero point",
        steps=lambda self, q, z: q.astype(np.int32) - z - 1,
    ),
    mutant(
        "index-ignored",
        "groups are neighbours whatever g_idx says",
        group_index=lambda self, inputs, n_in, groups: np.arange(n_in, dtype=np.int64) // (n_in // groups),
    ),
    mutant(
        "groups-tiled",
        "scales repeated tile by tile: input i has group i mod G",
        group_index=lambda self, inputs, n_in, groups: np.arange(n_in, dtype=np.int64) % groups,
    ),
    mutant("last-group-stale", "the last group uses the one before", group_index=last_scale_stale),
    mutant("group-one-early", "the next group begins one input too early", group_index=group_one_early),
    mutant("first-scale-for-all", "one scale for a whole row", weight=scales_by_row),
    mutant("subnormal-flushed", "scales below 2^-14 are 0", weight=subnormal_scales_flushed),
    mutant(
        "products-in-float16",
        "code * scale and zero * scale rounded to float16, then subtracted",
        weight=products_in_float16,
    ),
    mutant("offset-subtracted", "weights are code * scale - offset", weight=offset_subtracted),
    mutant("weight-in-bfloat16", "weights truncated to bfloat16", weight=weight_in_bfloat16),
]
