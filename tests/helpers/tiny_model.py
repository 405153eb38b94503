"""Small random decoders for tests.

tiny_config     a Llama that a scalar loop can run: 2 layers, 4 query heads on 2 key-value heads
random_tensors  a float checkpoint in memory: Hugging Face name -> float32 array
make_decoder    such tensors as a Decoder over FloatLinear
"""

import math
from typing import Any

import numpy as np
from helpers.float_linear import FloatLinear
from numpy.typing import NDArray

from awq_ref.model import (
    Block,
    Decoder,
    Entrance,
    ModelConfig,
    block_linear_shapes,
    block_norm_shapes,
    block_prefix,
    block_router_shapes,
    model_tensor_shapes,
    norm_tensor,
    stored_place,
)

F32 = NDArray[np.float32]

# head_dim is not hidden_size / heads, so that a confusion of the two shows.
TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 17,
    "max_position_embeddings": 24,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100.0,
}


def tiny_config(**changes: Any) -> ModelConfig:
    return ModelConfig.from_json(TINY | changes)


def random_tensors(config: ModelConfig, rng: np.random.Generator, *, gain: float = 0.3) -> dict[str, F32]:
    """Draw every tensor of a checkpoint; a larger gain of the linears makes attention sharper, and bounds wider."""
    tensors = {}
    tables = (config.family.embed_tokens, config.family.position_table)
    for name, shape in model_tensor_shapes(config).items():
        if name.endswith(".bias"):
            values = rng.normal(0, 0.3, shape)
        elif len(shape) == 1:
            values = rng.uniform(0.5, 1.5, shape) - config.family.norm_offset
        elif name.removesuffix(".weight") in tables:
            values = rng.normal(0, 1, shape)
        else:
            values = rng.normal(0, gain / math.sqrt(shape[-1]), shape)
        tensors[name] = values.astype(np.float32)
    return tensors


def make_decoder(config: ModelConfig, tensors: dict[str, F32]) -> Decoder:
    family = config.family

    def linear(name: str, *, inner: bool = True) -> FloatLinear:
        place, rows = stored_place(config, name)
        weight, bias = tensors[f"{place}.weight"], tensors.get(f"{place}.bias")
        weight = weight.T if inner and family.transposed else weight
        return FloatLinear(np.ascontiguousarray(weight[rows]), None if bias is None else bias[rows])

    def norm(name: str) -> F32:
        offset = np.float32(0.0 if name.endswith(".bias") else family.norm_offset)
        return tensors[norm_tensor(name)] + offset

    def outer_norm(name: str) -> tuple[F32 | None, F32 | None]:
        bias = norm(f"{name}.bias") if name and family.norm_bias else None
        return norm(name) if name else None, bias

    blocks = []
    for layer in range(config.num_hidden_layers):
        prefix = block_prefix(config, layer)
        norms = {name: norm(f"{prefix}{name}") for name in block_norm_shapes(config)}
        names = [*block_linear_shapes(config, layer), *block_router_shapes(config, layer)]
        blocks.append(Block(norms, {name: linear(f"{prefix}{name}") for name in names}))
    table = tensors[f"{family.embed_tokens}.weight"]
    head = table.astype(np.float32) if config.tie_word_embeddings else tensors[f"{family.lm_head}.weight"]
    project, project_out = (
        linear(name, inner=False) if config.projects else None
        for name in (family.project_in, family.project_out)
    )
    positions = tensors.get(f"{family.position_table}.weight")
    entrance = Entrance(positions, project, *outer_norm(family.embed_norm))
    head_bias = tensors.get(f"{family.lm_head}.bias")
    final, final_bias = outer_norm(family.final_norm)
    return Decoder(
        config, table, blocks, final, FloatLinear(head, head_bias), final_bias, entrance, project_out
    )


def tiny_decoder(rng: np.random.Generator, **changes: Any) -> Decoder:
    config = tiny_config(**changes)
    return make_decoder(config, random_tensors(config, rng))
