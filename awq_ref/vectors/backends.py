"""How a backend is asked: as a program, or as a Python function or module.

    Backend          what the runner asks of either
    ProgramBackend   a program that speaks the protocol on standard input and output
    FunctionBackend  a function `answer`
    ModuleBackend    a module with the function `answer`
    BackendDiedError, StrayLineError, UnusableError    what may go wrong

Source: docs/conformance.md#the-protocol.
"""

import importlib
import os
import queue
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol, TypeAlias

import numpy as np

from awq_ref.errors import AwqRefError, UnsupportedError
from awq_ref.vectors.case import Case
from awq_ref.vectors.protocol import (
    Answer,
    BadAnswerError,
    Hello,
    hello_line,
    parse_answer,
    parse_hello,
    request_line,
)

LINE_BYTES = 64 * 2**20  # of an answer; more is garbage
END_SECONDS = 5.0
HELLO_SECONDS = 10.0
AnswerFunction: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
OBITUARY_SECONDS = 1.0  # between the end of its output and its own


class UnusableError(AwqRefError):
    """A backend with which nothing can be run."""


class BackendDiedError(AwqRefError):
    """The backend crashed, ended, or did not answer in time."""


class StrayLineError(AwqRefError):
    """The backend had printed more lines than there were requests."""


class Backend(Protocol):
    """Whatever answers cases."""

    hello: Hello

    def ask(self, case: Case, seconds: float) -> Answer:
        """Return the answer; BackendDiedError, BadAnswerError or StrayLineError where there is none."""

    def restart(self) -> None:
        """Begin anew after a failure; BackendDiedError if it does not come up."""

    def close(self, seconds: float = END_SECONDS) -> None:
        """End it, after so long at most; StrayLineError if it had more to say."""


class ProgramBackend:
    """A program that speaks the protocol.

    Parameters
    ----------
    command : str
        As in a shell, but no shell runs it.

    Raises
    ------
    UnusableError
        If it cannot be started or does not say hello.
    """

    def __init__(self, command: str) -> None:
        self._arguments = shlex.split(command)
        self._process: subprocess.Popen[bytes] | None = None
        if not self._arguments:
            raise UnusableError("conform: --cmd must name a program; got nothing.")
        try:
            self.hello = self._start()
        except (BackendDiedError, BadAnswerError) as error:
            self._kill()
            raise UnusableError(f"conform: {self._arguments[0]} must answer hello; {error}.") from None

    def _start(self) -> Hello:
        try:
            self._process = process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise UnusableError(
                f"conform: {self._arguments[0]} cannot be started: {error.strerror}."
            ) from None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._requests: queue.Queue[bytes | None] = queue.Queue()
        self._errors: deque[bytes] = deque(maxlen=5)
        assert process.stdin and process.stdout and process.stderr
        self._threads = [
            _thread(_read_lines, process.stdout, self._lines.put),
            _thread(_read_lines, process.stderr, self._keep_error),
            _thread(_write_lines, process.stdin, self._requests),
        ]
        return parse_hello(self._exchange(hello_line(), HELLO_SECONDS))

    def _keep_error(self, line: bytes | None) -> None:
        if line is not None:
            self._errors.append(line)

    def _exchange(self, line: bytes, seconds: float) -> bytes:
        """Send a line and return the next one that comes."""
        self._requests.put(line)
        try:
            answer = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise BackendDiedError(f"no answer within {seconds:g} s") from None
        if answer is None:
            raise BackendDiedError(self._obituary())
        return answer

    def _obituary(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=OBITUARY_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its standard output"
        self._threads[1].join(timeout=1.0)  # its last words may still be on the way
        words = b"".join(self._errors).decode("utf-8", "replace").strip()
        how = f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        return f"{how}; standard error: {words[-400:]}" if words else how

    def ask(self, case: Case, seconds: float) -> Answer:
        """Return the answer to a case."""
        line = request_line(case)  # first: meanwhile a stray line may still arrive
        if not self._lines.empty():
            stray = self._lines.get_nowait()
            if stray is None:
                raise BackendDiedError(self._obituary())
            raise StrayLineError(f"printed a line that no request asked for: {stray[:80]!r}")
        return parse_answer(self._exchange(line, seconds), case)

    def restart(self) -> None:
        """Start the program again."""
        self._kill()
        try:
            self._start()
        except (BadAnswerError, UnusableError) as error:
            raise BackendDiedError(f"it could not be started again: {error}") from None

    def close(self, seconds: float = END_SECONDS) -> None:
        """Close its input and wait for its end."""
        if self._process is None:  # it could not be started again
            return
        self._requests.put(None)
        try:
            self._process.wait(timeout=seconds)
            self._threads[0].join(timeout=1.0)
        except subprocess.TimeoutExpired:
            pass
        rest: list[bytes | None] = []
        while not self._lines.empty():
            rest.append(self._lines.get_nowait())
        self._kill()
        stray = [line for line in rest if line is not None]
        if stray:
            raise StrayLineError(f"printed a line that no request asked for: {stray[0][:80]!r}")

    def _kill(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            if os.name == "posix":  # and what it started itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._requests.put(None)
        for thread in self._threads:
            thread.join(timeout=1.0)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            _close(stream)
        self._process = None


def _close(stream: IO[bytes] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:  # a pipe that nobody reads any more
        pass


def _thread(target: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _read_lines(stream: IO[bytes], put: Callable[[bytes | None], None]) -> None:
    """Hand on every line, then None."""
    try:
        while line := stream.readline(LINE_BYTES):
            put(line)
    except (OSError, ValueError):  # closed while it was read
        pass
    put(None)


def _write_lines(stream: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    """Write every line until None, then close."""
    while (line := lines.get()) is not None:
        try:
            stream.write(line)
            stream.flush()
        except (OSError, ValueError):  # nobody reads: the reader of its output will say so
            return
    _close(stream)


class FunctionBackend:
    """A function `answer(request)`, in this process."""

    def __init__(self, answer: AnswerFunction, hello: Hello) -> None:
        self._answer, self.hello = answer, hello

    def ask(self, case: Case, seconds: float) -> Answer:
        """Return the answer to a case; exceptions become statuses."""
        inputs = {name: array.copy() for name, array in case.inputs.items()}
        request = {"id": case.id, "op": case.op, "params": dict(case.params), "inputs": inputs}
        try:
            outputs = self._answer(request)
        except (NotImplementedError, UnsupportedError) as error:
            return Answer("unsupported", message=str(error))
        except (ValueError, TypeError) as error:
            return Answer("invalid", message=str(error))
        except Exception as error:  # whatever a stranger's code raises is its answer
            return Answer("error", message=f"{type(error).__name__}: {error}")
        if not isinstance(outputs, Mapping) or not all(
            isinstance(array, np.ndarray | np.generic) for array in outputs.values()
        ):
            raise BadAnswerError("answer(request) must return a dict of NumPy arrays")
        return Answer("ok", {str(name): np.asarray(array) for name, array in outputs.items()})

    def restart(self) -> None:
        """Nothing to do: a module has no life of its own."""

    def close(self, seconds: float = END_SECONDS) -> None:
        """Nothing to do."""


class ModuleBackend(FunctionBackend):
    """A Python module with `answer(request)`, in this process.

    Raises
    ------
    UnusableError
        If it cannot be imported or has no such function.
    """

    def __init__(self, name: str) -> None:
        try:
            module = importlib.import_module(name)
            answer: AnswerFunction = module.answer
        except (ImportError, AttributeError) as error:
            raise UnusableError(
                f"conform: --python {name} must be a module with answer(request); {error}."
            ) from None
        super().__init__(
            answer, Hello(str(getattr(module, "NAME", name)), str(getattr(module, "VERSION", "?")))
        )
