"""Token ids become activations become logits: the decoder, in float32.

ModelConfig, FAMILIES       what a config.json says; the known architectures
block_linear_shapes, ...    names and shapes of tensors
Block, Context, make_context, attention_forward, mlp_forward, block_forward
Decoder                     the whole model
Entrance, enter             from an embedding's rows to the first block
KVCache, new_cache, PAGE    what earlier tokens left behind
greedy, stream, generate_batch, rolled, OVERFLOWS
"""

from awq_ref.model.block import (
    Block,
    add_branch,
    arithmetic,
    attention_forward,
    block_forward,
    mlp_forward,
    mlp_input,
    normed,
)
from awq_ref.model.cache import PAGE, KVCache, new_cache
from awq_ref.model.config import ModelConfig
from awq_ref.model.context import Context, make_context
from awq_ref.model.decoder import Decoder
from awq_ref.model.entrance import Entrance, enter
from awq_ref.model.families import FAMILIES
from awq_ref.model.generate import OVERFLOWS, generate_batch, greedy, must_reread, rolled, stream
from awq_ref.model.joined import JoinedPart, parts_of
from awq_ref.model.rope import ROPE_TYPES, RopeConfig
from awq_ref.model.shapes import (
    block_linear_shapes,
    block_norm_shapes,
    block_prefix,
    block_router_shapes,
    block_stored_shapes,
    block_tensor_shapes,
    linears_of_one_input,
    model_linear_shapes,
    model_tensor_shapes,
    norm_tensor,
    outer_tensor_shapes,
    part_rows,
    stored_order,
    stored_place,
)
from awq_ref.model.speculation import Lookup, Speculation, fitting, picked

__all__ = [
    "FAMILIES",
    "OVERFLOWS",
    "PAGE",
    "ROPE_TYPES",
    "Block",
    "Context",
    "Decoder",
    "Entrance",
    "JoinedPart",
    "KVCache",
    "Lookup",
    "ModelConfig",
    "RopeConfig",
    "Speculation",
    "add_branch",
    "arithmetic",
    "attention_forward",
    "block_forward",
    "block_linear_shapes",
    "block_norm_shapes",
    "block_prefix",
    "block_router_shapes",
    "block_stored_shapes",
    "block_tensor_shapes",
    "enter",
    "fitting",
    "generate_batch",
    "greedy",
    "linears_of_one_input",
    "make_context",
    "mlp_forward",
    "mlp_input",
    "model_linear_shapes",
    "model_tensor_shapes",
    "must_reread",
    "new_cache",
    "norm_tensor",
    "normed",
    "outer_tensor_shapes",
    "part_rows",
    "parts_of",
    "picked",
    "rolled",
    "stored_order",
    "stored_place",
    "stream",
]
