"""Mutants of quantizing, of products and of the search."""

import math

import numpy as np
from mutants.mutant import mutant, original

F32, F64 = np.float32, np.float64


def away(self, x):
    return np.copysign(np.floor(np.abs(x) + F32(0.5)), x)


def no_clip_of_codes(self, weight, used, zeros, params):
    groups = self.split(weight, params)
    with np.errstate(over="ignore"):
        shifted = self.shifted(groups / used[:, :, None], zeros[:, :, None].astype(F32))
    qmax = 2 ** params["bits"] - 1
    return (np.clip(shifted, -(2**30), 2**30).astype(np.int64) & qmax).astype(np.uint8).reshape(weight.shape)


def zero_wraps(self, low, used, qmax):
    with np.errstate(over="ignore"):
        wanted = np.clip(-self.round(low / used), -(2**30), 2**30).astype(np.int64)
    return (wanted & qmax).astype(np.uint8)


def truncated_scales(self, delta, dtype):
    scales = original("stored")(self, delta, dtype)
    too_large = scales.astype(F32) > delta
    return np.where(too_large, np.nextafter(scales, scales.dtype.type(0)), scales)


def saturated_scales(self, delta, dtype):
    return np.minimum(delta, F32(np.finfo(dtype).max)).astype(dtype)


def steps_of_16(self, low, high, params):
    delta = original("delta")(self, low, high, params)
    qmax = 2 ** params["bits"] - 1
    return delta if params["symmetric"] else (delta * F32(qmax) / F32(qmax + 1)).astype(F32)


def range_of(rule):
    return lambda self, groups, params: original("extremes")(self, groups, {**params, "range_rule": rule})


def largest_alone(self, groups, params):
    high = np.abs(groups).max(axis=2)
    return -high, high


def clip_forgotten(self, inputs, params):
    return original("clamped")(self, {k: v for k, v in inputs.items() if k != "clip"}, params)


def not_finite_accepted(self, inputs, params):
    finite = np.nan_to_num(inputs["weight"], nan=0.0, posinf=0.0, neginf=0.0)
    return original("clamped")(self, {**inputs, "weight": finite}, params)


def summed_in_float16(self, x, weight):
    y = np.zeros((len(x), len(weight)), dtype=np.float16)
    with np.errstate(over="ignore"):
        for i in range(x.shape[1]):
            y += np.outer(x[:, i], weight[:, i]).astype(np.float16)
    return y


def without_last_inputs(self, x, weight):
    keep = x.shape[1] - x.shape[1] // 8
    return x[:, :keep].astype(F32) @ weight[:, :keep].T


def first_token_for_all(self, x, weight):
    y = original("product")(self, x, weight)
    y[1:] = y[:1]
    return y


def zero_of_last_group_missing(self, params, inputs):
    if "zero_point" in inputs:
        zeros = inputs["zero_point"].copy()
        zeros[:, -1] = 0
        inputs = {**inputs, "zero_point": zeros}
    return original("op_matmul")(self, params, inputs)


def bias_for_each_group(self, y, inputs):
    return y + inputs["bias"] * (1 + inputs["scales"].shape[1]) if "bias" in inputs else y


def one_scale_a_token(self, groups):
    return np.repeat(
        (np.abs(groups).max(axis=(1, 2)) / F32(127)).astype(F32)[:, None], groups.shape[1], axis=1
    )


def divided_by_zero(self, x, size):
    groups = x.reshape(len(x), -1, size)
    scales = self.act_scale(groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = np.nan_to_num(self.round(groups / scales[:, :, None]), nan=-128.0)
    return codes.astype(np.int8), scales


def only_positive_codes(self, x, size):
    codes, scales = original("act_codes")(self, x, size)
    return np.maximum(codes, 0), scales


def weights_of_the_next_group(self, params, inputs):
    scales = np.roll(inputs["scales"], -1, axis=1)
    return original("op_matmul_w4a8")(self, params, {**inputs, "scales": scales})


def dead_channels_count(self, a, alpha, formula):
    t, _ = original("powers")(self, a, alpha, formula)
    return t, np.ones(len(a), dtype=bool)


def row_extent(self, params, inputs):
    groups = self.split(inputs["weight"], params)
    extent = np.abs(groups).max(axis=(1, 2))
    twin = type(self)()
    twin.group_extent = lambda group: extent
    return original("op_search_clip")(twin, params, inputs)


def diagonal(self, error, gram):
    return error**2 @ np.diag(gram).astype(F64)


NUMBERS = [
    mutant("ties-away", "ties are rounded away from zero, as C's round() does", round=away),
    mutant("ties-up", "floor(x + 1/2)", round=lambda self, x: np.floor(x + F32(0.5))),
    mutant("truncated", "codes are truncated", round=lambda self, x: np.trunc(x)),
    mutant("zero-added-first", "rint(w / scale + zero)", shifted=lambda self, q, z: self.round(q + z)),
    mutant(
        "scale-not-rounded",
        "codes and zero points from the scale before it is stored",
        used=lambda self, s, d: d,
    ),
    mutant("scale-truncated", "the stored scale is rounded toward zero", stored=truncated_scales),
    mutant("scale-saturates", "a scale too large for float16 becomes 65504", stored=saturated_scales),
    mutant("divisor-2-to-b", "range / 16 at 4 bits", delta=steps_of_16),
    mutant(
        "symmetric-7.5",
        "symmetric scales are max / 7.5",
        symmetric_steps=lambda self, bits: F32((2**bits - 1) / 2),
    ),
    mutant(
        "symmetric-8", "symmetric scales are max / 8", symmetric_steps=lambda self, bits: F32(2 ** (bits - 1))
    ),
    mutant("range-never-widened", "the range need not contain 0", extremes=range_of("minmax")),
    mutant("range-always-widened", "the published range is asked for and widened", extremes=range_of("zero")),
    mutant("range-symmetric", "the range is -max to max", extremes=largest_alone),
    mutant("floor-too-low", "the floor of the range is 1e-8", range_floor=1e-8),
    mutant("floor-too-high", "the floor of the range is 1e-4", range_floor=1e-4),
    mutant("zero-point-wraps", "the zero point is not held to the grid", zero_point=zero_wraps),
    mutant("codes-wrap", "codes are not held to the grid", codes=no_clip_of_codes),
    mutant(
        "zero-point-truncated",
        "the zero point is truncated",
        zero_point=lambda self, low, used, qmax: np.clip(np.trunc(-low / used), 0, qmax).astype(np.uint8),
    ),
    mutant(
        "zero-point-of-the-sum",
        "-lo/scale is rounded up",
        zero_point=lambda self, low, used, qmax: np.clip(np.ceil(-low / used), 0, qmax).astype(np.uint8),
    ),
    mutant("clip-forgotten", "the clip is not applied", clamped=clip_forgotten),
    mutant(
        "clip-of-range-alone",
        "the clip narrows the range, the group's largest weight is not clamped to it",
        weight_to_code=lambda self, clamped, inputs: np.where(clamped == 0, inputs["weight"], clamped),
    ),
    mutant("nan-weight-accepted", "NaN and infinity become 0", clamped=not_finite_accepted),
    mutant(
        "whole-row-is-1",
        "group_size -1 is taken as groups of one",
        group=lambda self, params, inputs: 1 if params["group_size"] == -1 else params["group_size"],
    ),
    mutant("float16-sums", "products are summed in float16", product=summed_in_float16),
    mutant(
        "x-in-float16",
        "activations are rounded to float16",
        product=lambda self, x, w: x.astype(np.float16).astype(F32) @ w.T,
    ),
    mutant("last-inputs-lost", "the last eighth of the inputs is not added", product=without_last_inputs),
    mutant("one-token-kernel", "the first token's result for all", product=first_token_for_all),
    mutant(
        "last-zero-point-missing",
        "the last group's zero point is not taken out of the sum",
        op_matmul=zero_of_last_group_missing,
    ),
    mutant("bias-forgotten", "no bias", with_bias=lambda self, y, inputs: y),
    mutant(
        "bias-for-each-group", "the bias is added once more for each group", with_bias=bias_for_each_group
    ),
    mutant(
        "activations-by-128",
        "d = max / 128",
        act_scale=lambda self, groups: (np.abs(groups).max(axis=2) / F32(128)).astype(F32),
    ),
    mutant("activations-by-token", "one scale for a token's activations", act_scale=one_scale_a_token),
    mutant("activations-zero-group", "0 / 0 in a group of zeros", act_codes=divided_by_zero),
    mutant("activations-unsigned", "negative activations become 0", act_codes=only_positive_codes),
    mutant(
        "w4a8-stale-group", "the weight's scales are one group off", op_matmul_w4a8=weights_of_the_next_group
    ),
    mutant(
        "max-not-mean",
        "the largest |x|, not its mean",
        op_act_mean_abs=lambda self, params, inputs: {"act_mean_abs": np.abs(inputs["x"]).max(axis=0)},
    ),
    mutant(
        "mean-without-abs",
        "the mean of x",
        op_act_mean_abs=lambda self, params, inputs: {"act_mean_abs": inputs["x"].mean(axis=0)},
    ),
    mutant(
        "gram-not-divided",
        "X^T X without 1 / n",
        op_gram=lambda self, params, inputs: {"gram": inputs["x"].T @ inputs["x"]},
    ),
    mutant(
        "gram-centred",
        "the covariance",
        op_gram=lambda self, params, inputs: {"gram": np.cov(inputs["x"].T, bias=True)},
    ),
    mutant("not-normalized", "scales without their common factor", middle_power=lambda self, t: 1.0),
    mutant(
        "geometric-mean",
        "scales divided by their geometric mean",
        middle_power=lambda self, t: math.exp(np.log(t).mean()),
    ),
    mutant("dead-channels-count", "dead channels take part in the extremes", powers=dead_channels_count),
    mutant(
        "alpha-turned-around",
        "1 - alpha",
        channel_scales=lambda self, a, alpha, f: original("channel_scales")(self, a, 1 - alpha, f),
    ),
    mutant("llm-awq-floor", "llm-awq's floor is 1e-5", llm_awq_floor=1e-5),
    mutant("scale-floor", "activations are floored at 2^-8 of the largest", scale_floor=2.0**-8),
    mutant("gram-diagonal", "the loss takes the diagonal of the Gram matrix alone", quadratic=diagonal),
    mutant(
        "scales-not-undone",
        "the rounded weight is not divided by the channel scales",
        back=lambda self, rounded, scales: rounded,
    ),
    mutant(
        "last-of-equal",
        "of equal losses the last wins",
        pick=lambda self, losses: len(losses) - 1 - np.argmin(losses[::-1], axis=0),
    ),
    mutant("clip-by-row", "the clip is a share of the row's largest weight", op_search_clip=row_extent),
    mutant(
        "clip-first-block",
        "every group takes the first block of the Gram matrix",
        block_of=lambda self, gram, span: gram[: span.stop - span.start, : span.stop - span.start],
    ),
]
