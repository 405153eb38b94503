"""The published searches of llm-awq as plain loops: its scale search and its clip search.

quantize_dequantize   its group quantizer with zero points
auto_scale            one scale-sharing group: 20 powers of the mean activation, judged on a module
auto_clip             one linear layer: 10 symmetric limits per row and group, judged on strided tokens

Written from awq/quantize/{quantizer,auto_scale,auto_clip}.py of https://github.com/mit-han-lab/llm-awq (MIT), in our
own words and in float32 where that code runs in float16. Nothing of the package is used.
"""

import math

import numpy as np


def quantize_dequantize(weight, bits, group_size):
    top = 2**bits - 1
    result = np.empty_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group_size):
            group = weight[row, start : start + group_size]
            low, high = group.min(), group.max()
            step = max(high - low, np.float32(1e-5)) / np.float32(top)
            zero = min(max(-np.rint(low / step), 0.0), top)
            codes = [min(max(np.rint(w / step) + zero, 0.0), top) for w in group]
            result[row, start : start + group_size] = [np.float32(code - zero) * step for code in codes]
    return result


def auto_scale(weights, x, forward, bits, group_size):
    """Return (scales, alpha, losses): weights by name, x (tokens, in), forward(weights) -> the module's output."""
    mean_abs = np.abs(x.astype(np.float64)).mean(axis=0).astype(np.float32)
    wanted = forward(weights)
    best_loss, best, losses = math.inf, None, []
    for point in range(20):
        alpha = point / 20
        scales = np.array([max(a**alpha, 1e-4) for a in mean_abs], dtype=np.float32)
        scales = scales / np.sqrt(scales.max() * scales.min())
        rounded = {}
        for name, weight in weights.items():
            rounded[name] = quantize_dequantize(weight * scales, bits, group_size) / scales
        loss = float(((wanted - forward(rounded)).astype(np.float64) ** 2).mean())
        losses.append(loss)
        if loss < best_loss:
            best_loss, best = loss, (scales, alpha)
    return (*best, losses)


def auto_clip(weight, x, bits, group_size, n_sample_token=512):
    """Return (limit, errors): weight and x after scaling; limit (out, groups), errors (out, groups, 10)."""
    sample = x[:: len(x) // n_sample_token].astype(np.float64)
    n_groups = weight.shape[1] // group_size
    limit = np.empty((weight.shape[0], n_groups), dtype=np.float32)
    errors = np.empty((weight.shape[0], n_groups, 10), dtype=np.float64)
    for row in range(weight.shape[0]):
        for g in range(n_groups):
            columns = slice(g * group_size, (g + 1) * group_size)
            group = weight[row, columns]
            largest = np.abs(group).max()
            wanted = sample[:, columns] @ group
            least = 1e9
            for point in range(10):
                top = largest * np.float32(1 - point / 20)
                cut = np.minimum(np.maximum(group, -top), top)
                got = sample[:, columns] @ quantize_dequantize(cut[None], bits, group_size)[0]
                errors[row, g, point] = ((got - wanted) ** 2).mean()
                if errors[row, g, point] < least:
                    least, limit[row, g] = errors[row, g, point], top
    return limit, errors
