"""Scales folded into a block's norms and linears as its plan says, before anything is rounded to integers.

Folded          a linear after its fold
folded          a block with scales at every site of a plan
random_scales   what draws them
"""

from collections.abc import Callable

import numpy as np
from helpers.assertions import frozen
from numpy.typing import NDArray

from awq_ref.model import Block
from awq_ref.search import LinearFold, fold_into_norm, query_head_tie

Draw = Callable[[int], NDArray[np.float32]]


class Folded:
    """A linear as it is stored after its fold, before rounding."""

    def __init__(self, linear, fold):
        self.weight = frozen(fold.apply(linear.weight))
        self.bias = None if linear.bias is None else fold.apply_bias(linear.bias)
        self.out_features, self.in_features = self.weight.shape
        self.resident_bytes = 0

    def __call__(self, x):
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


def random_scales(rng: np.random.Generator) -> Draw:
    """Return what draws n scales between exp(-2) and exp(2)."""
    return lambda n: np.exp(rng.uniform(-2, 2, n)).astype(np.float32)


def ties_of(config):
    return query_head_tie(
        n_heads=config.num_attention_heads, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim
    )


def folded(block, config, plan, draw_scales, storage):
    """The block with scales folded in at every site of a plan."""
    norms = dict(block.norms)
    rows, columns = {}, {}
    for group in plan:
        if group.producer_kind == "none":
            continue
        if group.producer_kind == "norm":
            norm, bias = norms[group.producer], f"{group.producer}.bias"
            norms[group.producer], scales = fold_into_norm(
                norm, draw_scales(len(norm)), storage_dtype=storage
            )
            if bias in norms:
                norms[bias] = norms[bias] / scales
        else:
            made = draw_scales(len(block.linears[group.producer].weight))
            rows[group.producer] = made
            scales = made[ties_of(config)] if group.tied else made
        columns |= dict.fromkeys(group.readers, scales)
    linears = {
        name: Folded(linear, LinearFold(columns=columns.get(name), rows=rows.get(name)))
        for name, linear in block.linears.items()
    }
    return Block(norms, linears)
