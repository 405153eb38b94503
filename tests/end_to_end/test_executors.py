"""Blocks searched by other processes: the bytes of the serial run, whoever does the work, and clear refusals."""

import signal
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref
from awq_ref import cli
from awq_ref.errors import CalibrationWarning, OutputError, RangeError, UnsupportedError
from awq_ref.pipeline.resume import FinishedBlocks

IDS = np.random.default_rng(5).integers(0, 250, (8, 32))
OPTIONS = {"group_size": 16, "calibration": IDS, "shown": False}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "tiny"
    write_tiny_llama(folder, num_hidden_layers=5)
    return folder


def contents(folder):
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"
    }  # has its name


class Late:
    """An executor that does its work when it is asked for the result, and notes how much waits."""

    def __init__(self):
        self.waiting, self.most, self.calls = 0, 0, 0

    def submit(self, fn, /, *arguments):
        self.waiting, self.calls = self.waiting + 1, self.calls + 1
        self.most = max(self.most, self.waiting)
        executor = self

        class Result:
            def result(self):
                executor.waiting -= 1
                return fn(*arguments)

        return Result()


class Dead:
    """An executor whose processes have died."""

    def submit(self, fn, /, *arguments):
        future = Future()
        future.set_exception(BrokenProcessPool("a process died"))
        return future


@pytest.mark.parametrize("recipe", ["rtn", "awq", "awq+gptq", "gptq-r"])
@pytest.mark.parametrize("ahead", [1, 3])
def test_the_bytes_are_those_of_the_serial_run(source, tmp_path, recipe, ahead):
    serial = awq_ref.quantize_model(source, tmp_path / "serial", recipe=recipe, **OPTIONS)
    executor = Late()
    spread = awq_ref.quantize_model(
        source, tmp_path / "spread", recipe=recipe, executor=executor, ahead=ahead, **OPTIONS
    )
    assert contents(tmp_path / "serial") == contents(tmp_path / "spread")
    assert (executor.most, executor.calls) == (ahead, 5)
    for (_, site), (_, other) in zip(serial.sites(), spread.sites(), strict=True):
        assert (site.site, site.losses, site.loss_rounded) == (other.site, other.losses, other.loss_rounded)


def test_processes_through_the_command_line(source, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("words " * 400, encoding="utf-8")
    options = ["--group-size", "16", "--samples", "8", "--seq-len", "64", "--calibration", str(text)]
    for name, workers in (("serial", "0"), ("spread", "2")):
        arguments = ["quantize", str(source), str(tmp_path / name), "--workers", workers, *options]
        assert cli.main(arguments) == 0, capsys.readouterr().err
    assert contents(tmp_path / "serial") == contents(tmp_path / "spread")
    told = capsys.readouterr().out
    assert told.count("memory: at most ") == 2
    assert told.count("workers ") == 1  # in the parts of the second
    assert told.count("peak memory ") == 2


@pytest.mark.parametrize(("recipe", "why"), [("best", "rounds each block on"), ("llm-awq", "judges")])
def test_blocks_that_wait_for_one_another_are_refused(source, tmp_path, recipe, why):
    with pytest.raises(UnsupportedError, match=rf"recipe {recipe} {why}.*Leave the executor out"):
        awq_ref.quantize_model(source, tmp_path / "out", recipe=recipe, executor=Late(), **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_a_workers_warning_is_said_here(source, tmp_path):
    with pytest.warns(CalibrationWarning, match="saw 16 tokens, fewer than"):
        options = OPTIONS | {"calibration": IDS[:1, :16]}
        awq_ref.quantize_model(source, tmp_path / "out", recipe="gptq", executor=Late(), **options)


def test_an_interrupt_keeps_what_came_back(source, tmp_path, monkeypatch):
    awq_ref.quantize_model(source, tmp_path / "whole", **OPTIONS)
    add = FinishedBlocks.add

    def add_then_stop(self, report):
        add(self, report)
        if report.layer == 1:
            signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="2 finished blocks are kept"):
        patch.setattr(FinishedBlocks, "add", add_then_stop)
        awq_ref.quantize_model(source, tmp_path / "out", executor=Late(), ahead=3, **OPTIONS)
    signal.signal(signal.SIGINT, handler)
    awq_ref.quantize_model(source, tmp_path / "out", **OPTIONS)  # now without helpers
    assert contents(tmp_path / "whole") == contents(tmp_path / "out")


def test_a_worker_that_dies(source, tmp_path):
    with pytest.raises(OutputError, match="all workers must live to the end"):
        awq_ref.quantize_model(source, tmp_path / "out", executor=Dead(), **OPTIONS)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"ahead": 0}, "ahead must lie in"),
        ({"activations": "float8"}, "activations must be one of"),
        ({"memory": "many"}, "must be a number and a unit"),
        ({"memory": 1000}, r"memory must be at least .* MiB, hidden states in a file; got 1000 B"),
    ],
)
def test_options_that_cannot_be(source, tmp_path, options, told):
    with pytest.raises(RangeError, match=told):
        awq_ref.quantize_model(source, tmp_path / "out", **OPTIONS | options)
    assert not list(tmp_path.iterdir())
