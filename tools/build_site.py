"""Build the documentation site: static HTML that opens from the disk.

    python tools/build_site.py            into _site/html; open _site/html/index.html

The pages of docs/, examples/ and tutorials/ are put together in _site/source with those that are made from the code
(tools/site_pages.py); Sphinx turns them into HTML, with every warning an error; then every link between the pages is
followed (tools/site_links.py). Tutorials are executed; what did not change since is taken from _site/cache.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import site_links
import site_pages

from awq_ref import cli
from awq_ref.checkpoint import demo_model_path

ROOT = site_pages.ROOT
SITE = ROOT / "docs" / "_site"  # settings, landing page, style
LAYER = "model.layers.0.self_attn.q_proj"  # the layer that the site explains
EXPLORE = "docs/explore"  # the page around it
SHOWN = {".png", ".svg", ".c", ".h", ".mjs", ".rs"}


def _pages(explained: bool) -> dict[str, str]:
    """Return path -> text of every page that is written or made from code."""
    pages = {"index.md": site_pages.landing(SITE / "index.md", EXPLORE if explained else "")}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if not page.is_relative_to(SITE):
            pages[page.relative_to(ROOT).as_posix()] = site_pages.written(page)
    for page in sorted((ROOT / "examples").rglob("*.md")):
        pages[page.relative_to(ROOT).as_posix()] = site_pages.written(page)
    for page in sorted((ROOT / "tutorials").glob("*.py")):
        if not page.name.startswith("_"):
            pages[page.relative_to(ROOT).as_posix()] = site_pages.written(page)
    pages["tutorials/README.md"] = site_pages.tutorials()
    pages |= site_pages.api_pages() | site_pages.carriers()
    pages["examples/README.md"] = site_pages.examples()
    pages["changelog.md"] = site_pages.changelog()
    if explained:
        pages[f"{EXPLORE}.md"] = site_pages.explorer_page()
    return pages | site_pages.programs(pages)


def _write(path: Path, text: str) -> None:
    """Write a file, but leave one that holds this text already: Sphinx reads again what is newer."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists() or to.stat().st_mtime != path.stat().st_mtime:
        shutil.copy2(path, to)


def _explained(to: Path) -> bool:
    """Let `awq-ref explain`, where there is such a command, write its page about the embedded model."""
    if "explain" not in cli_commands():
        return False
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "awq_ref",
        "explain",
        str(demo_model_path()),
        "--layer",
        LAYER,
        "--out",
        str(to),
        "--docs",
        "../docs",
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    return True


def cli_commands() -> list[str]:
    """Return the names of the commands of `awq-ref`."""
    actions = [action for action in cli._parser()._actions if isinstance(action.choices, dict)]
    return [name for action in actions for name in action.choices]


def _copy_rest(source: Path) -> None:
    """Copy what pages show: pictures, programs, style, the source of functions."""
    for folder in ("docs", "examples", "tutorials"):
        for path in (ROOT / folder).rglob("*"):
            beside = path.parent.name == "examples" or path.name.startswith("_")
            if path.is_file() and (path.suffix in SHOWN or (path.suffix == ".py" and beside)):
                _copy(path, source / path.relative_to(ROOT))
    for folder in ("awq_ref", "tests", "benchmarks", "tools", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md"):
                _copy(path, source / "repository" / path.relative_to(ROOT))
    for path in SITE.iterdir():
        if path.suffix in {".css", ".svg", ".png"}:
            _copy(path, source / "_static" / path.name)
    _copy(SITE / "conf.py", source / "conf.py")
    _write(source / "repository.txt", str(ROOT))


def assemble(source: Path) -> dict[str, str]:
    """Put the sources of the site together; return the pages. Pages that are gone go from there too."""
    pages = _pages(_explained(source / "_static" / "explain.html"))
    for name, text in pages.items():
        _write(source / name, text)
    _copy_rest(source)
    for folder in ("docs", "api", "code", "examples", "tutorials"):
        for path in (source / folder).rglob("*"):
            name = path.relative_to(source).as_posix()
            stale = path.suffix in {".md", ".rst"} or (
                folder == "tutorials" and not path.name.startswith("_")
            )
            if path.is_file() and stale and name not in pages and path.suffix not in SHOWN:
                path.unlink()
    return pages


def _sphinx(source: Path, html: Path, jobs: int) -> int:
    """Build; all pages are written, for menus to be those of now, what is read again is what changed."""
    shutil.rmtree(html / "_modules", ignore_errors=True)  # viewcode would keep their old menus
    if not (html / "searchindex.js").exists():
        # a build that failed: what it knew goes, for the index to be whole
        shutil.rmtree(source.parent / "doctrees", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-q",
        "-a",
        "-j",
        str(jobs),
    ]
    command += ["-d", str(source.parent / "doctrees"), str(source), str(html)]
    return subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False).returncode


def _for_keyboards(html: Path) -> None:
    """Let what scrolls by itself be reached by the keyboard, and give headings of the menu their level."""
    changes = {
        "<pre>": '<pre tabindex="0">',
        '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
        'class="caption" role="heading">': 'class="caption" role="heading" aria-level="2">',
    }
    for path in html.rglob("*.html"):
        if "_static" not in path.parts:
            text = path.read_text(encoding="utf-8")
            for old, new in changes.items():
                text = text.replace(old, new)
            _write(path, text)


def main() -> int:
    """Build; the exit code says whether everything worked and every link leads somewhere."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("--out", type=Path, default=ROOT / "_site", help="default: _site")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="processes of Sphinx")
    arguments = parser.parse_args()
    source, html = arguments.out.resolve() / "source", arguments.out.resolve() / "html"
    pages = assemble(source)
    if code := _sphinx(source, html, arguments.jobs):
        return code
    _for_keyboards(html)
    _write(html / "llms.txt", site_pages.llms(pages))
    broken = site_links.broken_links(html)
    print(
        "\n".join(
            [f"broken link: {line}" for line in broken] or [f"every link leads somewhere: {html}/index.html"]
        )
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
