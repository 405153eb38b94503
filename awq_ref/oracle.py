"""The package as an oracle: what the commands `vectors`, `conform` and `explain-layout` do, for authors of backends."""

import argparse
import sys

from awq_ref.errors import UnsupportedError


def run_vectors(arguments: argparse.Namespace) -> int:
    """Copy golden vectors into a new folder."""
    from awq_ref.vectors import copy_vectors

    n_cases = copy_vectors(arguments.out, arguments.level or (), arguments.layout or ())
    print(f"{arguments.out}: {n_cases} cases; begin with manifest.json")
    return 0


def run_conform(arguments: argparse.Namespace) -> int:
    """Hold a backend to the golden vectors."""
    from awq_ref import vectors

    if (arguments.cmd is None) == (arguments.python is None):
        raise UnsupportedError('conform: takes --cmd "PROGRAM ARGUMENTS" or --python MODULE, one of the two.')
    xfail = vectors.read_xfail(arguments.xfail) if arguments.xfail else ()
    selection = vectors.Selection(tuple(arguments.run_globs or ()), tuple(arguments.skip or ()), xfail)
    cases = selection.of(vectors.read_cases(arguments.vectors) if arguments.vectors else vectors.read_cases())
    sys.path.insert(0, "")  # a module in the working directory, as `python -m` finds it
    backend = (
        vectors.ProgramBackend(arguments.cmd) if arguments.cmd else vectors.ModuleBackend(arguments.python)
    )
    outcomes = vectors.run_cases(
        backend, cases, xfail=xfail, timeout=arguments.timeout, repeat=arguments.repeat
    )
    person = sys.stderr if arguments.report else sys.stdout
    told = (
        vectors.failures(outcomes),
        vectors.stories(outcomes),
        vectors.summary(backend.hello, outcomes),
    )
    for text in told:
        if text:
            print(text, end="\n\n", file=person)
    if arguments.report:
        print(vectors.REPORTS[arguments.report](backend.hello, outcomes))
    return vectors.exit_code(outcomes)


def run_explain_layout(arguments: argparse.Namespace) -> int:
    """Draw the bits of a layout."""
    from awq_ref.vectors import draw_layout

    sizes = {"rows": arguments.rows, "columns": arguments.cols}
    print(draw_layout(arguments.layout, bits=arguments.bits, group_size=arguments.group_size, **sizes))
    return 0
