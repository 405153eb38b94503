"""The conformance run: every case asked, every failure its own, whatever the backend does.

    Outcome       what became of one case
    Selection     which cases to ask, and which are known to fail
    run_cases     a backend and cases -> outcomes
    exit_code     0, 1 or 2

Source: docs/conformance.md#the-protocol.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from awq_ref.checks import require_between
from awq_ref.errors import FormatError, RangeError
from awq_ref.vectors.backends import END_SECONDS, Backend, BackendDiedError, StrayLineError
from awq_ref.vectors.case import Case
from awq_ref.vectors.compare import compare_outputs
from awq_ref.vectors.protocol import BadAnswerError

PASSED, FAILED, UNSUPPORTED, XFAILED, XPASSED = "passed", "failed", "unsupported", "xfailed", "xpassed"
CASE_SECONDS, MODEL_SECONDS = 10.0, 60.0
STARTS = 3  # failed starts in a row, after which the backend is given up


@dataclass(frozen=True)
class Outcome:
    """What became of one case: status, why, how long it took."""

    case: Case
    status: str
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Selection:
    """Which cases to ask, by globs on their ids, and which are known to fail."""

    run: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    xfail: tuple[str, ...] = ()

    def of(self, cases: Iterable[Case]) -> list[Case]:
        """Return the cases to ask.

        Raises
        ------
        RangeError
            If a pattern matches no case, or none is left.
        """
        cases = list(cases)
        for option, patterns in (("--run", self.run), ("--skip", self.skip), ("--xfail", self.xfail)):
            for pattern in patterns:
                if not any(fnmatchcase(case.id, pattern) for case in cases):
                    raise RangeError(f"conform: {option} {pattern} must match a case; none is like it.")
        chosen = [
            case
            for case in cases
            if (not self.run or _matches(case, self.run)) and not _matches(case, self.skip)
        ]
        if not chosen:
            raise RangeError("conform: at least one case must be left; --run and --skip leave none.")
        return chosen


def _matches(case: Case, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(case.id, pattern) for pattern in patterns)


def read_xfail(path: Path) -> tuple[str, ...]:
    """Return the patterns of a file: one glob a line, the rest of a line after # is a reason.

    Raises
    ------
    FormatError
        If it is no text file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"conform: --xfail {path} must be a text file; {error}.") from None
    patterns = (line.partition("#")[0].strip() for line in lines)
    return tuple(pattern for pattern in patterns if pattern)


def _judge(backend: Backend, case: Case, seconds: float, repeat: int) -> tuple[str, str]:
    """Return status and message of several answers to one case: those of the first that is not right."""
    for turn in range(repeat):
        status, message = _judge_once(backend, case, seconds)
        if status != PASSED:
            return status, message if turn == 0 else f"{message} (asked again, turn {turn + 1})"
    return PASSED, ""


def _judge_once(backend: Backend, case: Case, seconds: float) -> tuple[str, str]:
    """Return status and message of one answer; what is no answer is raised."""
    answer = backend.ask(case, seconds)
    if answer.status == UNSUPPORTED:
        return UNSUPPORTED, answer.message
    if not case.is_valid:
        wrong = (
            None if answer.status == "invalid" else f"must be invalid ({case.comment}); got {answer.status}"
        )
    elif answer.status == "ok":
        wrong = compare_outputs(answer.outputs, case)
    else:
        wrong = f"answered {answer.status}: {answer.message}"
    return (FAILED, wrong) if wrong else (PASSED, "")


class _Run:
    """One run: knows whether the backend must be started again."""

    def __init__(self, backend: Backend, timeout: float | None, repeat: int) -> None:
        self._backend, self._timeout, self._repeat = backend, timeout, repeat
        self.is_broken, self._failed_starts = False, 0

    def _seconds(self, case: Case) -> float:
        return self._timeout or (MODEL_SECONDS if case.level == "L6" else CASE_SECONDS)

    def _revive(self) -> None:
        if not self.is_broken:
            return
        if self._failed_starts >= STARTS:
            raise BackendDiedError(f"the backend could not be started again {STARTS} times; given up")
        try:
            self._backend.restart()
        except BackendDiedError:
            self._failed_starts += 1
            raise
        self.is_broken, self._failed_starts = False, 0

    def ask(self, case: Case) -> tuple[str, str, str | None]:
        """Return status, message, and the stray line that the case before this one left behind, if it did."""
        stray = None
        try:
            self._revive()
            try:
                return (*_judge(self._backend, case, self._seconds(case), self._repeat), stray)
            except StrayLineError as error:
                stray = str(error)
                self.is_broken = True
                self._revive()
                return (*_judge(self._backend, case, self._seconds(case), self._repeat), stray)
        except (BackendDiedError, BadAnswerError, StrayLineError) as error:
            self.is_broken = True
            return FAILED, str(error), stray


def _with_xfail(outcome: Outcome, xfail: Sequence[str]) -> Outcome:
    if outcome.status not in (PASSED, FAILED) or not _matches(outcome.case, xfail):
        return outcome
    if outcome.status == FAILED:
        return replace(outcome, status=XFAILED)
    return replace(outcome, status=XPASSED, message="passed, though --xfail lists it: remove the line")


def _outcomes(
    backend: Backend, cases: Sequence[Case], timeout: float | None, repeat: int
) -> Iterator[Outcome]:
    """Yield an outcome per case, each held back until it is known that no stray line follows."""
    run, held = _Run(backend, timeout, repeat), None
    for case in cases:
        lacking = backend.hello.lacks(case)
        if lacking:
            yield Outcome(case, UNSUPPORTED, f"the backend said that it has no {lacking}")
            continue
        started = time.perf_counter()
        status, message, stray = run.ask(case)
        if held is not None:
            yield replace(held, status=FAILED, message=stray) if stray else held
        held = Outcome(case, status, message, time.perf_counter() - started)
    stray = None
    try:
        backend.close(0.0 if run.is_broken else END_SECONDS)
    except StrayLineError as error:
        stray = str(error)
    if held is not None:
        yield replace(held, status=FAILED, message=stray) if stray else held


def run_cases(
    backend: Backend,
    cases: Sequence[Case],
    *,
    xfail: Sequence[str] = (),
    timeout: float | None = None,
    repeat: int = 1,
    watch: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Ask every case and return what became of it.

    Parameters
    ----------
    backend : Backend
    cases : sequence of Case
    xfail : sequence of str
        Globs of ids that are known to fail.
    timeout : float or None
        Seconds for each case; None: 10, and 60 at level L6.
    repeat : int
        How often every case is asked: a backend that keeps state between answers may be right only once.
    watch : callable or None
        Is told every outcome as it comes.

    Raises
    ------
    RangeError
        If repeat is not in [1, 1000].
    """
    require_between("conform", "repeat", repeat, 1, 1000)
    outcomes = []
    try:
        for outcome in _outcomes(backend, cases, timeout, repeat):
            outcomes.append(_with_xfail(outcome, xfail))
            if watch is not None:
                watch(outcomes[-1])
    except BaseException:  # an interrupt, say: the program has a session of its own and would live on
        with suppress(StrayLineError):
            backend.close(0.0)
        raise
    return outcomes


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Return 1 if a case failed or passed unexpectedly, 2 if none was answered, else 0."""
    statuses = {outcome.status for outcome in outcomes}
    if statuses & {FAILED, XPASSED}:
        return 1
    return 0 if PASSED in statuses else 2
