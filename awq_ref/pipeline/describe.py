"""What a checkpoint folder holds, said from its headers alone.

folder_bytes     size of a folder's files
describe_model   the text of `awq-ref inspect`
"""

import math
from pathlib import Path
from typing import Any

from awq_ref.checkpoint import RECORD, Float8Config, Quantization, QuantizationConfig
from awq_ref.errors import ShapeError
from awq_ref.model import PAGE, ModelConfig, model_linear_shapes, model_tensor_shapes, outer_tensor_shapes
from awq_ref.pack import LAYOUTS
from awq_ref.pipeline.reading import open_model
from awq_ref.pipeline.stored import open_quantization
from awq_ref.pipeline.tables import HEADS, Head, table_bytes
from awq_ref.report.memory import bits_per_weight, kv_cache_bytes, weight_bytes
from awq_ref.report.tables import format_bytes, format_table
from awq_ref.spec import QuantSpec

OFFSET_BITS = 16  # of what layouts store in place of a zero point


def folder_bytes(folder: str | Path, pattern: str = "*") -> int:
    """Return the summed size of a folder's files that match a pattern."""
    return sum(path.stat().st_size for path in Path(folder).glob(pattern) if path.is_file())


def mean_bits_per_weight(config: ModelConfig, spec: QuantSpec, layout: str) -> float:
    """Return the bits per weight of all linears of the blocks, scales and zero points (or offsets) counted."""
    zeros = OFFSET_BITS if _has_offsets(layout) else None
    sizes = model_linear_shapes(config).values()
    bits = sum(out * into * bits_per_weight(spec, into, zero_point_bits=zeros) for out, into in sizes)
    return bits / sum(out * into for out, into in sizes)


def _has_offsets(layout: str) -> bool:
    return "offset" in LAYOUTS[layout].holds


def _positions(config: ModelConfig) -> str:
    if config.family.position_table:
        return "learned positions"
    return "alibi" if config.alibi else f"rope {config.rope.rope_type}"


def _windows(config: ModelConfig) -> str:
    sliding = [window for window in config.windows if window]
    return f", window {sliding[0]} in {len(sliding)} of {len(config.windows)} layers" if sliding else ""


def _experts(config: ModelConfig) -> list[list[str]]:
    layers = [layer for layer in range(config.num_hidden_layers) if config.n_experts(layer)]
    if not layers:
        return []
    said = (
        f"{config.num_experts} of width {config.moe_intermediate_size} in {len(layers)} of "
        f"{config.num_hidden_layers} layers, {config.num_experts_per_tok} for each token"
    )
    return [["experts", said]]


def _architecture(config: ModelConfig) -> list[list[str]]:
    heads = (
        f"{config.num_attention_heads} query, {config.num_key_value_heads} key-value, of {config.head_dim}"
    )
    return [
        ["architecture", config.family.architecture],
        ["parameters", f"{sum(math.prod(s) for s in model_tensor_shapes(config).values()):,}"],
        ["layers", str(config.num_hidden_layers)],
        ["hidden, intermediate", f"{config.hidden_size}, {config.intermediate_size}"],
        *_experts(config),
        ["heads", heads],
        [
            "vocabulary",
            f"{config.vocab_size}{', head tied to embedding' if config.tie_word_embeddings else ''}",
        ],
        [
            "context",
            f"{config.context} tokens, {_positions(config)}{_windows(config)}",
        ],
    ]


def _mean_bits(config: ModelConfig, spec: QuantSpec, layout: str) -> str:
    try:
        mean = mean_bits_per_weight(config, spec, layout)
    except ShapeError as error:  # the last group of a row is smaller
        return f"unknown: {error}"
    return f"{mean:.3f}, scales and {'offsets' if _has_offsets(layout) else 'zero points'} counted"


def _storage(config: ModelConfig, quantization: Quantization | None, folder: Path) -> list[list[str]]:
    size = ["files", format_bytes(folder_bytes(folder, "*.safetensors"))]
    if quantization is None:
        return [["weights", f"float, {config.dtype}"], size]
    if isinstance(quantization, Float8Config):
        rows, columns = (size or "all" for size in quantization.block)
        return [["weights", f"float8 (e4m3), a scale per {rows} x {columns} weights"], size]
    spec = quantization.spec
    group = "one group per row" if spec.group_size == -1 else f"group {spec.group_size}"
    kind = "symmetric" if spec.symmetric else "asymmetric"
    others = len(quantization.overrides)
    differing = f", {others} modules otherwise" if others else ""
    return [
        ["weights", f"INT{spec.bits}, {group}, {kind}, layout {quantization.layout}{differing}"],
        ["bits per weight", _mean_bits(config, spec, quantization.layout)],
        size,
    ]


def _record(record: dict[str, Any]) -> list[list[str]]:
    """Return who made a quantized model, from what it says itself."""
    if not record:
        return [["made by", "another tool: no awq_ref record in config.json"]]
    seen = record.get("calibration") or {}
    rows = [["made by", f"awq_ref {record.get('version')}, recipe {record.get('recipe')}"]]
    if seen:
        text = f"{seen['windows']} windows of {seen['seq_len']} tokens, {seen['source']}"
        rows += [["calibrated on", text], ["calibration sha256", seen["sha256"]]]
    return rows


def _outer_bytes(config: ModelConfig, dtype: str) -> dict[Head, int]:
    """Return the bytes of what stands outside the blocks, embedding and head by how the head is held."""
    tables = {f"{name}.weight" for name in (config.family.embed_tokens, config.family.lm_head)}
    shapes = outer_tensor_shapes(config).items()
    others = 4 * sum(math.prod(shape) for name, shape in shapes if name not in tables)
    return {head: others + table_bytes(config, dtype, head) for head in HEADS}


def _memory(config: ModelConfig, spec: QuantSpec, offset: bool, dtype: str) -> list[list[str]]:
    """Return the bytes in memory by residency and head; dtype: of the embedding in the file."""
    shapes = [*model_linear_shapes(config).values()]
    cache = kv_cache_bytes(
        n_layers=config.num_hidden_layers,
        n_kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        capacity=config.context,
        windows=config.windows,
        page=PAGE,
    )
    return [
        [residency, head, *map(format_bytes, (linears, outer, cache, linears + outer + cache))]
        for residency, linears in weight_bytes(shapes, spec=spec, offset=offset).items()
        for head, outer in _outer_bytes(config, dtype).items()
    ]


def describe_model(path: str | Path, *, tensors: bool = False) -> str:
    """Return what `awq-ref inspect` prints: architecture, storage, who made it, memory by residency.

    Parameters
    ----------
    path : str or Path
        Float or quantized checkpoint folder, or a name on the hub.
    tensors : bool
        List every tensor with its dtype and shape as well.

    Raises
    ------
    FormatError, MissingTensorError, UnsupportedError
        If the folder is not a checkpoint of a known architecture.
    HubError
        If it is a name on the hub and cannot be had from there.
    """
    checkpoint, config = open_model(path)
    quantization = open_quantization(checkpoint)
    rows = _architecture(config) + _storage(config, quantization, checkpoint.folder)
    if quantization is not None:
        rows += _record(checkpoint.config.get(RECORD) or {})
    parts = [format_table(["what", "value"], rows, left=2)]
    spec, offset = QuantSpec(), False
    if isinstance(quantization, QuantizationConfig):
        spec = quantization.spec
        offset = _has_offsets(quantization.layout)
    table = f"{config.family.embed_tokens}.weight"
    dtype = checkpoint.info(table).dtype if table in checkpoint else ""
    try:
        headers = ["in memory as", "head", "linears", "embedding, head", "KV cache, full context", "sum"]
        title = (
            ""
            if isinstance(quantization, QuantizationConfig)
            else "Quantized to INT4 with groups of 128 it would take (dense: as it is now):\n\n"
        )
        parts.append(title + format_table(headers, _memory(config, spec, offset, dtype), left=2))
    except ShapeError as error:
        parts.append(f"No memory table: {error}")
    if tensors:
        infos = [(name, checkpoint.info(name)) for name in checkpoint.names]
        parts.append(
            format_table(["tensor", "dtype", "shape"], [[n, i.dtype, str(i.shape)] for n, i in infos])
        )
    return "\n\n".join(parts)
