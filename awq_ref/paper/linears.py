"""The linears of a model exchanged for others: for what no file format stores.

    exchanged        a model with other float weights, the rest shared
    site_of          linear -> the site whose statistics its inputs have
    salient          the channels with the largest values of a statistic

A model whose weights are exchanged is dense: how its weights would be stored is not said.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from awq_ref.dtypes import F32, F64, I64
from awq_ref.errors import UnsupportedError
from awq_ref.matmul import DenseLinear
from awq_ref.model import Block
from awq_ref.pipeline import Model
from awq_ref.search import plan_for
from awq_ref.spec import LinearOperator

Change = Callable[[int, str, F32], F32]  # layer, linear, weight -> another weight


def dense_weight(linear: LinearOperator) -> F32:
    """Return the float32 weight (out_features, in_features) of a dense linear."""
    if getattr(linear, "residency", "dense") != "dense":
        raise UnsupportedError(
            f"exchanged: the model must be loaded with residency='dense'; got a {type(linear).__name__}."
        )
    weight: F32 = linear.weight  # type: ignore[attr-defined]
    return weight


def exchanged(model: Model, change: Change) -> Model:
    """Return the model with the weight of every linear of its blocks replaced by change(layer, name, weight)."""
    blocks = [
        Block(
            block.norms,
            {
                name: DenseLinear(change(layer, name, dense_weight(linear)), getattr(linear, "bias", None))
                for name, linear in block.linears.items()
            },
        )
        for layer, block in enumerate(model.decoder.blocks)
    ]
    return replace(model, decoder=replace(model.decoder, blocks=blocks))


def site_of(model: Model) -> dict[str, str]:
    """Return linear -> site: the name under which the statistics of its inputs go."""
    plan = plan_for(model.config.model_type)
    return {name: group.site for group in plan for name in group.consumers}


def salient(values: F32 | F64, share: float) -> I64:
    """Return the channels with the largest values, largest first: a share of them, at least one.

    Examples
    --------
    >>> salient(np.float32([3.0, 1.0, 2.0, 5.0]), 0.5).tolist()
    [3, 0]
    """
    count = max(1, round(share * len(values)))
    return np.argsort(-values, kind="stable")[:count].astype(np.int64)
