"""Tiny checkpoints as other tools write them, each with a twin that holds the same floats.

    FORMATS              name -> Format: the configuration, and how a linear is stored
    write_stored         a folder of a format; returns what its linears, embedding and head stand for
    write_twin           a float32 folder with these floats
    change_tensors       write a folder's tensors again, some changed, added or (None) taken away

Integers come from `scalar_packers`, float8 from the definition of its bytes: no room of the package has a part in it,
but for the names and shapes of a family's tensors.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from helpers.scalar_packers import PACKERS, Integers, dequantized, random_integers
from helpers.tiny_checkpoint import (
    stored_values,
    tiny_llama_config,
    tiny_llama_tensors,
    to_bfloat16_bits,
    write_safetensors,
    write_tokenizer,
    write_weights,
)
from helpers.tiny_families import FAMILY_CHANGES
from numpy.typing import NDArray

from awq_ref.model import ModelConfig, model_tensor_shapes

F32 = NDArray[np.float32]
Stored = dict[str, tuple[str, NDArray[Any]]]  # name -> (dtype of the file, array)
NAMES = {"int32": "I32", "int16": "I16", "int64": "I64", "uint32": "U32", "float16": "F16", "float32": "F32"}
MODEL = {"intermediate_size": 128, "tie_word_embeddings": False}


@dataclass(frozen=True)
class Format:
    """config: quantization_config; file: where it stands, if not in config.json; options: of random_integers.

    also_tables, also_head: embedding and head are stored as the linears are. bfloat16: scales are so.
    float8: rows and columns of weights that share a scale.
    """

    layout: str
    config: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None
    key: str = "quantization_config"
    also_tables: bool = False
    also_head: bool = False
    zero_biases: bool = False
    bfloat16: bool = False
    float8: tuple[int, int] | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _awq(version: str, **more: Any) -> dict[str, Any]:
    return {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": version} | more


def _gptq(**changes: Any) -> dict[str, Any]:
    config = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "desc_act": False,
        "sym": False,
        "lm_head": False,
    }
    return config | {"checkpoint_format": "gptq"} | changes


def _compressed(layout: str, weights: Mapping[str, Any], activations: Any = None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": dict(weights), "input_activations": activations}
    return {
        "quant_method": "compressed-tensors", "format": layout, "ignore": ["lm_head"], "kv_cache_scheme": None,
        "config_groups": {"group_0": group},
    }  # fmt: skip


_PACKED = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
_FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [48, 32]}
_UP = "model.layers.1.mlp.up_proj"
FORMATS: dict[str, Format] = {
    "gemm": Format("gemm", _awq("gemm")),
    "gemv": Format("gemv", _awq("gemv")),
    "gemv_fast": Format("gemv_fast", _awq("gemv_fast")),
    "llm-awq": Format("llm-awq", _awq("gemv", backend="llm-awq")),
    "first autoawq": Format(
        "gemm", {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}, file="quant_config.json"
    ),
    "gptq": Format("gptq", _gptq(), zero_biases=True),
    "gptq symmetric": Format("gptq", _gptq(sym=True), {"symmetric": True}),
    "gptq in the order of activations": Format("gptq", _gptq(desc_act=True), {"scattered": True}),
    "gptq by rows": Format("gptq", _gptq(group_size=-1), {"group_size": 10**9}),
    "gptq 2 bits": Format("gptq", _gptq(bits=2), {"bits": 2}),
    "gptq 3 bits": Format("gptq", _gptq(bits=3), {"bits": 3}),
    "gptq 8 bits, uneven": Format("gptq", _gptq(bits=8, group_size=48), {"bits": 8, "group_size": 48}),
    "gptq with its head": Format("gptq", _gptq(lm_head=True), also_head=True),
    "gptq_v2": Format(
        "gptq_v2", _gptq(checkpoint_format="gptq_v2", bits=3, desc_act=True), {"bits": 3, "scattered": True}
    ),
    "first autogptq": Format(
        "gptq", {"bits": 4, "group_size": 32, "desc_act": False, "sym": False}, file="quantize_config.json"
    ),
    "pack-quantized": Format(
        "pack-quantized", _compressed("pack-quantized", _PACKED | {"actorder": "group"}), {"scattered": True}
    ),
    "pack-quantized bfloat16": Format(
        "pack-quantized", _compressed("pack-quantized", _PACKED | {"symmetric": True}), {"symmetric": True},
        bfloat16=True,
    ),
    "mlx": Format(
        "mlx", {"group_size": 64, "bits": 4, _UP: {"group_size": 32, "bits": 8}}, {"group_size": 64},
        key="quantization", also_tables=True, also_head=True, overrides={_UP: {"group_size": 32, "bits": 8}},
    ),
    "fp8": Format("", _FP8, float8=(48, 32)),
    "float-quantized": Format(
        "", _compressed("float-quantized", _FLOAT8, {"num_bits": 8, "type": "float", "dynamic": True}), float8=(1, 0)
    ),
}  # fmt: skip


def _e4m3(byte: int) -> float:
    exponent, mantissa = byte // 8 % 16, byte % 8
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if byte >= 128 else size


def _float8_linear(rng: np.random.Generator, shape: tuple[int, int], form: Format) -> tuple[Stored, F32]:
    """Bytes and scales, drawn freely, and the product rounded once to float32."""
    rows, columns = (size or whole for size, whole in zip(form.float8 or (0, 0), shape, strict=True))
    raw = rng.choice(np.array([b for b in range(256) if b & 0x7F != 0x7F], dtype=np.uint8), shape)
    blocks = -(-shape[0] // rows), -(-shape[1] // columns)
    scales = (rng.uniform(0.5, 2.0, blocks) / 100 / shape[1] ** 0.5).astype(np.float32)
    numbers = np.array([_e4m3(byte) for byte in range(256)])[raw]
    by_weight = scales[
        np.arange(shape[0], dtype=np.int64)[:, None] // rows,
        np.arange(shape[1], dtype=np.int64)[None] // columns,
    ]
    name = "weight_scale_inv" if form.config["quant_method"] == "fp8" else "weight_scale"
    weight = (numbers * by_weight.astype(np.float64)).astype(np.float32)
    return {"weight": ("F8_E4M3", raw), name: ("F32", scales)}, weight


def _linear(rng: np.random.Generator, name: str, shape: tuple[int, int], form: Format) -> tuple[Stored, F32]:
    """The tensors of one linear, by the ends of their names, and its weight."""
    if form.float8 is not None:
        return _float8_linear(rng, shape, form)
    options = {"group_size": 32} | dict(form.options) | dict(form.overrides.get(name, {}))
    options["group_size"] = min(options["group_size"], shape[1])
    stored: Integers = random_integers(rng, *shape, **options)
    if form.bfloat16:
        stored = replace(stored, scales=stored_values(stored.scales.astype(np.float32), "bfloat16"))
    tensors = {end: (NAMES[array.dtype.name], array) for end, array in PACKERS[form.layout](stored).items()}
    if form.bfloat16:
        tensors["weight_scale"] = ("BF16", to_bfloat16_bits(stored.scales))
    if form.zero_biases:
        tensors["bias"] = ("F16", np.zeros(shape[0], dtype=np.float16))
    return tensors, dequantized(stored, form.layout)


def _is_stored(name: str, form: Format) -> bool:
    if name == "model.embed_tokens.weight":
        return form.also_tables
    return form.also_head if name == "lm_head.weight" else name.endswith("_proj.weight")


def _config(family: str, **changes: Any) -> dict[str, Any]:
    return tiny_llama_config(**(FAMILY_CHANGES[family] | MODEL | changes))


def write_stored(
    folder: Path, form: Format, *, family: str = "llama", seed: int = 0, **changes: Any
) -> dict[str, F32]:
    """Write config.json (some keys changed), the tokenizer and model.safetensors; return the float model's tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(family, **changes)
    parsed = ModelConfig.from_json(config)
    shapes, offset = model_tensor_shapes(parsed), parsed.family.norm_offset
    tensors = tiny_llama_tensors(config, seed=seed, shapes=shapes, norm_offset=offset)
    rng, stored = np.random.default_rng(seed), {}
    for name, values in tensors.items():
        if not _is_stored(name, form):
            stored[name] = ("F16", values.astype(np.float16))
            continue
        place = name.removesuffix(".weight")
        ends, tensors[name] = _linear(rng, place, values.shape, form)
        stored |= {f"{place}.{end}": tensor for end, tensor in ends.items()}
    write_safetensors(folder / "model.safetensors", stored)
    if form.file is None:
        config[form.key] = dict(form.config)
    else:
        (folder / form.file).write_text(json.dumps(form.config), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(folder)
    return tensors


def write_twin(folder: Path, tensors: Mapping[str, F32], *, family: str = "llama", **changes: Any) -> None:
    """Write a float32 folder of the same model."""
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(family, torch_dtype="float32", **changes)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_weights(folder, tensors, dtype="float32")
    write_tokenizer(folder)


def change_tensors(folder: Path, change: Callable[[Stored], None]) -> None:
    """Read a folder's tensors, let them be changed in place, and write them again."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    words = {
        "I32": "i4",
        "I16": "i2",
        "I64": "i8",
        "U32": "u4",
        "F16": "f2",
        "F32": "f4",
        "BF16": "u2",
        "F8_E4M3": "u1",
    }
    stored: Stored = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = (start + place for place in entry["data_offsets"])
            array = np.frombuffer(data[first:last], dtype=f"<{words[entry['dtype']]}").reshape(entry["shape"])
            stored[name] = (entry["dtype"], array)
    change(stored)
    write_safetensors(path, stored)
