"""Every link within a folder of HTML leads somewhere: to a file of it, and to an id of that file.

    broken_links   folder -> one line per link that leads nowhere

Links to other sites are not followed: what they hold is not ours to promise.
"""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name == "id" or (tag == "a" and name == "name")):
                self.ids.add(value)
            elif value and name in ("href", "src"):
                self.targets.append(value)


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken_links(folder: Path) -> list[str]:
    """Return `page: target` of every link to a file or an id that is not there."""
    _read.cache_clear()
    broken = []
    for path in sorted(folder.rglob("*.html")):
        if "_static" in path.parts:
            continue
        for target in dict.fromkeys(_read(path).targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            missing = not file.is_file()
            if not missing and parts.fragment and file.suffix == ".html":
                missing = unquote(parts.fragment) not in _read(file).ids
            if missing:
                broken.append(f"{path.relative_to(folder)}: {target}")
    return broken
