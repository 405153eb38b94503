"""What older architectures have, for `scalar_oracles_model`: their tensors under the names of Llama's, and ALiBi.

under_llamas_names  name -> array, of a checkpoint of any architecture, fused linears apart
loaded              the same as numbers, and of younger ones too
slopes, alibi       [LLM-11]: of the heads, as the authors of ALiBi write them; what is added to scores
to_bfloat16         the nearest number of eight digits
gelu, relu, clipped activations, and MPT's clip

Written from the models' own code; nothing of `awq_ref` but the record that holds the sizes.
"""

import math
from typing import Any

import numpy as np
from helpers.bounded import Bounded, U, exact, rounded

from awq_ref.model import ModelConfig

# What the names begin with or hold -> what Llama, or StarCoder2 in its MLP, says instead.
NAMES: dict[str, dict[str, str]] = {
    "gpt_neox": {
        "gpt_neox.embed_in": "model.embed_tokens",
        "gpt_neox.final_layer_norm": "model.norm",
        "gpt_neox.layers": "model.layers",
        "attention.query_key_value": "self_attn.qkv",
        "attention.dense": "self_attn.o_proj",
        "dense_h_to_4h": "c_fc",
        "dense_4h_to_h": "c_proj",
        "embed_out": "lm_head",
    },
    "phi": {
        "model.final_layernorm": "model.norm",
        "self_attn.dense": "self_attn.o_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    },
    "opt": {
        "model.decoder.embed_positions": "positions",
        "model.decoder.project": "project",
        "model.decoder.final_layer_norm": "model.norm",
        "model.decoder": "model",
        "out_proj": "o_proj",
        "self_attn_layer_norm": "input_layernorm",
        "final_layer_norm": "post_attention_layernorm",
        "fc1": "mlp.c_fc",
        "fc2": "mlp.c_proj",
    },
    "gpt2": {
        "transformer.wte": "model.embed_tokens",
        "transformer.wpe": "positions",
        "transformer.ln_f": "model.norm",
        "transformer.h.": "model.layers.",
        "attn.c_attn": "self_attn.qkv",
        "attn.c_proj": "self_attn.o_proj",
        "ln_1": "input_layernorm",
        "ln_2": "post_attention_layernorm",
    },
    "falcon": {
        "transformer.word_embeddings_layernorm": "embed_norm",
        "transformer.word_embeddings": "model.embed_tokens",
        "transformer.ln_f": "model.norm",
        "transformer.h.": "model.layers.",
        "self_attention.query_key_value": "self_attn.qkv",
        "self_attention.dense": "self_attn.o_proj",
        "dense_h_to_4h": "c_fc",
        "dense_4h_to_h": "c_proj",
        "ln_attn": "input_layernorm",
        "ln_mlp": "post_attention_layernorm",
    },
    "mpt": {
        "transformer.wte": "model.embed_tokens",
        "transformer.norm_f": "model.norm",
        "transformer.blocks": "model.layers",
        "attn.Wqkv": "self_attn.qkv",
        "attn.out_proj": "self_attn.o_proj",
        "ffn.up_proj": "mlp.c_fc",
        "ffn.down_proj": "mlp.c_proj",
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
    },
}
NAMES |= {"gpt_neox_sequential": NAMES["gpt_neox"], "opt_post_norm": NAMES["opt"], "bloom": NAMES["falcon"]}
NAMES |= {
    "falcon_two_norms": NAMES["falcon"],
    "falcon_sequential": NAMES["falcon"],
    "mpt_clipped": NAMES["mpt"],
}
ONE_PLUS = ("gemma", "gemma2", "gemma3_text")  # norms are stored as their distance from 1
ONE_BELOW_THE_OTHER = ("gpt2", "mpt", "mpt_clipped")  # the others' q, k, v go by key-value head
INPUTS_FIRST = ("gpt2",)  # weights are (in_features, out_features)


def renamed(name: str, names: dict[str, str]) -> str:
    """One name; a part of the stream's own name that has been replaced is not looked at again."""
    done = ""
    for old, new in names.items():
        if old in name:
            before, _, name = name.partition(old)
            done += before + new
    return done + name


def three(rows: Any, config: ModelConfig, *, by_head: bool) -> dict[str, Any]:
    """The rows of a fused qkv, or of its bias, taken apart."""
    D, heads, keys = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    if not by_head:
        q, k = heads * D, (heads + keys) * D
        return {"q": rows[:q], "k": rows[q:k], "v": rows[k:]}
    found: dict[str, list[Any]] = {"q": [], "k": [], "v": []}
    share = heads // keys
    for row, values in enumerate(rows):
        slot = row // D % (share + 2)  # the group's query heads, its key, its value
        found["q" if slot < share else "k" if slot == share else "v"].append(values)
    return {part: np.array(values) for part, values in found.items()}


def under_llamas_names(config: ModelConfig, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint; those of younger architectures as they are."""
    kind = config.model_type
    if kind not in NAMES:
        return arrays
    found = {}
    for old, array in arrays.items():
        name = renamed(old, NAMES[kind])
        if kind in INPUTS_FIRST and "layers" in name and array.ndim == 2:
            array = array.T
        if "self_attn.qkv" not in name:
            found[name] = array
            continue
        for part, rows in three(array, config, by_head=kind not in ONE_BELOW_THE_OTHER).items():
            found[name.replace("qkv", f"{part}_proj")] = rows
    return found


def loaded(config: ModelConfig, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint as numbers, norms as what they multiply by, fused linears apart."""
    tensors: dict[str, Any] = {}
    for name, array in under_llamas_names(config, arrays).items():
        values = exact(array)
        if config.model_type in ONE_PLUS and "norm" in name:
            values = [Bounded(1.0) + w for w in values]
        tensors[name] = values
        if "qkv_proj" in name:
            kv = config.num_key_value_heads * config.head_dim
            parts = {"q": values[: -2 * kv], "k": values[-2 * kv : -kv], "v": values[-kv:]}
            tensors |= {name.replace("qkv_proj", f"{n}_proj"): part for n, part in parts.items()}
        if "gate_up_proj" in name:
            half = config.intermediate_size
            tensors |= {
                name.replace("gate_up", "gate"): values[:half],
                name.replace("gate_up", "up"): values[half:],
            }
    return tensors


def slopes(heads: int) -> list[float]:
    """A power of two of heads: a geometric series; else that of the power below, and every other one of the next."""
    power = math.log2(heads)
    if power == int(power):
        start = 2 ** -(2 ** -(power - 3))
        return [start ** (i + 1) for i in range(heads)]
    below = 2 ** int(power)
    return slopes(below) + slopes(2 * below)[::2][: heads - below]


def to_bfloat16(x: float) -> float:
    fraction, exponent = math.frexp(x)
    return math.ldexp(round(fraction * 256) / 256, exponent)


def alibi(config: ModelConfig, head: int, query: int) -> list[Bounded] | None:
    """[LLM-11] for the columns up to the query's own; Falcon rounds, and scales what it adds."""
    if config.alibi is None:
        return None
    slope = slopes(config.num_attention_heads)[head]
    if not config.model_type.startswith("falcon"):
        return [rounded(slope * (c - query)) for c in range(query + 1)]
    falls = [to_bfloat16(to_bfloat16(slope) * c) / math.sqrt(config.head_dim) for c in range(query + 1)]
    return [rounded(fall - falls[-1]) for fall in falls]


def clipped(x: list[Bounded], limit: float) -> list[Bounded]:
    return [Bounded(min(max(a.value, -limit), limit), a.error) for a in x]


def gelu(x: Bounded) -> Bounded:
    """[LLM-10]; its slope is below 1.13. Five roundings of the polynomial's terms, and one each of the others."""
    value = x.value * 0.5 * math.erfc(-x.value / math.sqrt(2))
    return Bounded(value, 1.13 * x.error + 16 * U * min(1.0, abs(x.value)) + U * abs(value))


def relu(x: Bounded) -> Bounded:
    return Bounded(max(x.value, 0.0), x.error)
