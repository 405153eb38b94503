"""Run the experiments of docs/paper again and put their tables and figures into the pages.

    python tools/refresh_paper.py                    every experiment: takes a while
    python tools/refresh_paper.py main scale-sweep   some

A page says what it wants in a comment; what stands between it and the closing one is replaced:

    <!-- result: scale-sweep --outliers 8 -->
    <!-- /result -->

The words after `result:` are those of the command line after `awq-ref paper`. The figure goes to
docs/paper/figures/scale-sweep-outliers-8.png.
"""

import argparse
import re
import shlex
import sys
from pathlib import Path

from awq_ref import cli
from awq_ref.paper.experiment import Result, changes_of
from awq_ref.paper.output import draw
from awq_ref.paper.registry import EXPERIMENTS, run_experiment

PAGES = Path(__file__).resolve().parents[1] / "docs" / "paper"
BLOCK = re.compile(r"^<!-- result: (?P<words>.+?) -->$", flags=re.MULTILINE)
CLOSING = "<!-- /result -->"
FIGURE_BYTES = 100_000


def origin(result: Result) -> str:
    """Return the line under a table that says where its numbers come from."""
    setup = result.setup
    parts = [f"`{setup['command']}`", f"awq_ref {setup['version']}", f"NumPy {setup['numpy']}"]
    if "model" in setup and "sha256" in setup["model"]:
        model = setup["model"]
        parts.append(f"{model['name']} ({model['sha256'][:12]})")
    if "evaluation" in setup:
        parts.append(f"Python {setup['python']}'s library")
    return f"*{', '.join(parts)}; {setup['seconds']:.0f} s.*"


def refreshed(words: str) -> str:
    """Run one experiment; return the lines for its block, and leave its figure in the folder."""
    arguments = cli._parser().parse_args(["paper", *shlex.split(words)])
    experiment = EXPERIMENTS[arguments.experiment]
    result = run_experiment(experiment.name, **changes_of(vars(arguments)))
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    figure = PAGES / "figures" / f"{name}.png"
    draw(experiment, result.rows, figure)
    if figure.stat().st_size > FIGURE_BYTES:
        raise SystemExit(f"{figure} has more than {FIGURE_BYTES} bytes: draw less, or smaller")
    picture = f"![{experiment.title}](figures/{figure.name})"
    parts = [f"<!-- result: {words} -->", experiment.table(result.rows), origin(result), picture]
    return "\n\n".join([*parts, CLOSING])


def with_result(text: str, words: str, result: str) -> str:
    """Return a page with one block replaced."""
    start = text.index(f"<!-- result: {words} -->")
    end = text.index(CLOSING, start) + len(CLOSING)
    return text[:start] + result + text[end:]


def refresh_page(page: Path, names: set[str]) -> None:
    """Write the blocks of a page anew, those of the named experiments, each as soon as it is there."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        words = match["words"]
        if words.split()[0] in names:
            print(f"{page.name}: awq-ref paper {words}", flush=True)
            result = refreshed(words)
            page.write_text(with_result(page.read_text(encoding="utf-8"), words, result), encoding="utf-8")


def main() -> int:
    """Refresh the pages of the experiments that were asked for."""
    parser = argparse.ArgumentParser(description="Refresh the results in docs/paper.")
    parser.add_argument("experiments", nargs="*", help="default: all")
    names = set(parser.parse_args().experiments or EXPERIMENTS)
    if unknown := names - set(EXPERIMENTS):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    (PAGES / "figures").mkdir(exist_ok=True)
    for page in sorted(PAGES.glob("*.md")):
        refresh_page(page, names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
