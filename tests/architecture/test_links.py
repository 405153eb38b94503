"""Every link of the pages, and every page and section that the code names, leads somewhere."""

import re
from pathlib import Path

import pytest
from helpers.source import ROOT, python_files, relative

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "tutorials").glob("*.md"),
    ]
)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
MENTION = re.compile(r"\b(docs/[\w/-]+\.md(?:#[\w-]+)?)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page: those written out, and the one that each heading makes."""
    text = page.read_text(encoding="utf-8")
    found = set(re.findall(r'<a id="([\w-]+)"></a>', text))
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


def dead_end(base: Path, target: str) -> str | None:
    file, _, anchor = target.partition("#")
    path = (base / file).resolve() if file else base
    if not path.exists():
        return f"{target}: no such file"
    if anchor and anchor not in anchors(path):
        return f"{target}: no such section"
    return None


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_of_a_page_lead_somewhere(page):
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    dead = [dead_end(page if target.startswith("#") else page.parent, target) for target in targets]
    assert not [end for end in dead if end]


@pytest.mark.parametrize("path", python_files("awq_ref", "tests", "benchmarks", "tools"), ids=relative)
def test_pages_that_the_code_names_exist(path):
    dead = [dead_end(ROOT, target) for target in MENTION.findall(path.read_text(encoding="utf-8"))]
    assert not [end for end in dead if end]
