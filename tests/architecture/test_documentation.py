"""The snippets of the pages, without running them: `make docs` (tools/run_docs.py) runs them."""

import shlex

import pytest
from helpers.source import ROOT
from run_docs import SnippetError, console_commands, snippets

from awq_ref import cli

PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]
SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]


def commands(code):
    """The simple commands of a console snippet, as lists of words."""
    for line in console_commands(code).replace("\\\n", " ").splitlines():
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words:
                yield words


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.language == "python"], ids=lambda s: s.place)
def test_python_compiles(snippet):
    if ">>> " not in snippet.code:
        compile(snippet.code, snippet.place, "exec")


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.language == "console"], ids=lambda s: s.place)
def test_commands_of_ours_have_the_options_that_are_shown(snippet):
    for words in commands(snippet.code):
        if words[0].rpartition("/")[2] == "awq-ref" and not {"--help", "--version"} & set(words):
            cli._parser().parse_args(words[1:])  # exits, and so fails, on an unknown option


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.language == "console"], ids=lambda s: s.place)
def test_targets_of_make_that_are_shown_exist(snippet):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(snippet.code):
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert all(f"\n{target}:" in makefile for target in targets), targets


def write(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


def test_snippets_are_found_with_their_marks_and_lines(tmp_path):
    page = write(
        tmp_path,
        "# T\n\n```python\na = 1\n```\n\n<!-- snippet: skip, a reason -->\n```console\n$ x\n```\n\n```text\nno\n```\n",
    )
    first, second = snippets(page)
    assert (first.language, first.mark, first.code, first.line) == ("python", "", "a = 1\n", 4)
    assert (second.language, second.mark, second.code, second.line) == (
        "console",
        "skip, a reason",
        "$ x\n",
        9,
    )


def test_an_unknown_mark_is_an_error(tmp_path):
    with pytest.raises(SnippetError, match="'skp'"):
        list(snippets(write(tmp_path, "<!-- snippet: skp -->\n```python\n1\n```\n")))


@pytest.mark.parametrize(
    ("code", "commands"),
    [
        ("make demo\nmake test\n", "make demo\nmake test\n"),
        ("$ one \\\n  more\noutput\n$ two\n", "one \\\n  more\ntwo"),
    ],
)
def test_console_blocks_hold_commands_and_output(code, commands):
    assert console_commands(code) == commands
