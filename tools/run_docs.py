"""Run every snippet of README.md and docs/**/*.md, so that no page shows a command that does not work.

    python tools/run_docs.py                      all pages
    python tools/run_docs.py README.md            some

Fenced blocks of the languages `python` and `console` are run, page by page, top to bottom, in a scratch folder of the
page. Python blocks of a page share their names; one with `>>>` prompts is run as a doctest. In a console block the
lines that begin with `$ ` are commands (without any such line: all lines), run by bash, which stops at the first that
fails; what else stands there is output, shown to the reader and not compared. An HTML comment right before the fence
changes that:

    <!-- snippet: repository -->        run in the repository, not in the scratch folder
    <!-- snippet: skip, the reason -->  do not run; only for what needs a network, a GPU or the reader's own files

The folder of the interpreter that runs this comes first on the PATH, so `awq-ref` and `python` are its own.
"""

import argparse
import contextlib
import doctest
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"^(?:<!-- snippet: (?P<mark>[^>]*?) -->\n+)?```(?P<language>python|console)\n(?P<code>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
MARKS = ("repository", "skip, ")


class SnippetError(Exception):
    """A snippet failed; the message says how."""


@dataclass(frozen=True)
class Snippet:
    """One fenced block."""

    page: Path
    line: int
    language: str
    mark: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(page: Path) -> Iterator[Snippet]:
    """Yield the snippets of a page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        mark = match["mark"] or ""
        line = text.count("\n", 0, match.start("code")) + 1
        if mark and not mark.startswith(MARKS):
            raise SnippetError(
                f"{page.name}:{line}: the mark {mark!r} must be 'repository' or 'skip, the reason'"
            )
        yield Snippet(page, line, match["language"], mark, match["code"])


def console_commands(code: str) -> str:
    """Return the commands of a console block as a script."""
    lines = code.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        return code
    commands, continued = [], False
    for line in lines:
        if line.startswith("$ ") or continued:
            commands.append(line.removeprefix("$ "))
            continued = line.endswith("\\")
    return "\n".join(commands)


def run_console(snippet: Snippet, folder: Path) -> None:
    """Run a console block with bash."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", console_commands(snippet.code)],
        cwd=folder,
        env=os.environ | {"PATH": path},
        check=False,
    )
    if done.returncode:
        raise SnippetError(f"exit code {done.returncode}")


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    """Work in a folder for a while (contextlib.chdir came with Python 3.11)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_python(snippet: Snippet, folder: Path, names: dict[str, Any]) -> None:
    """Run a Python block in the names of its page."""
    with _chdir(folder):
        if ">>> " not in snippet.code:
            blank = "\n" * (snippet.line - 1)  # so that a traceback gives the line of the page
            exec(compile(blank + snippet.code, str(snippet.page), "exec"), names)
            return
        test = doctest.DocTestParser().get_doctest(
            snippet.code, names, snippet.place, str(snippet.page), snippet.line
        )
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
        names.update(test.globs)
        if result.failed:
            raise SnippetError(f"{result.failed} of {result.attempted} examples differ")


def run_page(page: Path) -> int:
    """Run the snippets of a page; return how many failed."""
    failed = 0
    names: dict[str, Any] = {"__name__": "__snippet__"}
    with tempfile.TemporaryDirectory() as scratch:
        for snippet in snippets(page):
            if snippet.mark.startswith("skip"):
                print(f"skip  {snippet.place}: {snippet.mark.removeprefix('skip, ')}")
                continue
            folder = ROOT if snippet.mark == "repository" else Path(scratch)
            print(f"run   {snippet.place}", flush=True)
            started = time.perf_counter()
            try:
                if snippet.language == "console":
                    run_console(snippet, folder)
                else:
                    run_python(snippet, folder, names)
            except Exception as error:  # whatever a snippet raises is a failure of the snippet
                print(f"FAIL  {snippet.place}: {type(error).__name__}: {error}")
                failed += 1
            else:
                print(f"ok    {snippet.place} ({time.perf_counter() - started:.1f} s)")
    return failed


def main() -> int:
    """Run the pages that were asked for; the exit code says whether all snippets worked."""
    parser = argparse.ArgumentParser(description="Run the snippets of the documentation.")
    parser.add_argument("pages", nargs="*", type=Path, help="default: README.md and docs/**/*.md")
    pages = parser.parse_args().pages or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    failed = sum(run_page(page.resolve()) for page in pages)
    print(f"{failed} snippets failed" if failed else "every snippet works")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
