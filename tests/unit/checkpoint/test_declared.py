"""Where a folder says how its weights are stored: config.json, by any of its names, or a file of first versions."""

import json

import pytest
from helpers.tiny_checkpoint import write_tiny_llama

from awq_ref.checkpoint import Checkpoint
from awq_ref.errors import FormatError


@pytest.fixture
def single(tmp_path):
    write_tiny_llama(tmp_path / "single", num_hidden_layers=1)
    return tmp_path / "single"


def test_the_file_of_the_first_autoawq_versions(single):
    old = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
    (single / "quant_config.json").write_text(json.dumps(old))
    assert Checkpoint.open(single).quantization_config == {"quant_method": "awq"} | old


def test_the_file_of_autogptq(single):
    old = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}
    (single / "quantize_config.json").write_text(json.dumps(old))
    assert Checkpoint.open(single).quantization_config == {"quant_method": "gptq"} | old
    (single / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    assert Checkpoint.open(single).quantization_config == {"quant_method": "awq"}


def test_the_files_of_two_tools(single):
    for name in ("quant_config.json", "quantize_config.json"):
        (single / name).write_text("{}")
    with pytest.raises(
        FormatError, match="must have one of quant_config.json and quantize_config.json; got both"
    ):
        _ = Checkpoint.open(single).quantization_config


@pytest.mark.parametrize("twice", [{}, {"quantization_config": {"group_size": 64, "bits": 4}}])
def test_what_mlx_writes(single, twice):
    said = {"quantization": {"group_size": 64, "bits": 4}} | twice
    (single / "config.json").write_text(json.dumps(said))
    expected = {"quant_method": "mlx", "group_size": 64, "bits": 4}
    assert Checkpoint.open(single).quantization_config == expected


def test_mlx_that_contradicts_itself(single):
    said = {
        "quantization": {"group_size": 64, "bits": 4},
        "quantization_config": {"group_size": 32, "bits": 4},
    }
    (single / "config.json").write_text(json.dumps(said))
    with pytest.raises(
        FormatError, match="quantization and quantization_config in config.json must say the same"
    ):
        _ = Checkpoint.open(single).quantization_config


def test_the_older_name_of_compressed_tensors(single):
    (single / "config.json").write_text(
        json.dumps({"compression_config": {"quant_method": "compressed-tensors"}})
    )
    assert Checkpoint.open(single).quantization_config == {"quant_method": "compressed-tensors"}


def test_a_quantization_config_that_is_no_object(single):
    (single / "config.json").write_text(json.dumps({"quantization_config": "awq"}))
    with pytest.raises(FormatError, match="quantization_config in config.json must be an object; got str"):
        _ = Checkpoint.open(single).quantization_config
