"""Checkpoints that are not what they should be, through the command line: exit code 2, one message, nothing written.

The words that each message must hold are those by which one knows what to mend.
"""

import json

import numpy as np
import pytest
from helpers.command_line import (
    NAMES,
    assert_nothing_written,
    assert_refused,
    every_command,
    quantize_arguments,
    run,
)
from helpers.tiny_checkpoint import (
    edit_json,
    tiny_llama_config,
    tiny_llama_tensors,
    write_safetensors,
    write_tiny_llama,
    write_weights,
)

LAYER = "model.layers.1.mlp.down_proj.weight"
SINGLE = "model.safetensors"


def test_the_same_commands_work_on_the_unspoilt_model(capsys, model, tmp_path, text):
    for arguments in every_command(model, tmp_path / "out", text).values():
        code, message = run(capsys, *arguments)
        assert code == 0, message


@pytest.mark.parametrize("name", NAMES)
def test_no_such_folder(capsys, tmp_path, text, name):
    out = tmp_path / "out"
    assert_refused(run(capsys, *every_command(tmp_path / "absent", out, text)[name]), "absent")
    assert_nothing_written(out)


@pytest.mark.parametrize("name", NAMES)
def test_folder_without_config(capsys, model, tmp_path, text, name):
    (model / "config.json").unlink()
    assert_refused(
        run(capsys, *every_command(model, tmp_path / "out", text)[name]), "config.json", str(model)
    )
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("name", NAMES)
def test_unknown_architecture_says_which_are_known(capsys, model, tmp_path, text, name):
    edit_json(model / "config.json", architectures=["MambaForCausalLM"], model_type="mamba")
    result = run(capsys, *every_command(model, tmp_path / "out", text)[name])
    assert_refused(result, "Mamba", "LlamaForCausalLM")
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("name", NAMES)
def test_config_that_is_no_json(capsys, model, tmp_path, text, name):
    (model / "config.json").write_text("{", encoding="utf-8")
    assert_refused(run(capsys, *every_command(model, tmp_path / "out", text)[name]), "config.json", "JSON")


def spoil_weights(model, **changes):
    """Write the weights again, some of them changed, or left out where None is given."""
    tensors = tiny_llama_tensors(tiny_llama_config())
    tensors |= {name.replace("__", "."): value for name, value in changes.items()}
    write_weights(model, {n: t for n, t in tensors.items() if t is not None}, dtype="float16")


@pytest.mark.parametrize("name", ["quantize", "generate", "perplexity"])
def test_missing_tensor_is_named_with_the_near_ones(capsys, model, tmp_path, text, name):
    near = LAYER.replace("down_proj", "down_projection")
    spoil_weights(model, **{LAYER: None, near: np.zeros((64, 96), dtype=np.float32)})
    assert_refused(run(capsys, *every_command(model, tmp_path / "out", text)[name]), LAYER, near)
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("name", ["quantize", "generate", "perplexity"])
def test_missing_shard_is_named(capsys, tmp_path, text, name):
    model = tmp_path / "sharded"
    write_tiny_llama(model, shards=2)
    (model / "model-00002-of-00002.safetensors").unlink()
    result = run(capsys, *every_command(model, tmp_path / "out", text)[name])
    assert_refused(result, "model-00002-of-00002.safetensors")
    assert_nothing_written(tmp_path / "out")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def garble_header(path):
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"\xff" * 16 + data[24:])


def huge_header(path):
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def shift_offsets(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header[LAYER]["data_offsets"] = [n + 2 for n in header[LAYER]["data_offsets"]]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, garble_header, huge_header, shift_offsets, empty])
@pytest.mark.parametrize("name", ["quantize", "generate"])
def test_corrupted_weights_name_the_file(capsys, model, tmp_path, text, damage, name):
    damage(model / SINGLE)
    assert_refused(run(capsys, *every_command(model, tmp_path / "out", text)[name]), SINGLE)
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("name", ["quantize", "generate"])
def test_wrong_shape_is_named(capsys, model, tmp_path, text, name):
    spoil_weights(model, **{LAYER: np.zeros((64, 95), dtype=np.float32)})
    assert_refused(run(capsys, *every_command(model, tmp_path / "out", text)[name]), LAYER, "95", "96")
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("name", ["quantize", "generate"])
def test_wrong_dtype_is_named(capsys, model, tmp_path, text, name):
    tensors = {n: ("F16", t.astype(np.float16)) for n, t in tiny_llama_tensors(tiny_llama_config()).items()}
    tensors[LAYER] = ("I32", np.zeros((64, 96), dtype=np.int32))
    write_safetensors(model / SINGLE, tensors)
    assert_refused(run(capsys, *every_command(model, tmp_path / "out", text)[name]), LAYER, "I32")
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["quantize", "generate"])
def test_weight_that_is_not_finite_is_located(capsys, model, tmp_path, text, value, name):
    weight = tiny_llama_tensors(tiny_llama_config())[LAYER]
    weight[3, 5] = value
    spoil_weights(model, **{LAYER: weight})
    result = run(capsys, *every_command(model, tmp_path / "out", text)[name])
    assert_refused(result, LAYER, "(3, 5)", str(value))
    assert_nothing_written(tmp_path / "out")


def test_activation_that_is_not_finite_names_layer_and_site(capsys, model, tmp_path, text):
    # Weights of 3e38 are finite; a product of two of them is not.
    config = tiny_llama_config(torch_dtype="float32")
    tensors = tiny_llama_tensors(config)
    tensors["model.layers.1.mlp.up_proj.weight"][:] = 3e38
    write_weights(model, tensors, dtype="float32")
    edit_json(model / "config.json", torch_dtype="float32")
    result = run(capsys, *quantize_arguments(model, tmp_path / "out", text))
    assert_refused(result, "model.layers.1", "finite")
    assert_nothing_written(tmp_path / "out")
