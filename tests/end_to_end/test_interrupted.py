"""Runs that are stopped at any moment, and taken up again: the bytes of an undisturbed run, and never half a model."""

import errno
import os
import shutil
import sys
import warnings

import numpy as np
import pytest
from helpers.killed import count_moments, run_killed, spilled
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref
from awq_ref.checkpoint import resumable_folder
from awq_ref.errors import AwqRefError, CalibrationWarning, OutputError, RangeError
from awq_ref.pipeline import quantize, resume
from awq_ref.pipeline.block_output import quantize_block as block
from awq_ref.pipeline.resume import FinishedBlocks

IDS = np.random.default_rng(5).integers(0, 250, (4, 32))
OPTIONS = {"group_size": 16, "calibration": IDS, "max_shard_bytes": 20_000}
# Every kind of work between two blocks: none, the float stream, both streams, the tokens; and a file for the streams.
CASES = {
    "rtn": {"recipe": "rtn"},
    "awq": {"recipe": "awq"},
    "awq, in a file": {"recipe": "awq", "spill": True},
    "best": {"recipe": "best"},
    "best, in a file": {"recipe": "best", "spill": True},
    "llm-awq": {"recipe": "llm-awq", "activations": "float16"},
}
KILLS = 4  # per case, 24 in all

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "tiny"
    write_tiny_llama(folder, num_hidden_layers=4)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hidden_folder(out):
    return out.with_name(f".{out.name}.partial")


def run(source, out, **options):
    options = OPTIONS | options
    with warnings.catch_warnings(), spilled(options.pop("spill", False)):
        warnings.simplefilter("ignore", CalibrationWarning)
        return awq_ref.quantize_model(source, out, shown=False, **options)


def assert_loads_whole_or_not_at_all(out, expected):
    """Neither the name nor anything beside it opens as a model, unless it is the whole one."""
    for folder in (out, hidden_folder(out), hidden_folder(out) / "model"):
        try:
            awq_ref.load_model(folder)
        except AwqRefError:
            continue
        assert contents(folder) == expected


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_is_taken_up_at_any_moment(source, tmp_path, case):
    options, out = CASES[case], tmp_path / "model"
    n_moments = count_moments(source=source, destination=out, **OPTIONS | options)
    expected = contents(out)
    shutil.rmtree(out)
    for kill_at in np.random.default_rng(len(case)).integers(1, n_moments + 1, KILLS):
        run_killed(int(kill_at), source=source, destination=out, **OPTIONS | options)
        assert_loads_whole_or_not_at_all(out, expected)
        if not out.exists():  # the last moments come after the rename
            run(source, out, **options)
            assert not hidden_folder(out).exists()
        assert contents(out) == expected, f"killed at moment {kill_at} of {n_moments}"
        shutil.rmtree(out)
        shutil.rmtree(hidden_folder(out), ignore_errors=True)


def stopped_after(blocks, monkeypatch, error, source, out, **options):
    """Run until so many blocks are done, then raise."""
    add = FinishedBlocks.add

    def add_then_stop(self, report):
        add(self, report)
        if self.count == blocks:
            raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)) as caught:
        patch.setattr(FinishedBlocks, "add", add_then_stop)
        run(source, out, **options)
    return str(caught.value)


def test_finished_blocks_are_not_done_again(source, tmp_path, monkeypatch):
    whole = run(source, tmp_path / "whole", recipe="best")
    message = stopped_after(3, monkeypatch, KeyboardInterrupt(), source, tmp_path / "out", recipe="best")
    assert message.startswith("3 finished blocks are kept in ")
    done = []

    def block_noted(job, found, writer):
        done.append(found.layer)
        return block(job, found, writer)

    monkeypatch.setattr(quantize, "quantize_block", block_noted)
    report = run(source, tmp_path / "out", recipe="best")
    assert done == [3]
    assert contents(tmp_path / "out") == {
        name: data for name, data in contents(tmp_path / "whole").items() if name != "README.md"
    } | {"README.md": (tmp_path / "out" / "README.md").read_bytes()}  # the card has the folder's name
    assert len(report.layers) == len(whole.layers) == 4
    for (layer, site), (other_layer, other) in zip(whole.sites(), report.sites(), strict=True):
        assert (layer, site.site, site.losses) == (other_layer, other.site, other.losses)
        assert site.loss_rounded == other.loss_rounded
        np.testing.assert_array_equal(site.channel_scales, other.channel_scales)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipe": "gptq"}, "recipe.name: awq then, gptq now"),
        ({"bits": 3, "group_size": 32}, "spec.bits: 4 then, 3 now"),
        ({"calibration": IDS[:3]}, "calibration.windows: 4 then, 3 now"),
        ({"activations": "float16"}, "activations: float32 then, float16 now"),
        ({"max_shard_bytes": 30_000}, "max_shard_bytes: 20000 then, 30000 now"),
    ],
)
def test_other_work_is_refused(source, tmp_path, monkeypatch, change, told):
    out = tmp_path / "out"
    stopped_after(1, monkeypatch, KeyboardInterrupt(), source, out)
    with pytest.raises(OutputError, match="must be the same work; these differ: .*--restart") as caught:
        run(source, out, **change)
    assert told in str(caught.value)
    run(source, out, **change, restart=True)
    assert awq_ref.load_model(out).config.num_hidden_layers == 4


def test_a_changed_source_and_another_version_are_refused(tmp_path, monkeypatch):
    source, out = tmp_path / "source", tmp_path / "out"
    write_tiny_llama(source, num_hidden_layers=4)
    stopped_after(2, monkeypatch, KeyboardInterrupt(), source, out)
    with monkeypatch.context() as patch:
        patch.setattr(resume, "__version__", "9.9")
        with pytest.raises(OutputError, match=r"awq_ref: .* then, 9\.9 now"):
            run(source, out)
    about = (source / "model.safetensors").stat()
    os.utime(source / "model.safetensors", ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    with pytest.raises(OutputError, match=r"source\.files\.model\.safetensors\.modified_ns"):
        run(source, out)


@pytest.mark.parametrize("name", ["spool-*", "float-00002", "report-00001", "model/.part-00000"])
def test_what_an_earlier_run_left_is_held_to_its_checksum(source, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    stopped_after(2, monkeypatch, KeyboardInterrupt(), source, out)
    path = next(hidden_folder(out).glob(name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(OutputError, match=r"checksum\s+differs. Begin anew \(--restart"):
        run(source, out)
    run(source, out, restart=True)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (MemoryError(), True),
        (RangeError("a weight is NaN"), False),  # the same call would meet it again
    ],
)
def test_what_is_kept_after_an_error(source, tmp_path, monkeypatch, error, kept):
    out = tmp_path / "out"
    wanted = OutputError("") if isinstance(error, OSError) else error
    add = FinishedBlocks.add

    def add_then_stop(self, report):
        add(self, report)
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(wanted)):
        patch.setattr(FinishedBlocks, "add", add_then_stop)
        run(source, out)
    assert hidden_folder(out).exists() == kept
    run(source, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_runs_to_one_folder(source, tmp_path):
    out = tmp_path / "out"
    with resumable_folder(out, {}), pytest.raises(OutputError, match="another process is writing there"):
        run(source, out)


def test_a_torn_last_line_is_none(source, tmp_path, monkeypatch):
    whole, out = run(source, tmp_path / "whole", recipe="rtn"), tmp_path / "out"
    stopped_after(2, monkeypatch, KeyboardInterrupt(), source, out, recipe="rtn")
    journal = hidden_folder(out) / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"writer": {"tens')
    run(source, out, recipe="rtn")
    for name in (path.name for path in out.glob("*.safetensors")):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.layers
