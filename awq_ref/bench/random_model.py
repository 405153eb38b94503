"""A decoder of random codes, made in memory: the time of a product does not depend on the values.

random_decoder    a configuration -> a decoder that runs

One layer is made and the others are copies of it: each has memory of its own, as in a real model.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from awq_ref.dtypes import F32, U16
from awq_ref.matmul import DenseLinear, Int8Linear, Residency
from awq_ref.model import (
    Block,
    Decoder,
    ModelConfig,
    block_linear_shapes,
    block_norm_shapes,
    linears_of_one_input,
)
from awq_ref.paper.roofline import random_linear
from awq_ref.pipeline.operators import block_operators
from awq_ref.pipeline.tables import Head
from awq_ref.spec import LinearOperator, QuantSpec

ROWS = 4096  # of a table, made at a time


def _rows(rows: int, width: int) -> Iterator[F32]:
    """Yield the rows of a matrix of random numbers of the size of a model's, some at a time."""
    rng = np.random.default_rng(1)
    for first in range(0, rows, ROWS):
        part = rng.random((min(ROWS, rows - first), width), dtype=np.float32)
        part -= 0.5
        part *= 0.04
        yield part


def _filled(shape: tuple[int, int], dtype: type[Any], turn: Callable[[F32], Any]) -> Any:
    """Return a table of what `turn` makes of random rows; no second one is ever whole."""
    table = np.empty(shape, dtype=dtype)
    for first, part in zip(range(0, shape[0], ROWS), _rows(*shape), strict=True):
        table[first : first + ROWS] = turn(part)
    return table


def _tables(config: ModelConfig, head: Head) -> tuple[F32 | U16, LinearOperator]:
    """Return embedding and head, as `pipeline.tables` holds those of a bfloat16 checkpoint."""
    shape = config.vocab_size, config.hidden_size
    shared = config.tie_word_embeddings and head == "float"
    if head == "int8":
        lm_head: LinearOperator = Int8Linear.from_rows(_rows(*shape), shape)
    else:
        lm_head = DenseLinear(_filled(shape, np.float32, lambda part: part))
    if shared:
        return lm_head.weight, lm_head  # type: ignore[attr-defined]
    return _filled(shape, np.uint16, lambda part: part.view(np.uint32) >> 16), lm_head  # as bfloat16


def _block(config: ModelConfig, spec: QuantSpec, residency: Residency) -> Block:
    linears = {name: random_linear(*shape, spec) for name, shape in block_linear_shapes(config).items()}
    norms = {name: np.ones(shape, dtype=np.float32) for name, shape in block_norm_shapes(config).items()}
    return Block(norms, block_operators(linears, linears_of_one_input(config, 0), residency))


def random_decoder(
    config: ModelConfig, *, spec: QuantSpec, residency: Residency, head: Head = "float", layers: int
) -> Decoder:
    """Return a decoder of some layers of a configuration, with random weights, as if read from bfloat16.

    Parameters
    ----------
    config : ModelConfig
        Of a plain family: one of `SHAPES`.
    spec : QuantSpec
    residency : "packed", "codes" or "dense"
    head : "float" or "int8"
    layers : int
    """
    first = _block(config, spec, residency)
    blocks = [first, *(copy.deepcopy(first) for _ in range(layers - 1))]
    embedding, lm_head = _tables(config, head)
    norm = np.ones(config.hidden_size, dtype=np.float32)
    return Decoder(replace(config, num_hidden_layers=layers), embedding, blocks, norm, lm_head)
