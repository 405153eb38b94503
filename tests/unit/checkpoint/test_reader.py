"""Checkpoint folders: single and sharded, and everything that may be wrong with one."""

import json
import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from safetensors.numpy import save_file

from awq_ref.checkpoint import Checkpoint, read_json
from awq_ref.errors import DtypeError, FormatError, MissingTensorError, RangeError, ShapeError

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
CONFIG = {"model_type": "llama"}


@pytest.fixture
def tensors(rng):
    return {
        "model.embed_tokens.weight": rng.standard_normal((5, 4)).astype(np.float32),
        "model.layers.0.self_attn.q_proj.weight": rng.standard_normal((4, 4)).astype(np.float16),
        "model.layers.0.mlp.up_proj.weight": rng.standard_normal((6, 4)).astype(np.float16),
        "model.norm.weight": np.ones(4, dtype=np.float32),
    }


@pytest.fixture
def single(tmp_path, tensors):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path, tensors):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    names = list(tensors)
    weight_map = {name: SHARDS[place // 2] for place, name in enumerate(names)}
    for shard in SHARDS:
        save_file({name: tensors[name] for name in names if weight_map[name] == shard}, tmp_path / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_every_tensor_is_found_and_read(request, layout, tensors):
    checkpoint = Checkpoint.open(request.getfixturevalue(layout))
    assert checkpoint.config == CONFIG
    assert checkpoint.names == tuple(sorted(tensors))
    for name, expected in tensors.items():
        assert name in checkpoint
        assert checkpoint.info(name).shape == expected.shape
        assert_same_bits(checkpoint.read(name), expected.astype(np.float32))
        assert_same_bits(checkpoint.read_stored(name), expected)
        assert bytes(checkpoint.raw(name)) == expected.tobytes()
    assert "lm_head.weight" not in checkpoint


def test_rows_are_those_of_the_first_axis(single, tensors):
    name = "model.embed_tokens.weight"
    assert_same_bits(Checkpoint.open(single).read(name, rows=slice(1, 3)), tensors[name][1:3])


def test_the_path_may_be_text(single):
    assert Checkpoint.open(str(single)).folder == single


def test_the_single_file_comes_first_as_in_transformers(sharded):
    save_file({"alone": np.zeros(1, dtype=np.float32)}, sharded / "model.safetensors")
    assert Checkpoint.open(sharded).names == ("alone",)


def test_no_such_folder(tmp_path):
    with pytest.raises(FormatError, match="there is no such folder. Give a local folder with config.json"):
        Checkpoint.open(tmp_path / "none")


def test_no_config_json(single):
    (single / "config.json").unlink()
    with pytest.raises(FormatError, match=r"has no config\.json; found model\.safetensors\. Give the folder"):
        Checkpoint.open(single)


@pytest.mark.parametrize(
    "content, match",
    [
        (b"{", "must be JSON; Expecting property name .* line 1"),
        (b"\xff", "must be JSON; .*utf-8"),
        (b"[" * 100_000, "must be JSON"),
        (b"[]", "must hold a JSON object; got list"),
    ],
)
def test_a_config_that_is_no_json_object(single, content, match):
    (single / "config.json").write_bytes(content)
    with pytest.raises(FormatError, match=f"config.json: {match}"):
        Checkpoint.open(single)


def test_a_json_file_that_is_not_there(tmp_path):
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read_json(tmp_path / "x.json")


def test_no_weights(single):
    (single / "model.safetensors").unlink()
    with pytest.raises(
        FormatError, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json"
    ):
        Checkpoint.open(single)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-v2.pt", "weights.pth", "last.ckpt", "w.pkl"])
def test_pickles_are_not_loaded(single, name):
    (single / "model.safetensors").rename(single / name)
    with pytest.raises(
        FormatError, match=rf"only as pickles \({name}\), which can run code.*Convert.*save_pretrained"
    ):
        Checkpoint.open(single)


@pytest.mark.parametrize(
    "name, match",
    [
        (
            "model-q4_0.gguf",
            r"only as GGUF \(model-q4_0\.gguf\), which llama\.cpp reads.*Take the model in safetensors",
        ),
        ("weights.npz", r"only as arrays of other programs \(weights\.npz\)"),
    ],
)
def test_files_of_other_programs_are_not_loaded(single, name, match):
    (single / "model.safetensors").rename(single / name)
    with pytest.raises(FormatError, match=match):
        Checkpoint.open(single)


def test_the_only_file_may_have_any_name(single):
    names = Checkpoint.open(single).names
    (single / "model.safetensors").rename(single / "gptq_model-4bit-128g.safetensors")
    assert Checkpoint.open(single).names == names


def test_of_two_files_neither_is_chosen(single):
    (single / "model.safetensors").rename(single / "one.safetensors")
    (single / "two.safetensors").write_bytes((single / "one.safetensors").read_bytes())
    with pytest.raises(FormatError, match="has neither model"):
        Checkpoint.open(single)


def test_a_missing_shard_is_named(sharded):
    (sharded / SHARDS[1]).unlink()
    with pytest.raises(MissingTensorError, match=f"has no shard {SHARDS[1]}, which .* names for 2 tensors"):
        Checkpoint.open(sharded)


def test_a_truncated_shard_is_named(sharded):
    (sharded / SHARDS[1]).write_bytes((sharded / SHARDS[1]).read_bytes()[:-3])
    with pytest.raises(FormatError, match=f"{SHARDS[1]}: not a valid safetensors file: .* truncated"):
        Checkpoint.open(sharded)


def write_index(folder, index):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": [1]}])
def test_an_index_without_a_map(sharded, index):
    write_index(sharded, index)
    with pytest.raises(FormatError, match="must hold a weight_map from tensor names to file names"):
        Checkpoint.open(sharded)


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", 7, "", "model.bin"]
)
def test_an_index_that_leads_out_of_the_folder(sharded, file):
    write_index(sharded, {"weight_map": {"x": file}})
    with pytest.raises(FormatError, match="'x' must lie in a .safetensors file of this folder; got"):
        Checkpoint.open(sharded)


def test_a_tensor_that_its_shard_lacks(sharded):
    write_index(sharded, {"weight_map": {"model.embed.weight": SHARDS[0]}})
    match = f"{SHARDS[0]} .named by .*: has no tensor model.embed.weight. Near names: model.embed_tokens"
    with pytest.raises(MissingTensorError, match=match):
        Checkpoint.open(sharded)


def test_a_missing_tensor_is_named_with_its_neighbours(single):
    with pytest.raises(
        MissingTensorError, match=r"no tensor model\.norm\.wait\. Near names: model\.norm\.weight"
    ):
        Checkpoint.open(single).read("model.norm.wait")


def test_a_name_without_neighbours(single):
    with pytest.raises(MissingTensorError, match="No name comes near it: is this the right model"):
        Checkpoint.open(single).read("0123456789")


def test_reading_and_checking_hold_the_float32_array_and_little_more(single):
    save_file({"x": np.zeros((1024, 4096), dtype=np.float16)}, single / "model.safetensors")
    checkpoint = Checkpoint.open(single)
    tracemalloc.start()
    array = checkpoint.read("x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 16 MiB; a chunk of 256 KiB of float16, and NumPy's cast buffers
    assert peak < array.nbytes + 1024 * 1024


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_names_tensor_and_index(single, tensors, value):
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name][2, 3] = value
    save_file(tensors, single / "model.safetensors")
    match = (
        rf"model\.safetensors: {name} must be finite; got {value} at index \(2, 3\) \(1 such values of 24\)"
    )
    with pytest.raises(RangeError, match=match):
        Checkpoint.open(single).read(name)
    assert np.isnan(value) == np.isnan(Checkpoint.open(single).read_stored(name)[2, 3])


def test_read_takes_floats_only(single):
    save_file({"x": np.zeros(2, dtype=np.int32)}, single / "model.safetensors")
    with pytest.raises(DtypeError, match="x must hold floats"):
        Checkpoint.open(single).read("x")


def test_a_complete_checkpoint(single, tensors):
    checkpoint = Checkpoint.open(single)
    checkpoint.check_complete({name: tensor.shape for name, tensor in tensors.items()})
    checkpoint.check_complete({"model.norm.weight": (4,)}, dtypes=("F32",))


def test_all_missing_tensors_are_counted(single):
    expected = {f"model.layers.{layer}.mlp.up_proj.weight": (6, 4) for layer in range(6)}
    match = r"has no tensor model\.layers\.1\..*, model\.layers\.2\..*, model\.layers\.3\..* and 2 more\. Near names: "
    with pytest.raises(MissingTensorError, match=match):
        Checkpoint.open(single).check_complete(expected)


def test_a_wrong_shape(single):
    with pytest.raises(ShapeError, match=r"model\.norm\.weight must have shape \(5,\) .* holds \(4,\)"):
        Checkpoint.open(single).check_complete({"model.norm.weight": (5,)})


def test_a_wrong_dtype(single):
    with pytest.raises(DtypeError, match=r"model\.norm\.weight must be stored as I32; it is F32"):
        Checkpoint.open(single).check_complete({"model.norm.weight": (4,)}, dtypes=["I32"])


def test_a_float_model_has_no_quantization_config(single):
    assert Checkpoint.open(single).quantization_config is None


def test_the_quantization_config_of_config_json(single):
    (single / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    assert Checkpoint.open(single).quantization_config == {"quant_method": "awq"}
