"""Jobs side by side, and what they do one after the other nevertheless."""

import subprocess
import sys
import textwrap
import threading
import time

import pytest
from helpers.processors import with_processors

from awq_ref.threads import default_threads, run_jobs, run_side_by_side
from awq_ref.turns import Turns


@pytest.mark.parametrize(("n_jobs", "together"), [(0, 0), (1, 0), (2, 0), (3, 3), (7, 6)])
def test_side_by_side_as_many_as_there_are_threads(monkeypatch, n_jobs, together):
    with_processors(monkeypatch, 3)
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
    turns, seen, all_three = Turns(), [], threading.Barrier(3)

    def job(number):
        with turns.job(number) as turn:
            all_three.wait(timeout=10)  # all have begun: an error keeps others from beginning
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


INTERRUPTED = """
    import signal, threading
    from awq_ref import threads
    from awq_ref.threads import run_side_by_side
    from awq_ref.turns import Turns

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner's processes may ignore it
    threads.default_threads = lambda: 3
    caught, ended = 0, []
    for repeat in range(40):
        turns = Turns()

        def job(number):
            with turns.job(number) as turn:
                for place in range(200):
                    with turn(place):
                        pass
            ended.append(number)

        seconds, main = 0.002 + 0.0005 * (repeat % 7), threading.main_thread().ident
        timer = threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGINT))
        try:
            timer.start()
            run_side_by_side(job, 50)
            timer.join()
        except KeyboardInterrupt:
            caught += 1
    print(caught, len(ended) < 40 * 50)
"""


def test_an_interrupt_ends_what_runs_side_by_side_and_nobody_waits_for_ever():
    code = textwrap.dedent(INTERRUPTED)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (found.stdout, found.stderr) == ("40 True\n", "")


def test_jobs_side_by_side_run_where_no_interrupt_comes():
    seen = []
    run_side_by_side(lambda number: seen.append(threading.current_thread() is threading.main_thread()), 5)
    assert seen == [False] * 5
