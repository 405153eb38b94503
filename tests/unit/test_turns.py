"""Jobs side by side, and what they do one after the other nevertheless."""

import os
import time

import pytest

from awq_ref import threads
from awq_ref.threads import default_threads, run_jobs, run_side_by_side
from awq_ref.turns import Turns


@pytest.mark.parametrize(("n_jobs", "together"), [(0, 0), (1, 0), (2, 0), (3, 3), (7, 6)])
def test_side_by_side_as_many_as_there_are_threads(monkeypatch, n_jobs, together):
    for name in threads.LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3), raising=False)
    seen = {}
    run_side_by_side(lambda number: seen.update({number: default_threads()}), n_jobs)
    assert seen == {number: 1 if number < together else 3 for number in range(n_jobs)}


def test_turns_are_taken_in_order():
    turns, seen = Turns(), []

    def job(number):
        with turns.job(number) as turn:
            time.sleep(0.01 * (3 - number))  # the later, the faster
            if number != 1:  # who does not come is not waited for once it has ended
                with turn("here"):
                    seen.append(number)

    run_jobs(job, range(4), n_threads=4)
    assert seen == [0, 2, 3]


def test_an_error_lets_the_others_go_on():
    turns, seen = Turns(), []

    def job(number):
        with turns.job(number) as turn:
            time.sleep(0.02 * (2 - number))
            with turn("here"):
                seen.append(number)
                if number == 0:
                    raise KeyError(number)
            with turn("there"):
                seen.append(number)

    with pytest.raises(KeyError, match="0"):
        run_jobs(job, range(3), n_threads=3)
    assert seen[0] == 0 and sorted(seen) == [0, 1, 1, 2, 2]
