"""The table of docs/families.md: what was measured of a family, as a row between two comments of the page.

Row          one family
read_rows    family -> the row that the page has
write_row    put a row in, in the order of FAMILIES
"""

from dataclasses import dataclass

import torch
import transformers
from helpers.source import ROOT

from awq_ref.model import FAMILIES

PAGE = ROOT / "docs" / "families.md"
OPENING, CLOSING = "<!-- parity -->", "<!-- /parity -->"
HEAD = "| family | logits | greedy | cached | fold | int4 |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """The largest error of any logit, and whether each of the other comparisons held in every case."""

    logits: float
    greedy: bool
    cached: bool
    fold: bool
    int4: bool

    @property
    def equalities(self) -> tuple[bool, ...]:
        return (self.greedy, self.cached, self.fold, self.int4)

    def line(self, family: str) -> str:
        words = ["equal" if held else "**differs**" for held in self.equalities]
        return f"| `{family}` | {self.logits:.0e} | {' | '.join(words)} |"


def _parts(page: str) -> tuple[str, str, str]:
    before, rest = page.split(OPENING)
    table, after = rest.split(CLOSING)
    return before, table, after


def read_rows() -> dict[str, Row]:
    """Return what the page says of each family."""
    _, table, _ = _parts(PAGE.read_text(encoding="utf-8"))
    rows = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            family, error, *words = (cell.strip(" `") for cell in line.strip("|").split("|"))
            rows[family] = Row(float(error), *(word == "equal" for word in words))
    return rows


def write_row(family: str, row: Row) -> None:
    """Write a family's row, and with which versions it was measured."""
    rows = read_rows() | {family: row}
    lines = [rows[name].line(name) for name in FAMILIES if name in rows]
    versions = f"*transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}*"
    before, _, after = _parts(PAGE.read_text(encoding="utf-8"))
    table = "\n".join([HEAD, *lines])
    PAGE.write_text(f"{before}{OPENING}\n\n{table}\n\n{versions}\n\n{CLOSING}{after}", encoding="utf-8")
