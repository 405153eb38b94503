"""Progress bars: tqdm on a terminal, silence elsewhere.

progress   wrap an iterable
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], *, total: int, label: str, unit: str, shown: bool | None = None
) -> Iterator[Item]:
    """Yield the items and draw a bar on standard error; shown=None draws it only on a terminal."""
    hidden = not sys.stderr.isatty() if shown is None else not shown
    yield from tqdm(
        items, total=total, desc=label, unit=unit, disable=hidden, leave=False, dynamic_ncols=True
    )
