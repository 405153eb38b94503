"""What llama.cpp calls a model: its architecture, its tensors, its metadata.

    GgufFamily      one architecture of llama.cpp's
    GGUF_FAMILIES   model_type -> GgufFamily
    gguf_family     the row for a configuration, or an error that says what llama.cpp's graph lacks
    gguf_metadata   sizes and rope
    rope_factors    what frequencies are divided by, where a rescaling is not a name

To add a family: a row; its graph in llama.cpp must compute what ours does.
Sources: ggml, docs/gguf.md; llama.cpp, src/llama-arch.cpp and src/models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from awq_ref import __version__
from awq_ref.dtypes import F32
from awq_ref.errors import UnsupportedError
from awq_ref.model import ModelConfig
from awq_ref.model.rope import rope_frequencies
from awq_ref.text.ggml import Metadata

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMED_HEADS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


@dataclass(frozen=True)
class GgufFamily:
    """An architecture of llama.cpp's.

    architecture     : its name there
    names            : name below the layer -> name below blk.N
    pairs_neighbours : its rope turns channels 2i and 2i + 1; rows of q and k are put into that order
    rope_types       : the kinds of rope that its graph knows
    biases           : it adds the biases that attention_bias and mlp_bias announce
    """

    architecture: str
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    pairs_neighbours: bool = False
    rope_types: tuple[str, ...] = ("default", "linear")
    biases: bool = False


LLAMA = GgufFamily("llama", pairs_neighbours=True, rope_types=("default", "linear", "llama3"), biases=True)
GGUF_FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": GgufFamily("qwen2"),
    "qwen3": GgufFamily("qwen3", names=NAMES | NORMED_HEADS),
}


def gguf_family(config: ModelConfig) -> GgufFamily:
    """Return the row of GGUF_FAMILIES for a model.

    Raises
    ------
    UnsupportedError
        If there is none, or its graph lacks what the model needs.
    """
    row = GGUF_FAMILIES.get(config.model_type)
    if row is None:
        raise UnsupportedError(
            f"gguf: model_type must be one of {', '.join(GGUF_FAMILIES)}; got {config.model_type}. Convert this "
            "model with llama.cpp's own convert_hf_to_gguf.py."
        )
    needs = {
        f"rope_type one of {', '.join(row.rope_types)}": config.rope.rope_type in row.rope_types,
        "hidden_act silu": config.hidden_act == "silu",
        "rope on all channels of every layer": config.rope.channels(config.head_dim) == config.head_dim
        and all(config.rope_layers or (True,)),
        "no attention_bias": row.biases or not config.attention_bias,
    }
    lacking = [what for what, is_met in needs.items() if not is_met]
    if lacking:
        raise UnsupportedError(
            f"gguf: llama.cpp's {row.architecture} must have {' and '.join(lacking)}, which this model does not. There "
            "is no exact GGUF file of it."
        )
    return row


def _context(config: ModelConfig) -> int:
    """Return the longest text for which the graph, which sees all of it, is the model: a window ends it."""
    return min([config.context, *(window for window in config.windows if window)])


def rope_factors(config: ModelConfig) -> F32 | None:
    """Return what each pair's frequency is divided by, (head_dim / 2,) float32; None if a name says it all."""
    if config.rope.rope_type != "llama3":
        return None
    plain = rope_frequencies(replace(config.rope, rope_type="default"), config.head_dim)
    return (plain / rope_frequencies(config.rope, config.head_dim)).astype(np.float32)


def gguf_metadata(config: ModelConfig, name: str) -> Metadata:
    """Return the keys that describe the model itself."""
    arch = GGUF_FAMILIES[config.model_type].architecture
    metadata: Metadata = {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": name,
        "general.quantized_by": f"awq_ref {__version__}",
        "general.quantization_version": 2,
        f"{arch}.vocab_size": config.vocab_size,
        f"{arch}.context_length": _context(config),
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.dimension_count": config.head_dim,
        f"{arch}.rope.freq_base": config.rope.rope_theta,
    }
    if config.rope.rope_type == "linear":
        metadata[f"{arch}.rope.scaling.type"] = "linear"
        metadata[f"{arch}.rope.scaling.factor"] = config.rope.factor
    return metadata
