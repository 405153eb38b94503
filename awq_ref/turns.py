"""What jobs that run at the same time do one after the other nevertheless.

Turns     the order of the jobs
within    the same turns, at places of their own
at_once   for a job that runs alone
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Condition
from typing import TypeAlias

Turn: TypeAlias = Callable[[Hashable], AbstractContextManager[None]]  # a place -> the job's turn there


def at_once(place: Hashable) -> AbstractContextManager[None]:
    """Return a turn that nobody is waited for."""
    return nullcontext()


def within(turn: Turn, where: str) -> Turn:
    """Return a job's turns at places that are apart from all others' by a name."""
    return lambda place: turn((where, place))


class Turns:
    """Lets jobs that run at the same time do some things one after the other, in the order of their numbers.

    At a place a job waits until every job before it has been there or has ended, as it has after an error. So a sum has
    the same bits however many jobs run at once. Jobs must begin in their order, and on threads that nothing interrupts,
    as those of `run_side_by_side` do: the others would wait for one that is lost.
    """

    def __init__(self) -> None:
        self._moved = Condition()
        self._last: dict[Hashable, int] = {}  # the job that has been at a place last
        self._ended: set[int] = set()

    @contextmanager
    def job(self, number: int) -> Iterator[Turn]:
        """While it lasts the job runs; its turns are what it yields."""
        try:
            yield partial(self._at, number)
        finally:
            with self._moved:
                self._ended.add(number)
                self._moved.notify_all()

    def _is_due(self, number: int, place: Hashable) -> bool:
        return all(job in self._ended for job in range(self._last.get(place, -1) + 1, number))

    @contextmanager
    def _at(self, number: int, place: Hashable) -> Iterator[None]:
        with self._moved:
            self._moved.wait_for(lambda: self._is_due(number, place))
        try:
            yield
        finally:
            with self._moved:
                self._last[place] = number
                self._moved.notify_all()
