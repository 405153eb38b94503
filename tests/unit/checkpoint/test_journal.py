"""The journal of an output folder: what counts, what is dropped, and what a second process may do."""

import json

import pytest

from awq_ref.checkpoint import journal, resumable_folder
from awq_ref.errors import OutputError, RangeError

IDENTITY = {"recipe": {"name": "awq", "alphas": (0.0, 1.0)}, "bits": 4}


def stop_after(out, steps, error, **options):
    with pytest.raises(type(error)) as caught, resumable_folder(out, IDENTITY, **options) as work:
        for step in range(len(work.finished), steps):
            (work.folder / f"step-{step}").write_text("done", encoding="utf-8")
            work.commit({"step": step})
        raise error
    return str(caught.value)


def test_a_folder_that_comes_to_its_end(tmp_path):
    out = tmp_path / "new" / "out"
    with resumable_folder(out, IDENTITY) as work:
        assert work.finished == []
        (work.model / "file").write_text("whole", encoding="utf-8")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "file").read_text(encoding="utf-8") == "whole"
    with pytest.raises(OutputError, match="exists already"), resumable_folder(out, IDENTITY):
        pass


def test_steps_are_found_again(tmp_path):
    out = tmp_path / "out"
    assert "2 finished blocks are kept" in stop_after(out, 2, KeyboardInterrupt())
    assert "3 finished blocks are kept" in stop_after(out, 3, OutputError("the disk is full."))
    with resumable_folder(out, IDENTITY) as work:
        assert work.finished == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "error, steps", [(RangeError("NaN"), 2), (KeyboardInterrupt(), 0), (MemoryError(), 0)]
)
def test_what_leaves_nothing(tmp_path, error, steps):
    stop_after(tmp_path / "new" / "out", steps, error)
    assert not list(tmp_path.iterdir())


def test_other_work_is_refused_and_stays(tmp_path):
    out = tmp_path / "out"
    stop_after(out, 1, KeyboardInterrupt())
    other = IDENTITY | {"bits": 3, "symmetric": True}
    told = "these differ: bits: 4 then, 3 now; symmetric: None then, True now"
    with pytest.raises(OutputError, match=told), resumable_folder(out, other):
        pass
    with resumable_folder(out, IDENTITY) as work:
        assert work.finished == [{"step": 0}]


def test_restart_drops_what_was_finished(tmp_path):
    out = tmp_path / "out"
    stop_after(out, 1, KeyboardInterrupt())
    with resumable_folder(out, IDENTITY | {"bits": 3}, restart=True) as work:
        assert work.finished == []
        assert sorted(path.name for path in work.folder.iterdir()) == ["journal.jsonl", "lock", "model"]


@pytest.mark.parametrize("tail", [b'{"step": 1', b'{"step": 1}', b'{"step" 1}\n', b"\xff\n"])
def test_a_line_that_is_not_whole_is_none(tmp_path, tail):
    out = tmp_path / "out"
    stop_after(out, 1, KeyboardInterrupt())
    path = tmp_path / ".out.partial" / journal.JOURNAL
    path.write_bytes(path.read_bytes() + tail)
    stop_after(out, 2, KeyboardInterrupt())
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[1:] == [{"step": 0}, {"step": 1}]


def test_one_process_at_a_time(tmp_path):
    with resumable_folder(tmp_path / "out", IDENTITY):
        second = resumable_folder(tmp_path / "out", IDENTITY)
        with pytest.raises(OutputError, match="another process is writing there. Wait"), second:
            pass
