"""Outputs that cannot be written, or not to the end: exit code 2, one message, nothing half-written."""

import os
import resource
import signal

import pytest
from helpers.command_line import assert_nothing_written, assert_refused, quantize_arguments, run, shell

from awq_ref.checkpoint import ShardWriter


@pytest.mark.parametrize("occupant", ["folder", "file", "dangling link"])
def test_output_that_exists_is_left_alone(capsys, model, tmp_path, text, occupant):
    out = tmp_path / "out"
    if occupant == "folder":
        out.mkdir()
        (out / "mine.txt").write_text("mine", encoding="utf-8")
    elif occupant == "file":
        out.write_text("mine", encoding="utf-8")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(os.listdir(tmp_path))
    assert_refused(run(capsys, *quantize_arguments(model, out, text)), str(out), "exists")
    assert sorted(os.listdir(tmp_path)) == before
    if occupant == "folder":
        assert (out / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_output_in_a_place_that_cannot_be_written(capsys, model, tmp_path, text):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    assert_refused(run(capsys, *quantize_arguments(model, tmp_path / "file" / "out", text)), "out")


@pytest.mark.parametrize("limit", [1_000, 40_000, 60_000])
def test_full_disk(model, tmp_path, text, limit):
    """A limit on the size of files stands in for the disk: writes fail in the middle, as on a full one."""

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = shell(quantize_arguments(model, tmp_path / "out", text), preexec_fn=limit_files)
    assert_refused((done.returncode, done.stderr), "out", "full")
    assert_nothing_written(tmp_path / "out")


def test_interrupt_while_writing_leaves_nothing(capsys, model, tmp_path, text, monkeypatch):
    written = []
    add = ShardWriter.add

    def add_then_interrupt(self, name, *arguments, **options):
        add(self, name, *arguments, **options)
        written.append(name)
        if len(written) == 5:
            assert [path for path in tmp_path.iterdir() if "partial" in path.name]  # it is being written
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ShardWriter, "add", add_then_interrupt)
    handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell starts background jobs without it
    try:
        code, message = run(capsys, *quantize_arguments(model, tmp_path / "out", text))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(written) == 5
    assert code == 2
    assert "interrupted" in message
    assert "Traceback" not in message
    assert_nothing_written(tmp_path / "out")
