"""Checkpoints: named arrays and a configuration, in and out of a folder.

    in     Checkpoint, TensorFile, read_json, read_quantization_config, QuantizationConfig, Float8Config,
           float8_e4m3_to_float32, spread_scales, demo_model_path, verify_folder, resolve_model, model_name
    out    require_new, new_folder, resumable_folder, Journal, ShardWriter, stored_form, write_json, write_text,
           copy_side_files, output_config, write_quantization_config, model_card, source_license, GgufTensor,
           write_gguf

Arrays are stored as they come: packing integers into words is `awq_ref.pack`'s.
"""

from awq_ref.checkpoint.assets import demo_model_path, verify_folder
from awq_ref.checkpoint.disk import write_json, write_text
from awq_ref.checkpoint.float8 import float8_e4m3_to_float32, spread_scales
from awq_ref.checkpoint.format_keys import Float8Config, Quantization, QuantizationConfig
from awq_ref.checkpoint.gguf_file import GgufTensor, write_gguf
from awq_ref.checkpoint.header import TensorInfo
from awq_ref.checkpoint.hub import model_name, resolve_model
from awq_ref.checkpoint.journal import Journal, resumable_folder
from awq_ref.checkpoint.model_card import model_card, source_license
from awq_ref.checkpoint.quantization_config import (
    CONFIG_FORMATS,
    RECORD,
    output_config,
    read_quantization_config,
    write_quantization_config,
)
from awq_ref.checkpoint.reader import Checkpoint, read_json
from awq_ref.checkpoint.shards import MAX_SHARD_BYTES, ShardWriter
from awq_ref.checkpoint.storage import bfloat16_to_float32, float32_to_bfloat16, stored_form
from awq_ref.checkpoint.tensors import TensorFile
from awq_ref.checkpoint.writer import copy_side_files, new_folder, require_new

__all__ = [
    "CONFIG_FORMATS",
    "MAX_SHARD_BYTES",
    "RECORD",
    "Checkpoint",
    "Float8Config",
    "GgufTensor",
    "Journal",
    "Quantization",
    "QuantizationConfig",
    "ShardWriter",
    "TensorFile",
    "TensorInfo",
    "bfloat16_to_float32",
    "copy_side_files",
    "demo_model_path",
    "float8_e4m3_to_float32",
    "float32_to_bfloat16",
    "model_card",
    "model_name",
    "new_folder",
    "output_config",
    "read_quantization_config",
    "read_json",
    "require_new",
    "resolve_model",
    "resumable_folder",
    "source_license",
    "spread_scales",
    "stored_form",
    "verify_folder",
    "write_quantization_config",
    "write_gguf",
    "write_json",
    "write_text",
]
