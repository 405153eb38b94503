"""The clip search: a group's largest weights may be cut when that makes the others more precise.

    diagonal_blocks     the part of a Gram matrix that lies inside the groups
    token_blocks        the same from a sample of tokens
    scale_blocks        the blocks of x / s
    search_clip         per row and group, the ratio with the least error
    keep_better_rows    undo clips in the rows where the whole row did not gain

Source: Lin et al. 2023, arXiv:2306.00978 (official code: llm-awq, awq/quantize/auto_clip.py);
docs/equations.md#awq-9.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from awq_ref.checks import require_between, require_group_size, require_shape
from awq_ref.dtypes import F32, F64
from awq_ref.errors import RangeError
from awq_ref.search.objective import Quantizer

GROUP_ELEMENTS = 1 << 18  # weights searched at once: few calls, temporaries of 1 MiB


@dataclass(frozen=True)
class ClipSearch:
    """The outcome of one clip search.

    clip        : float32 (out_features, n_groups), the largest |w| left in each group
    loss_before : float32 (out_features, n_groups), error of the group's part of the output, unclipped
    loss_after  : float32 (out_features, n_groups), the same, clipped; <= loss_before
    """

    clip: F32
    loss_before: F32
    loss_after: F32


def diagonal_blocks(gram: F32, group_size: int) -> F32:
    """Return the (n_groups, group_size, group_size) blocks on the diagonal of a Gram matrix: a copy.

    Parameters
    ----------
    gram : float32 array, shape (in_features, in_features)
    group_size : int
        -1: one block.

    Raises
    ------
    ShapeError
        If group_size does not divide in_features.
    """
    size = require_group_size("diagonal_blocks", len(gram), group_size, "the Gram matrix")
    starts = range(0, len(gram), size)
    return np.stack([gram[start : start + size, start : start + size] for start in starts])


def token_blocks(x: F32, group_size: int) -> F32:
    """Return the diagonal blocks of X^T X / n: x (n, in_features) -> (n_groups, group_size, group_size).

    Parameters
    ----------
    x : float32 array, shape (n, in_features)
    group_size : int
        -1: one block.

    Raises
    ------
    ShapeError
        If group_size does not divide in_features.
    """
    size = require_group_size("token_blocks", x.shape[1], group_size, "x")
    groups = x.reshape(len(x), -1, size).transpose(1, 0, 2)  # (n_groups, n, group_size)
    blocks: F32 = np.matmul(groups.transpose(0, 2, 1), groups) * (1.0 / len(x))
    return blocks


def scale_blocks(blocks: F32, channel_scales: F32) -> F32:
    """Return the diagonal blocks for inputs x / s: a new array.

    Parameters
    ----------
    blocks : float32 array, shape (n_groups, group_size, group_size)
    channel_scales : float32 array, shape (in_features,)
    """
    inverse = (1.0 / channel_scales).reshape(len(blocks), -1)  # (n_groups, group_size)
    scaled: F32 = blocks * inverse[:, :, None] * inverse[:, None, :]
    return scaled


def _largest(groups: F32) -> F32:
    """Return max |w| along the last axis, never -0."""
    largest: F32 = np.maximum(groups.max(axis=-1), -groups.min(axis=-1)) + 0.0
    return largest


def _search_groups(
    groups: F32, blocks: F32, quantizer: Quantizer, ratios: Sequence[float]
) -> tuple[F32, F32, F32]:
    """Search groups (n_groups, rows, group_size): returns clip, loss before, loss after, each (n_groups, rows)."""
    weights = groups.reshape(-1, groups.shape[2])  # each group of each row as a row of its own
    extremes = weights.min(axis=1, keepdims=True), weights.max(axis=1, keepdims=True)
    largest = np.maximum(extremes[1], -extremes[0]) + 0.0  # (n_groups * rows, 1), never -0
    best, best_loss = largest.copy(), np.full_like(largest, np.inf)
    before = best_loss
    error, half = np.empty_like(groups), groups.shape[2] // 2
    # Blocks are symmetric: e C e^T needs the lower left quarter twice, and the upper right one not at all.
    left, right = blocks[:, :, :half].copy(), blocks[:, half:, half:]
    left[:, half:] *= 2.0
    for ratio in ratios:
        limit = largest * ratio
        rounded = quantizer(weights, clip=limit, extremes=extremes)
        np.subtract(rounded, weights, out=error.reshape(weights.shape))
        loss: F32 = np.vecdot(error @ left, error[..., :half])
        loss += np.vecdot(error[..., half:] @ right, error[..., half:])
        loss = loss.reshape(largest.shape)
        before = loss if ratio == 1.0 else before
        better = loss < best_loss
        np.copyto(best, limit, where=better)
        np.copyto(best_loss, loss, where=better)
    shape = groups.shape[:2]
    return best.reshape(shape), before.reshape(shape), best_loss.reshape(shape)


def search_clip(weight: F32, blocks: F32, *, quantizer: Quantizer, ratios: Sequence[float]) -> ClipSearch:
    """Return for every row and group the symmetric clip that changes the group's part of the output least.

    Equation [AWQ-9]  c_og = r m_og,  r = argmin_r e C_gg e^T,  e = Q(clip(w, -r m, r m)) - w,  m_og = max |w|
        w    -> weight, row o, group g      (out_features, in_features)
        C_gg -> blocks[g]                   (n_groups, group_size, group_size)
        r    -> ratios;  c -> clip          (out_features, n_groups)
    Source: llm-awq, awq/quantize/auto_clip.py; docs/equations.md#awq-9.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
        After its channel scales are folded in.
    blocks : float32 array, shape (n_groups, group_size, group_size)
        Diagonal blocks of the Gram matrix of the inputs that this weight sees (divided by the scales): symmetric.
    quantizer : callable
        Is given groups as rows, (groups, group_size), with the limit of each, and must treat each row by itself.
    ratios : sequence of float in (0, 1]
        The first is 1.0, so that not to clip is a choice. Of equal losses the first wins.

    Returns
    -------
    search : ClipSearch

    Raises
    ------
    ShapeError
        If the blocks do not fit the weight.
    RangeError
        If the ratios do not start with 1.0 or leave (0, 1].

    Notes
    -----
    Groups are judged one by one: what two groups of a row do to each other (the rest of C) is not seen. See
    `keep_better_rows`.
    """
    require_shape("search_clip", "weight", weight, (None, None))
    n_groups, size = blocks.shape[0], blocks.shape[-1]
    require_shape("search_clip", "blocks", blocks, (n_groups, size, weight.shape[1] // n_groups))
    if not ratios or ratios[0] != 1.0:
        raise RangeError(f"search_clip: ratios must start with 1.0 (no clipping); got {tuple(ratios)}.")
    for ratio in ratios:
        require_between("search_clip", "ratio", ratio, 1e-6, 1.0)
    results = [np.empty((len(weight), n_groups), dtype=np.float32) for _ in range(3)]
    groups = weight.reshape(len(weight), n_groups, size)
    n_rows = max(1, min(len(weight), GROUP_ELEMENTS // size))
    together = max(1, GROUP_ELEMENTS // (n_rows * size))
    for row, g in product(range(0, len(weight), n_rows), range(0, n_groups, together)):
        part = slice(row, row + n_rows), slice(g, g + together)
        copied = np.ascontiguousarray(groups[part].transpose(1, 0, 2))  # (together, n_rows, group_size)
        for result, found in zip(
            results, _search_groups(copied, blocks[part[1]], quantizer, ratios), strict=True
        ):
            result[part] = found.T
    return ClipSearch(*results)


def keep_better_rows(weight: F32, clip: F32, before: F64, after: F64) -> tuple[F32, F64]:
    """Return the clips with those undone whose row did not gain, and the row losses that result.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
        The weight that is clipped.
    clip : float32 array, shape (out_features, n_groups)
    before, after : float64 array, shape (out_features,)
        Whole-row losses (`row_losses`) without and with the clips.

    Returns
    -------
    kept : float32 array, shape (out_features, n_groups)
        max |w| of the group, which clips nothing, in the rows where after >= before.
    losses : float64 array, shape (out_features,)
    """
    groups = weight.reshape(*clip.shape, -1)  # (out_features, n_groups, group_size)
    gained = after < before
    kept: F32 = np.where(gained[:, None], clip, _largest(groups))
    return kept, np.where(gained, after, before)
