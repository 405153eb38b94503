"""The runner: whatever a backend does is reported where it happens, and the run goes on."""

import re
import shlex
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.source import ROOT

from awq_ref.errors import RangeError
from awq_ref.vectors import ModuleBackend, ProgramBackend, Selection, exit_code, read_xfail, run_cases
from awq_ref.vectors.backends import UnusableError
from awq_ref.vectors.case import Case, exact

TOY = ROOT / "tests" / "helpers" / "toy_backend.py"


def toy_case(name):
    inputs = {"x": np.zeros(3, dtype=np.float32)}
    return Case(
        f"L0/t/{name}", {"n": 1}, inputs, {"y": exact([1, -2], "int32")}, "A toy.", "by hand", ("Basic",)
    )


CASES = [toy_case("first"), toy_case("bad"), toy_case("last")]


def toy(behaviour):
    return ProgramBackend(shlex.join([sys.executable, "-I", str(TOY), behaviour]))


def run(behaviour, cases=CASES, **options):
    return run_cases(toy(behaviour), cases, **{"timeout": 5.0, **options})


@pytest.mark.parametrize(
    "behaviour, message",
    [
        ("crash", "exit code 3; standard error: out of luck"),
        ("garbage", "stray print"),
        ("stray", "no request asked for"),
        ("chatty", "stray print"),
        ("binary", "no JSON"),
        ("nested", "no JSON"),
        ("closed", "closed its standard output"),
        ("wrong-shape", r"shape must be \[2\]; got \[1\]"),
        ("wrong-dtype", "dtype must be int32; got uint32"),
        ("wrong-value", r"1 of 2 elements differ; first at \[1\]: expected -2, got 1"),
        ("short-data", "must have 8 bytes; got 4"),
        ("no-hex", "hexadecimal"),
        ("no-output", "missing: .*y"),
        ("no-outputs", "outputs must be an object"),
        ("other-id", "id must be L0/t/bad"),
        ("list", "no JSON object"),
        ("status", "status must be one of"),
        ("error", "answered error: I give up"),
        ("invalid", "answered invalid"),
    ],
)
def test_what_goes_wrong_fails_its_case_alone(behaviour, message):
    outcomes = run(behaviour)
    assert [outcome.status for outcome in outcomes] == ["passed", "failed", "passed"]
    assert_like(message, outcomes[1].message)
    assert exit_code(outcomes) == 1


def assert_like(pattern, text):

    assert re.search(pattern, text, re.DOTALL), text


def test_a_hang_is_ended_after_the_time_limit():
    outcomes = run("hang", timeout=0.5)
    assert [outcome.status for outcome in outcomes] == ["passed", "failed", "passed"]
    assert "no answer within 0.5 s" in outcomes[1].message


def test_a_program_that_does_not_read_is_ended_too():
    large = replace(CASES[0], inputs={"x": np.zeros(2**17, dtype=np.float32)})  # more than a pipe holds
    outcomes = run("deaf", [large, large], timeout=0.5)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert "no answer within" in outcomes[1].message


def test_a_program_that_ends_after_its_answer_fails_the_next_case():
    outcomes = run("exit-after")
    assert [outcome.status for outcome in outcomes] == ["passed", "passed", "failed"]
    assert "exit code 0" in outcomes[2].message


def test_an_interrupt_ends_the_program():
    def stop(outcome):
        raise KeyboardInterrupt

    backend = toy("hang")
    process = backend._process
    with pytest.raises(KeyboardInterrupt):
        run_cases(backend, CASES, watch=stop, timeout=0.5)
    assert process.returncode is not None


def test_unsupported_is_no_failure():
    outcomes = run("unsupported")
    assert [outcome.status for outcome in outcomes] == ["passed", "unsupported", "passed"]
    assert exit_code(outcomes) == 0
    assert [outcome.status for outcome in run("few-ops")] == ["unsupported"] * 3
    assert exit_code(run("few-ops")) == 2


def test_invalid_inputs_must_be_refused():
    must_refuse = replace(CASES[1], expected={})
    assert [o.status for o in run("invalid", [must_refuse])] == ["passed"]
    outcomes = run("wrong-value", [must_refuse])
    assert outcomes[0].status == "failed"
    assert "must be invalid" in outcomes[0].message


@pytest.mark.parametrize("behaviour", ["no-hello", "other-protocol"])
def test_without_a_hello_nothing_is_run(behaviour):
    with pytest.raises(UnusableError, match="must answer hello"):
        toy(behaviour)


def test_a_program_that_is_not_there():
    with pytest.raises(UnusableError, match="cannot be started"):
        ProgramBackend("./there-is-no-such-program --fast")
    with pytest.raises(UnusableError, match="must name a program"):
        ProgramBackend("  ")


def test_known_failures_are_told_apart(tmp_path):
    path = tmp_path / "xfail.txt"
    path.write_text("# of the toy\nL0/t/b*  # it prints\n\n", encoding="utf-8")
    xfail = read_xfail(path)
    assert xfail == ("L0/t/b*",)
    outcomes = run("garbage", xfail=xfail)
    assert [outcome.status for outcome in outcomes] == ["passed", "xfailed", "passed"]
    assert exit_code(outcomes) == 0
    outcomes = run("garbage", xfail=("L0/t/last", *xfail))
    assert [outcome.status for outcome in outcomes] == ["passed", "xfailed", "xpassed"]
    assert exit_code(outcomes) == 1


def test_cases_are_chosen_by_globs():
    chosen = Selection(run=("L0/t/*",), skip=("*/bad",)).of(CASES)
    assert [case.id for case in chosen] == ["L0/t/first", "L0/t/last"]
    with pytest.raises(RangeError, match="--skip L9"):
        Selection(skip=("L9*",)).of(CASES)
    with pytest.raises(RangeError, match="at least one case"):
        Selection(skip=("*",)).of(CASES)


def test_state_that_is_left_shows_when_a_case_is_asked_again(monkeypatch):
    turns = []

    def right_once(request):
        turns.append(1)
        return {"y": np.array([1, -2 if len(turns) == 1 else 0], dtype=np.int32)}

    monkeypatch.setitem(sys.modules, "made_here", Module(right_once))
    outcome = run_cases(ModuleBackend("made_here"), CASES[:1], repeat=3)[0]
    assert outcome.status == "failed"
    assert "turn 2" in outcome.message
    with pytest.raises(RangeError, match="repeat"):
        run_cases(ModuleBackend("made_here"), CASES[:1], repeat=0)


class Module:
    """A module's answer, by what the test asks for."""

    NAME, VERSION = "made here", "0"

    def __init__(self, answer):
        self.answer = answer


def ask_module(monkeypatch, answer):
    monkeypatch.setitem(sys.modules, "made_here", Module(answer))
    return run_cases(ModuleBackend("made_here"), CASES[:1])[0]


def test_a_module_is_a_backend(monkeypatch):
    def right(request):
        assert request["inputs"]["x"].shape == (3,)
        request["inputs"]["x"][:] = 7  # a copy: the case stays as it is
        return {"y": np.array([1, -2], dtype=np.int32)}

    assert ask_module(monkeypatch, right).status == "passed"
    assert not CASES[0].inputs["x"].any()


@pytest.mark.parametrize(
    "error, status, message",
    [
        (NotImplementedError("no"), "unsupported", "no"),
        (ValueError("no"), "failed", "answered invalid: no"),
        (TypeError("no"), "failed", "answered invalid: no"),
        (KeyError("no"), "failed", "answered error: KeyError"),
    ],
)
def test_exceptions_of_a_module_are_statuses(monkeypatch, error, status, message):
    def raises(request):
        raise error

    outcome = ask_module(monkeypatch, raises)
    assert outcome.status == status
    assert message in outcome.message


def test_a_module_must_return_arrays(monkeypatch):
    outcome = ask_module(monkeypatch, lambda request: [1, -2])
    assert outcome.status == "failed"
    assert "dict of NumPy arrays" in outcome.message


@pytest.mark.parametrize("name", ["there_is_no_such_module", "json"])
def test_a_module_without_answer_is_refused(name):
    with pytest.raises(UnusableError, match=r"answer\(request\)"):
        ModuleBackend(name)
