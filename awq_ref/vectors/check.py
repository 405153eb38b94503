"""One function of yours, held to the golden vectors of one operation.

    check_function   an operation and a function -> a Verdict
    Verdict          what was asked, what was wrong; printed, it says so in words

Source: docs/conformance.md#operations.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.errors import RangeError, ShapeError
from awq_ref.vectors.backends import FunctionBackend
from awq_ref.vectors.case import Case
from awq_ref.vectors.flags import FLAGS
from awq_ref.vectors.protocol import Hello
from awq_ref.vectors.runner import PASSED, Outcome, run_cases
from awq_ref.vectors.store import read_cases

SHOWN = 3  # failures that a verdict tells
Function = Callable[..., Any]


@dataclass(frozen=True)
class Verdict:
    """What became of a function: its name, the operation, and an outcome for every case that it was asked."""

    name: str
    op: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The cases whose answer is wrong, or was none."""
        return tuple(outcome for outcome in self.outcomes if outcome.status != PASSED)

    @property
    def is_right(self) -> bool:
        """True if every answer is right."""
        return not self.failed

    def __str__(self) -> str:
        asked = len(self.outcomes)
        if self.is_right:
            return f"{self.name} is right: all {asked} golden cases of {self.op} agree."
        lines = [
            f"{self.name} is not right yet: {len(self.failed)} of {asked} golden cases of {self.op} differ."
        ]
        for outcome in self.failed[:SHOWN]:
            lines.append(f"  {outcome.case.id} ({outcome.case.comment}): {outcome.message}")
        if len(self.failed) > SHOWN:
            lines.append(f"  ... and {len(self.failed) - SHOWN} more")
        flags = {flag: FLAGS[flag] for outcome in self.failed[:SHOWN] for flag in outcome.case.flags}
        lines += [f"  {flag}: {text}" for flag, text in list(flags.items())[:SHOWN]]
        return "\n".join(lines)

    __repr__ = __str__


def _takes(function: Function) -> tuple[frozenset[str], bool]:
    """Return the names of a function's parameters, and whether it takes any other name too."""
    parameters = inspect.signature(function).parameters.values()
    named = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _needs(function: Function) -> frozenset[str]:
    """Return the names that a function must be given."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )


def _named(result: Any, case: Case) -> dict[str, AnyArray]:
    """Return what a function returned as outputs by name: a dict, a tuple in their order, or the only one."""
    if isinstance(result, Mapping):
        return {str(name): np.asarray(array) for name, array in result.items()}
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(case.expected):
        raise ShapeError(
            f"check_function: the function must return {', '.join(case.expected)}; got {len(results)} results."
        )
    return {name: np.asarray(array) for name, array in zip(case.expected, results, strict=True)}


def _answer(function: Function, cases: Mapping[str, Case], request: Mapping[str, Any]) -> dict[str, AnyArray]:
    named, takes_all = _takes(function)
    params = {name: value for name, value in request["params"].items() if takes_all or name in named}
    return _named(function(**request["inputs"], **params), cases[request["id"]])


def _selected(op: str, function: Function, where: Mapping[str, Any]) -> list[Case]:
    """Return the valid cases of an operation that the function takes the inputs of."""
    cases = [case for case in read_cases() if case.op == op]
    if not cases:
        known = sorted({case.op for case in read_cases()})
        raise RangeError(f"check_function: op must be one of {', '.join(known)}; got {op!r}.")
    named, takes_all = _takes(function)
    chosen = [
        case
        for case in cases
        if case.is_valid
        and (takes_all or set(case.inputs) <= named)
        and _needs(function) <= set(case.inputs) | set(case.params)
        and all(name in case.params and case.params[name] == value for name, value in where.items())
    ]
    if not chosen:
        inputs = sorted({", ".join(case.inputs) for case in cases})
        params = sorted({name for case in cases for name in case.params})
        raise RangeError(
            f"check_function: a case of {op} must fit the function and where={dict(where)}; none does. Its arguments "
            f"are named as the inputs ({'; or '.join(inputs)}) and, where it wants them, {', '.join(params)}."
        )
    return chosen


def check_function(op: str, function: Function, where: Mapping[str, Any] | None = None) -> Verdict:
    """Return what the golden vectors say of a function.

    The function is asked every valid case of the operation whose inputs it has parameters for: inputs come by name,
    as NumPy arrays; parameters of the case (bits, group_size, ...) only if it names them. A case with an input that it
    does not name, `clip` say, is not asked. An exception is a wrong answer, NotImplementedError included.

    Parameters
    ----------
    op : str
        An operation of docs/conformance.md#operations.
    function : callable
        Returns a dict of arrays by name, a tuple of them in the order of the table, or the only one.
    where : dict or None
        Parameters of the case that must have these values, for a function that does less than the whole operation.

    Returns
    -------
    verdict : Verdict
        Its `is_right` is for a program, its text for a person.

    Raises
    ------
    RangeError
        If there is no such operation, or no case fits the function.

    Examples
    --------
    >>> import numpy as np
    >>> def my_mean(x):
    ...     return np.abs(x).mean(axis=0, dtype=np.float64)
    >>> print(check_function("act_mean_abs", my_mean))
    my_mean is right: all 1 golden cases of act_mean_abs agree.
    >>> check_function("act_mean_abs", lambda x: np.abs(x).max(axis=0)).is_right
    False
    """
    cases = _selected(op, function, where or {})
    by_id = {case.id: case for case in cases}
    name = getattr(function, "__name__", type(function).__name__)
    backend = FunctionBackend(lambda request: _answer(function, by_id, request), Hello(name, "?"))
    return Verdict(name, op, tuple(run_cases(backend, cases)))
