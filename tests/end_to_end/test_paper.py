"""`awq-ref paper` as a user types it."""

import json

import pytest
from helpers.command_line import assert_refused, run

from awq_ref import cli


def test_without_a_name_it_lists_the_experiments(capsys):
    assert cli.main(["paper"]) == 0
    listing = capsys.readouterr().out
    assert "| salient " in listing
    assert "awq-ref paper main --bits 4 3 2 --group-size 128 64" in listing


def test_a_run_prints_its_table_and_writes_figure_and_json(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    figure, document = tmp_path / "example.png", tmp_path / "example.json"
    assert cli.main(["paper", "example", "--plot", str(figure), "--json", str(document)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in printed] == ["s", ":--", "1", "2"]
    assert figure.read_bytes().startswith(b"\x89PNG")
    content = json.loads(document.read_text(encoding="utf-8"))
    assert set(content) == {"experiment", "setup", "rows"}
    assert content["experiment"] == "example"
    assert content["setup"]["command"] == "awq-ref paper example"
    assert [row["code"] for row in content["rows"]] == [2, 5]


def test_a_run_on_a_folder_of_ones_own(capsys, model, tmp_path):
    document = tmp_path / "main.json"
    options = [
        "--bits",
        3,
        "--group-size",
        32,
        "--recipes",
        "rtn",
        "--samples",
        2,
        "--seq-len",
        32,
        "--tokens",
        64,
    ]
    code, _ = run(capsys, "paper", "main", "--model", model, *options, "--json", document)
    assert code == 0
    content = json.loads(document.read_text(encoding="utf-8"))
    assert [(row["recipe"], row["bits"]) for row in content["rows"]] == [("fp16", 16), ("rtn", 3)]
    assert content["setup"]["model"]["name"] == "model"


def test_an_unknown_experiment_is_refused(capsys):
    assert_refused(run(capsys, "paper", "sallient"), "the experiment must be one of", "'salient'")


def test_an_option_that_an_experiment_does_not_take_is_refused(capsys):
    assert_refused(run(capsys, "paper", "example", "--bits", 3), "takes no options; got --bits")


def test_a_quantized_model_is_refused(capsys, model, text, tmp_path):
    out = tmp_path / "out"
    assert run(capsys, "quantize", model, out, "--group-size", 16, "--recipe", "rtn")[0] == 0
    assert_refused(run(capsys, "paper", "alpha", "--model", out, "--group-size", 16), "quantized already")


def test_a_figure_that_cannot_be_written_is_refused_before_the_work(capsys, tmp_path):
    figure = tmp_path / "none" / "figure.png"
    assert_refused(run(capsys, "paper", "main", "--plot", figure), "its folder must exist")
