"""A decoder of random codes, made in memory: the time of a product does not depend on the values.

random_decoder    a configuration -> a decoder that runs

One layer is made and the others are copies of it: each has memory of its own, as in a real model.
"""

import copy
from dataclasses import replace

import numpy as np

from awq_ref.dtypes import F32
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
from awq_ref.spec import QuantSpec


def _table(rows: int, width: int) -> F32:
    """A matrix of random numbers of the size of a model's."""
    table = np.random.default_rng(1).random((rows, width), dtype=np.float32)
    table -= 0.5
    table *= 0.04
    return table


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
    shape = config.vocab_size, config.hidden_size
    table = _table(*shape)
    lm_head = DenseLinear(table) if head == "float" else Int8Linear.from_rows([table], shape)
    shared = config.tie_word_embeddings and head == "float"
    embedding = table if shared else (table.view(np.uint32) >> 16).astype(np.uint16)
    norm = np.ones(config.hidden_size, dtype=np.float32)
    return Decoder(replace(config, num_hidden_layers=layers), embedding, blocks, norm, lm_head)
