"""Which case kills each mutant, and the table of them in docs/mutants.md.

MUTANTS       all of them
killer        a mutant and cases -> the first case that it fails, or None
mutant_page   the page; tools/write_mutants.py writes it
"""

from collections import Counter

import numpy as np
from helpers.source import ROOT
from mutants.bits import BITS
from mutants.bits_blocks import BITS_BLOCKS
from mutants.bits_others import BITS_OTHERS
from mutants.models import MODELS
from mutants.numbers import NUMBERS
from mutants.ropes import ROPES

from awq_ref.vectors import read_cases
from awq_ref.vectors.compare import compare_outputs

MUTANTS = [*BITS, *BITS_BLOCKS, *BITS_OTHERS, *NUMBERS, *MODELS, *ROPES]
PAGE = ROOT / "docs" / "mutants.md"
HEAD = """# Mutants: do the vectors catch bugs?

Each row is a backend with one bug: the small NumPy backend of `tests/mutants`, which conforms, with one step got wrong.
A test runs every one of them through all cases and is red if one survives. The case named is the first that fails, in
the order of the runner.
`PYTHONPATH=tests python tools/write_mutants.py` writes this page; a test compares it.

"""


def _passes(mutant, case):
    inputs = {name: array.copy() for name, array in case.inputs.items()}
    request = {"id": case.id, "op": case.op, "params": case.params, "inputs": inputs}
    try:
        with np.errstate(all="ignore"):  # a mutant may divide by zero: it is its answer that is judged
            outputs = mutant.backend.answer(request)
    except (ValueError, TypeError):
        return not case.is_valid
    return case.is_valid and compare_outputs({n: np.asarray(a) for n, a in outputs.items()}, case) is None


def killer(mutant, cases):
    """Return the first case that a mutant fails, or None."""
    return next((case for case in cases if not _passes(mutant, case)), None)


def mutant_page():
    """Return the page."""
    cases = read_cases()
    rows, levels = [], Counter()
    for mutant in MUTANTS:
        case = killer(mutant, cases)
        assert case is not None, f"{mutant.name} survives"
        levels[case.level] += 1
        rows.append(f"| {mutant.name} | {mutant.bug} | {case.level} | `{case.id}` |")
    counts = ", ".join(f"{levels[level]} at {level}" for level in sorted(levels))
    head = f"{HEAD}{len(rows)} mutants, all killed: {counts}.\n\n| mutant | its bug | dies at | in case |\n"
    head += "|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"
