"""A model by its name on the hub, against a server on this machine: what is asked for, and who takes a name."""

import json
import shutil
import sys

import numpy as np
import pytest
from helpers.command_line import assert_refused, every_command, quantize_arguments, run, shell
from helpers.hub_server import COMMIT, NAME, UNWANTED_FILES, snapshot

import awq_ref
from awq_ref.errors import HubError


def inspect(capsys, name: str = NAME):
    return run(capsys, "inspect", name)


def test_only_what_is_needed_is_asked_for_and_only_once(capsys, hub, home, published):
    assert inspect(capsys) == (0, "")
    asked = {request.file for request in hub.requests} - {""}
    there = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert asked == there - set(UNWANTED_FILES)
    assert {path.name for path in snapshot(home).iterdir()} == asked
    hub.requests.clear()
    assert inspect(capsys) == (0, "")
    assert not hub.asked("file") + hub.asked("file", "HEAD") + hub.asked("storage")


def test_every_command_takes_a_name(capsys, hub, tmp_path, text):
    for arguments in every_command(NAME, tmp_path / "out", text).values():
        assert run(capsys, *arguments)[0] == 0, arguments
    reference = ["--reference", f"{NAME}@v1"]
    assert run(capsys, *every_command(tmp_path / "out", None, text)["perplexity"], *reference)[0] == 0
    pair = [
        "inspect",
        "--errors",
        NAME,
        tmp_path / "out",
        "--samples",
        4,
        "--calibration",
        text,
        "--seq-len",
        64,
    ]
    assert run(capsys, *pair)[0] == 0


def test_an_experiment_on_sizes_takes_a_name_and_leaves_the_weights_where_they_are(capsys, hub):
    assert run(capsys, "paper", "memory", "--model", NAME, "--group-size", 16)[0] == 0
    assert hub.asked("file")
    assert not hub.asked("storage")


def test_python_takes_a_name(hub, published):
    ids = np.array([[1, 2, 3]])
    assert (awq_ref.load_model(f"{NAME}@v1").logits(ids) == awq_ref.load_model(published).logits(ids)).all()
    windows = np.array([[5, 6, 7, 8]])
    assert awq_ref.calibrate(NAME, calibration=windows, shown=False).of_layer(0)


def test_quantizing_a_name_keeps_its_side_files_its_name_and_its_licence(
    capsys, hub, tmp_path, published, text
):
    assert run(capsys, *quantize_arguments(NAME, tmp_path / "out", text))[0] == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE"):
        copy = tmp_path / "out" / name
        assert copy.read_bytes() == (published / name).read_bytes()
        assert not copy.is_symlink()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f'base_model: "{NAME}"' in card
    assert 'license: "apache-2.0"' in card


def test_a_sharded_model(capsys, hub, home, sharded):
    hub.put(NAME, sharded)
    assert inspect(capsys)[0] == 0
    for file in sharded.glob("model*"):
        assert (snapshot(home) / file.name).read_bytes() == file.read_bytes()


def test_a_path_that_exists_wins_and_needs_neither_network_nor_library(
    capsys, hub, tmp_path, monkeypatch, published
):
    shutil.copytree(published, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "generate", NAME, "--prompt", "def ", "--max-new-tokens", 2)[0] == 0
    assert not hub.requests
    assert "huggingface_hub" not in sys.modules


def test_revisions(capsys, hub):
    for revision in ("main", "v1", COMMIT):
        assert inspect(capsys, f"{NAME}@{revision}")[0] == 0
    assert_refused(inspect(capsys, f"{NAME}@v2"), NAME, "no revision v2")


def test_a_process_of_its_own_reads_the_environment_and_draws_no_bar_in_a_pipe(hub, home):
    done = shell(["inspect", NAME])
    assert (done.returncode, done.stderr) == (0, "")
    assert (snapshot(home) / "model.safetensors").is_file()
    done = shell(["inspect", "org/tyny"])
    assert done.returncode == 2
    assert done.stderr.startswith("awq-ref: org/tyny: ")
    assert done.stderr.count("\n") == 1
    with pytest.raises(HubError, match="HTTP 404"):
        awq_ref.load_model("org/tyny")


def test_the_record_of_a_quantized_name_opens_again(capsys, hub, tmp_path, text):
    assert run(capsys, *quantize_arguments(NAME, tmp_path / "out", text))[0] == 0
    hub.put("org/tiny-awq", tmp_path / "out")
    assert run(capsys, "generate", "org/tiny-awq", "--prompt", "def ", "--max-new-tokens", 2)[0] == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["quant_method"] == "awq"
