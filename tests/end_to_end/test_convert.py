"""convert: the same model in another layout, exactly; or refused; or rounded, if that is allowed, and by how much."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.command_line import assert_nothing_written, assert_refused, run
from helpers.stored_checkpoints import FORMATS, change_tensors, write_stored
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref
from awq_ref.checkpoint import Checkpoint
from awq_ref.errors import RangeError, UnsupportedError
from awq_ref.pack import FOLDER_LAYOUTS
from awq_ref.pipeline import convert_model

IDS = np.random.default_rng(3).integers(0, 250, (1, 20))
ZEROS = ("gemm", "gemv", "gptq", "gptq_v2", "pack-quantized")  # layouts with zero points that are integers
OFFSETS = ("gemv_fast", "llm-awq")  # with float16 products in their place; mlx takes float32 ones
ANY_BITS = ("gptq", "gptq_v2", "pack-quantized")
UNIFORM = replace(FORMATS["mlx"], config={"group_size": 64, "bits": 4}, overrides={})
# source -> the layouts to which it goes exactly, and those for which it must be rounded; all others refuse it
WAYS = {
    "gemm": ((*ZEROS, "mlx"), OFFSETS),
    "gemv": ((*ZEROS, "mlx"), OFFSETS),
    "gemv_fast": ((*OFFSETS, "mlx"), ZEROS),
    "gptq symmetric": ((*ZEROS, *OFFSETS, "mlx"), ()),  # scale * 8 is exact
    "gptq in the order of activations": (ANY_BITS, ()),
    "gptq 3 bits": ((*ANY_BITS, "mlx"), ()),
    "gptq by rows": (ZEROS, OFFSETS),  # mlx has no groups of a whole row
    "gptq with its head": ((*ZEROS, "mlx"), OFFSETS),
    "pack-quantized bfloat16": ((*ANY_BITS, "gemm", "gemv", *OFFSETS, "mlx"), ()),
    "mlx": ((*OFFSETS, "mlx"), ZEROS),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    for name in WAYS:
        write_stored(root / name, UNIFORM if name == "mlx" else FORMATS[name])
    return root


def logits_of(folder):
    return awq_ref.load_model(folder, residency="dense").logits(IDS)


@pytest.mark.parametrize("name", WAYS)
def test_what_is_exact_what_rounds_what_is_refused(sources, tmp_path, name):
    exact, rounds = WAYS[name]
    before = logits_of(sources / name)
    for layout in FOLDER_LAYOUTS:
        out = tmp_path / layout
        if layout in exact:
            report = convert_model(sources / name, out, layout=layout)
            assert report.rounded == {}
            np.testing.assert_array_equal(logits_of(out), before)
            continue
        with pytest.raises(UnsupportedError, match=r"^model\.layers\.0"):
            convert_model(sources / name, out, layout=layout)
        assert_nothing_written(out)
        if layout in rounds:
            report = convert_model(sources / name, out, layout=layout, allow_rounding=True)
            assert report.rounded
            assert (
                max(report.rounded.values()) < 2.0**-9
            )  # of a layer's largest weight: float16 has 2**-11 of a term
            assert np.abs(logits_of(out) - before).max() < 0.05 * np.abs(before).max()
        else:
            with pytest.raises(UnsupportedError):
                convert_model(sources / name, out, layout=layout, allow_rounding=True)


@pytest.mark.parametrize("layout", [*ZEROS, *OFFSETS, "mlx"])
def test_there_and_back_the_words_are_the_same(sources, tmp_path, layout):
    convert_model(sources / "gemm", tmp_path / "there", layout=layout, allow_rounding=True)
    convert_model(tmp_path / "there", tmp_path / "back", layout="gemm", allow_rounding=True)
    before, after = (Checkpoint.open(folder) for folder in (sources / "gemm", tmp_path / "back"))
    assert sorted(before.names) == sorted(after.names)
    for name in before.names:
        np.testing.assert_array_equal(before.raw(name), after.raw(name), err_msg=name)


def test_a_head_of_integers_becomes_float_and_is_said_to_be(sources, tmp_path):
    convert_model(sources / "gptq with its head", tmp_path / "out", layout="gemm")
    checkpoint = Checkpoint.open(tmp_path / "out")
    assert checkpoint.info("lm_head.weight").dtype == "F32"
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["modules_to_not_convert"] == ["lm_head"]
    assert config["awq_ref"]["source_layout"] == "gptq"


def test_negative_scales_are_turned_around(tmp_path):
    write_stored(tmp_path / "source", UNIFORM)

    def negate(tensors):
        """Count every code from the other end: q s + o = (15 - q) (-s) + (o + 15 s)."""
        for name in [name for name in tensors if name.endswith("_proj.scales")]:
            place = name.removesuffix(".scales")
            dtype, scales = tensors[name]
            tensors[name] = (dtype, -scales)
            tensors[f"{place}.biases"] = (dtype, np.float16(0) * scales - 8 * -scales)

    change_tensors(tmp_path / "source", negate)
    before = logits_of(tmp_path / "source")
    report = convert_model(tmp_path / "source", tmp_path / "out", layout="gptq_v2")
    assert report.rounded == {}  # z = 8, from -(8 * -s) / -s
    np.testing.assert_array_equal(logits_of(tmp_path / "out"), before)


def test_modules_that_differ_are_refused(tmp_path):
    write_stored(tmp_path / "source", FORMATS["mlx"])
    with pytest.raises(UnsupportedError, match="same bits, groups and symmetry"):
        convert_model(tmp_path / "source", tmp_path / "out", layout="mlx")


def test_the_command_says_what_became_of_the_weights(sources, tmp_path, capsys):
    code, _ = run(capsys, "convert", sources / "gemm", tmp_path / "same", "--layout", "gptq")
    assert code == 0
    arguments = ("convert", sources / "gemm", tmp_path / "out", "--layout", "gemv_fast")
    assert_refused(run(capsys, *arguments), "must keep every weight", "--allow-rounding")
    assert_nothing_written(tmp_path / "out")
    assert run(capsys, *arguments, "--allow-rounding")[0] == 0
    assert_refused(run(capsys, *arguments, "--allow-rounding"), "exists already")


def test_what_cannot_be_converted(tmp_path, capsys):
    write_tiny_llama(tmp_path / "float")
    assert_refused(
        run(capsys, "convert", tmp_path / "float", tmp_path / "out", "--layout", "gemm"), "Quantize it first"
    )
    with pytest.raises(RangeError, match="layout"):
        convert_model(tmp_path / "float", tmp_path / "out", layout="gguf")
