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

ROOT = site_pages.ROOT
SITE = ROOT / "docs" / "_site"  # settings, landing page, style
GENERATED = "explain.html"  # made by `awq-ref explain`, where there is such a command


def _pages() -> dict[str, str]:
    """Return path -> text of every page that is written or made from code."""
    pages = {"index.md": site_pages.written(SITE / "index.md")}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if not page.is_relative_to(SITE):
            pages[page.relative_to(ROOT).as_posix()] = site_pages.written(page)
    for page in sorted((ROOT / "examples").rglob("*.md")):
        pages[page.relative_to(ROOT).as_posix()] = site_pages.written(page)
    for page in sorted((ROOT / "tutorials").glob("*.py")):
        if not page.name.startswith("_"):
            pages[page.relative_to(ROOT).as_posix()] = page.read_text(encoding="utf-8")
    pages |= site_pages.api_pages() | site_pages.carriers()
    pages["examples/index.md"] = site_pages.examples()
    pages["changelog.md"] = site_pages.changelog()
    pages["tutorials/index.md"] = site_pages.tutorials(pages)
    return pages


def _write(path: Path, text: str) -> None:
    """Write a file, but leave one that holds this text already: Sphinx reads again what is newer."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _copy_rest(source: Path) -> None:
    """Copy what pages show: pictures, programs, style; link the repository for the source of functions."""
    for folder in ("docs", "examples", "tutorials"):
        for path in (ROOT / folder).rglob("*"):
            shown = path.suffix in {".png", ".svg", ".c", ".h", ".mjs", ".rs"} or path.parent.name in (
                "examples",
                "tutorials",
            )
            if path.is_file() and shown and path.suffix != ".md":
                to = source / path.relative_to(ROOT)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)
    for path in SITE.iterdir():
        if path.suffix in {".css", ".svg", ".png"}:
            (source / "_static").mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, source / "_static" / path.name)
    shutil.copy2(SITE / "conf.py", source / "conf.py")
    _write(source / "repository.txt", str(ROOT))
    link = source / "repository"
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)


def assemble(source: Path) -> dict[str, str]:
    """Put the sources of the site together; return the pages. Pages that are gone go from there too."""
    pages = _pages()
    for name, text in pages.items():
        _write(source / name, text)
    _copy_rest(source)
    for folder in ("docs", "api", "examples", "tutorials"):
        for path in (source / folder).rglob("*"):
            name = path.relative_to(source).as_posix()
            if path.suffix in {".md", ".rst"} and name not in pages:
                path.unlink()
    return pages


def _sphinx(source: Path, html: Path, jobs: int) -> int:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", str(jobs)]
    command += ["-d", str(source.parent / "doctrees"), str(source), str(html)]
    return subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False).returncode


def main() -> int:
    """Build; the exit code says whether everything worked and every link leads somewhere."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("--out", type=Path, default=ROOT / "_site", help="default: _site")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="processes of Sphinx")
    arguments = parser.parse_args()
    source, html = arguments.out.resolve() / "source", arguments.out.resolve() / "html"
    pages = assemble(source)
    site_pages.explorer(source / "_static" / GENERATED)
    if code := _sphinx(source, html, arguments.jobs):
        return code
    _write(html / "llms.txt", site_pages.llms(pages))
    broken = site_links.broken_links(html)
    print("\n".join([f"broken link: {line}" for line in broken] or [f"every link leads somewhere: {html}/index.html"]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
