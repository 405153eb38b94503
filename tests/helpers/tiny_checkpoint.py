"""A tiny random model as a folder on disk, in the form that Hugging Face's tools write.

    write_tiny_llama     config.json, tokenizer.json, model.safetensors (or shards); returns the weights
    write_tiny_family    the same for any family
    tiny_llama_tensors   the weights alone: name -> float32, exactly representable in the storage dtype
    write_safetensors    a file from (dtype, array) pairs, bfloat16 among them
    write_tokenizer      a byte-level tokenizer: one token per byte, one for the end of a text
    edit_json            change some keys of a JSON file

The safetensors file is put together here, from the format's description: length, JSON header, bytes. No room of the
package has a part in it, but for the names and shapes of a family's tensors (which tests/parity shows to be right).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from helpers.tiny_families import FAMILY_CHANGES
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from awq_ref.model import ModelConfig, model_tensor_shapes

F32 = NDArray[np.float32]
VOCAB_SIZE = 264  # 256 bytes, the end of a text, and a few rows that no text reaches
END_OF_TEXT = 256
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def tiny_llama_config(**changes: Any) -> dict[str, Any]:
    """Return a config.json: 2 layers, hidden 64, 4 query heads on 2 kv heads, tied head, float16."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": END_OF_TEXT,
        "torch_dtype": "float16",
    }
    return config | changes


def tiny_llama_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor of such a model."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q_size = config["num_attention_heads"] * config["head_dim"]
    kv_size = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (q_size, hidden),
            f"{prefix}.self_attn.k_proj.weight": (kv_size, hidden),
            f"{prefix}.self_attn.v_proj.weight": (kv_size, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, q_size),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}.mlp.up_proj.weight": (inner, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, inner),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def to_bfloat16_bits(values: F32) -> NDArray[np.uint16]:
    """Return the upper halves of the float32 bits, rounded to nearest, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + half) >> np.uint32(16)).astype(np.uint16)


def stored_values(values: F32, dtype: str) -> F32:
    """Return the values after a trip to the storage dtype and back."""
    if dtype == "bfloat16":
        return (to_bfloat16_bits(values).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(dtype).astype(np.float32)


def tiny_llama_tensors(
    config: Mapping[str, Any],
    *,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    norm_offset: float = 0.0,
) -> dict[str, F32]:
    """Draw the weights; matrices such that activations stay of order 1, norms near 1."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in (shapes or tiny_llama_shapes(config)).items():
        if name.endswith("bias"):
            values = rng.normal(0.0, 0.3, shape)
        elif len(shape) == 1:
            values = rng.uniform(0.5, 1.5, shape) - norm_offset
        else:
            values = rng.normal(0.0, 1.0 / shape[-1] ** 0.5, shape)
        tensors[name] = stored_values(values.astype(np.float32), config["torch_dtype"])
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]]) -> None:
    """Write name -> (dtype of the format, array); a BF16 array holds uint16 bits."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _stored(values: F32, dtype: str) -> tuple[str, NDArray[Any]]:
    array = to_bfloat16_bits(values) if dtype == "bfloat16" else values.astype(dtype)
    return DTYPES[dtype], array


def write_weights(folder: Path, tensors: Mapping[str, F32], *, dtype: str, shards: int = 1) -> None:
    """Write model.safetensors, or so many shards and their index."""
    names = list(tensors)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", {n: _stored(tensors[n], dtype) for n in names})
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard::shards]
        write_safetensors(folder / file, {n: _stored(tensors[n], dtype) for n in part})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.size * (4 if dtype == "float32" else 2) for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json of a byte-level tokenizer without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_tiny_llama(folder: Path, *, seed: int = 0, shards: int = 1, **changes: Any) -> dict[str, F32]:
    """Write a whole checkpoint folder.

    Parameters
    ----------
    folder : Path
        Created if it is not there.
    seed : int
    shards : int
        1: model.safetensors; more: shards and an index.
    **changes
        Entries of config.json, e.g. torch_dtype="bfloat16", tie_word_embeddings=False, num_hidden_layers=1.

    Returns
    -------
    tensors : name -> float32 array
        What a reader must find, bit for bit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_llama_config(**changes)
    tensors = tiny_llama_tensors(config, seed=seed)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    write_weights(folder, tensors, dtype=config["torch_dtype"], shards=shards)
    write_tokenizer(folder)
    return tensors


def write_tiny_family(folder: Path, family: str, *, seed: int = 0, **changes: Any) -> dict[str, F32]:
    """Write a checkpoint folder of a family with what sets it apart switched on; as `write_tiny_llama`.

    In every eighth channel the norms before the modules are loud, so that there is something to scale.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_llama_config(**(FAMILY_CHANGES[family] | changes))
    parsed = ModelConfig.from_json(config)
    offset = parsed.family.norm_offset
    tensors = tiny_llama_tensors(config, seed=seed, shapes=model_tensor_shapes(parsed), norm_offset=offset)
    before = tuple(
        f".{name}.weight" for name, norm in parsed.family.norms.items() if norm.place.startswith("before")
    )
    for name, values in tensors.items():
        if name.endswith(before):
            loud = values + np.float32(offset)
            loud[::8] *= 8.0
            tensors[name] = stored_values(loud - np.float32(offset), config["torch_dtype"])
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    write_weights(folder, tensors, dtype=config["torch_dtype"])
    write_tokenizer(folder)
    return tensors


def edit_json(path: Path, **changes: Any) -> None:
    """Change some keys of a JSON file; a value of None removes the key."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")
