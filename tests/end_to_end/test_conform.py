"""The commands vectors, conform and explain-layout, as a user types them."""

import json
import shlex
import sys

import pytest
from helpers.command_line import assert_refused, run, shell
from helpers.source import ROOT

TOY = ROOT / "tests" / "helpers" / "toy_backend.py"


def test_the_package_conforms(capsys):
    assert run(capsys, "conform", "--python", "awq_ref.vectors.backend", "--run", "L[0-3]/*")[0] == 0


def test_a_backend_that_answers_the_same_to_everything_fails(tmp_path):
    command = shlex.join([sys.executable, "-I", str(TOY), "crash"])
    done = shell(["conform", "--cmd", command, "--run", "L0/pack/gemm-*", "--report", "json"])
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert set(report["counts"]) == {"failed"}
    assert "The first level with a failure is L0" in done.stderr


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_to_conform.py").write_text(
        "def answer(request):\n    raise NotImplementedError(request['op'])\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert run(capsys, "conform", "--python", "mine_to_conform", "--run", "L1/*")[0] == 2  # nothing passed


def test_vectors_are_copied_and_used(tmp_path, capsys):
    out = tmp_path / "vectors"
    assert run(capsys, "vectors", "copy", out, "--level", "L0", "--level", "L1", "--layout", "gemm")[0] == 0
    arguments = ("conform", "--python", "awq_ref.vectors.backend", "--vectors", out)
    assert run(capsys, *arguments)[0] == 0
    path = out / "L0" / "pack.json"
    path.write_text(path.read_text(encoding="utf-8").replace("gemm-plain", "gemm-plane"), encoding="utf-8")
    assert_refused(run(capsys, *arguments), "pack.json", "was altered")
    assert_refused(run(capsys, "vectors", "copy", out), "must not exist")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), "one of the two"),
        (("--cmd", "x", "--python", "y"), "one of the two"),
        (("--cmd", "./there-is-no-such-program"), "cannot be started"),
        (("--python", "there_is_no_such_module"), "answer(request)"),
        (("--python", "awq_ref.vectors.backend", "--run", "L9/*"), "must match a case"),
        (("--python", "awq_ref.vectors.backend", "--xfail", "there-is-no-such-file"), "--xfail"),
    ],
)
def test_bad_options_are_refused(capsys, arguments, words):
    assert_refused(run(capsys, "conform", *arguments), words)


def test_a_layout_is_explained(capsys):
    assert run(capsys, "explain-layout", "gemm", "--rows", 8, "--cols", 32)[0] == 0
    assert_refused(run(capsys, "explain-layout", "gemm", "--bits", 8), "4 bits")
