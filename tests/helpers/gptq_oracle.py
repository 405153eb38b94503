"""GPTQ written again, unblocked and in float64, from its equations; grids come from the scalar quantizer.

oracle_factor    upper U with (C + lambda I)^-1 = U^T U, by inverting first (another way than the package's)
oracle_gptq      weight -> (codes, rounded weight, distance of the closest call to a tie)
oracle_loss      e C e^T summed over rows, in float64
"""

import numpy as np
from helpers.scalar_oracles_quantize import scalar_grid


def oracle_factor(gram, order, damping):
    matrix = gram.astype(np.float64)[np.ix_(order, order)]
    matrix += damping * np.diag(matrix).mean() * np.eye(len(gram), dtype=np.float64)
    return np.linalg.cholesky(np.linalg.inv(matrix)).T


def grids_of(weight, group_size, bits):
    """Scale and zero point of every row and group, each from `scalar_grid`."""
    groups = weight.astype(np.float32).reshape(len(weight), -1, group_size)
    pairs = [[scalar_grid(group.tolist(), bits=bits) for group in row] for row in groups]
    return np.array(pairs, dtype=np.float64)  # (rows, n_groups, 2)


def oracle_gptq(weight, gram, *, bits, group_size, act_order=False, damping=0.01):
    """Return codes, the weights they stand for, and the least distance of a quotient to a tie."""
    rows, n = weight.shape
    order = np.argsort(-np.diag(gram), kind="stable") if act_order else np.arange(n, dtype=np.int64)
    upper = oracle_factor(gram, order, damping)
    rest = weight.astype(np.float64)[:, order]
    static = grids_of(weight, group_size, bits)
    codes = np.zeros((rows, n), dtype=np.int64)
    rounded = np.zeros((rows, n), dtype=np.float64)
    closest = 0.5
    for i in range(n):
        group = order[i] // group_size
        if not act_order and i % group_size == 0:
            static[:, group] = grids_of(rest[:, i : i + group_size], group_size, bits)[:, 0]
        scale, zero = static[:, group, 0], static[:, group, 1]
        quotient = rest[:, i] / scale
        closest = min(closest, float(np.abs(quotient - np.floor(quotient) - 0.5).min()))
        code = np.clip(np.rint(quotient) + zero, 0, 2**bits - 1)
        codes[:, order[i]] = code
        rounded[:, order[i]] = (code - zero) * scale
        error = (rest[:, i] - (code - zero) * scale) / upper[i, i]
        for j in range(i + 1, n):
            rest[:, j] -= error * upper[i, j]
    return codes, rounded, closest


def oracle_loss(rounded, weight, gram):
    error = rounded.astype(np.float64) - weight.astype(np.float64)
    return float(np.einsum("ri,ij,rj->", error, gram.astype(np.float64), error, optimize=True))
