"""The tutorials as data: text notebooks in jupytext's percent format, read without jupytext.

CHAPTERS    the files, in their order
Cell        one cell: its kind, its text without comment signs, its options, the line where it begins
cells       a chapter -> its cells
prose       a chapter -> all its Markdown
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from helpers.source import ROOT

CHAPTERS = sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.py"))
MARKER = re.compile(r"^# %%(?P<options>.*)$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook."""

    is_markdown: bool
    text: str
    options: str
    line: int

    @property
    def is_folded(self) -> bool:
        """True for a solution."""
        return "hide-input" in self.options


@cache
def cells(path: Path) -> list[Cell]:
    """Return the cells of a chapter; its header is none."""
    text = path.read_text(encoding="utf-8")
    markers = list(MARKER.finditer(text))
    ends = [marker.start() for marker in markers[1:]] + [len(text)]
    found = []
    for marker, end in zip(markers, ends, strict=True):
        options, body = marker["options"].strip(), text[marker.end() : end].strip("\n")
        is_markdown = options.startswith("[markdown]")
        if is_markdown:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        found.append(Cell(is_markdown, body, options, text.count("\n", 0, marker.start()) + 1))
    return found


def prose(path: Path) -> str:
    """Return the Markdown of a chapter."""
    return "\n\n".join(cell.text for cell in cells(path) if cell.is_markdown)
