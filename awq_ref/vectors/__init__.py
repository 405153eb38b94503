"""Golden vectors: inputs and right answers for any backend, and the runner that holds a backend to them.

read_cases, copy_vectors        the shipped vectors, verified; some of them as plain files
make_cases, files_of            the same computed anew from the oracles, and as bytes
ProgramBackend, ModuleBackend   how a backend is asked
Selection, run_cases, exit_code, summary, failures, stories, REPORTS    a run, and what it says
check_function, Verdict         one Python function held to the cases of one operation
draw_layout                     the bits of a layout, drawn

The oracles (`oracle_*.py`, `addresses.py`, `rounding.py`) import no other room: what is expected never comes from the
code under test. Only `backend*.py`, this package as a backend, knows the fast paths.
"""

from awq_ref.vectors.backends import ModuleBackend, ProgramBackend
from awq_ref.vectors.case import LEVELS, Case, Expected
from awq_ref.vectors.catalog import make_cases
from awq_ref.vectors.check import Verdict, check_function
from awq_ref.vectors.draw import draw_layout
from awq_ref.vectors.files import files_of
from awq_ref.vectors.reports import REPORTS, failures, stories, summary
from awq_ref.vectors.runner import Outcome, Selection, exit_code, read_xfail, run_cases
from awq_ref.vectors.store import copy_vectors, read_cases

__all__ = [
    "LEVELS",
    "REPORTS",
    "Case",
    "Expected",
    "ModuleBackend",
    "Outcome",
    "ProgramBackend",
    "Selection",
    "Verdict",
    "check_function",
    "copy_vectors",
    "draw_layout",
    "exit_code",
    "failures",
    "files_of",
    "make_cases",
    "read_cases",
    "read_xfail",
    "run_cases",
    "stories",
    "summary",
]
