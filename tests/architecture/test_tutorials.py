"""Every chapter of the course has the parts that a reader may rely on, and what it says of the package is true."""

import ast
import re

import pytest
from architecture.test_links import LINK, dead_end
from helpers.notebooks import CHAPTERS, cells, prose
from helpers.source import ROOT, python_files, relative

RESULT_LINES = 30  # until the first result, empty ones left out
SECTIONS = (
    "The equation beside its line",
    "The effect, seen",
    "Predict, then run",
    "Break it",
    "Check yourself",
    "Exercises",
)
# | [AWQ-3](../docs/equations.md#awq-3) | in words | `line of the package` | [function](../awq_ref/...py) |
ROW = re.compile(
    r"^\| \[(?P<id>[A-Z]+-\w+)\]\(\.\./docs/equations\.md#(?P<anchor>[\w-]+)\) \|.*\| `(?P<line>[^`]+)` \| "
    r"\[(?P<function>[\w.]+)\]\(\.\./(?P<file>[\w/]+\.py)\) \|$",
    flags=re.MULTILINE,
)
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=relative)


def code_after(chapter, heading):
    """The code between a heading and the next one."""
    code, inside = [], False
    for cell in cells(chapter):
        headings = re.findall(r"^## (.+)$", cell.text, flags=re.MULTILINE) if cell.is_markdown else []
        inside = headings[-1] == heading if headings else inside
        if inside and not cell.is_markdown:
            code.append(cell)
    return code


def statements_of(path):
    """The source of a file without docstrings and comments, as it stands there."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text(encoding="utf-8"))
    return re.sub(r"#.*$", "", text, flags=re.MULTILINE)


def asserts(code):
    return [node for cell in code for node in ast.walk(ast.parse(cell.text)) if isinstance(node, ast.Assert)]


def test_chapters_are_numbered_without_a_gap():
    assert [path.name[:2] for path in CHAPTERS] == [f"{number:02}" for number in range(len(CHAPTERS))]


@each_chapter
def test_a_chapter_asks_a_question_and_has_every_part_in_order(chapter):
    first = cells(chapter)[0]
    assert first.is_markdown
    title = re.match(r"# (\d\d) \S", first.text)
    assert title, "the title begins with the number"
    assert title[1] == chapter.name[:2]
    question = re.search(r"^\*\*Question\.\*\* (?:.|\n)+\?", first.text, flags=re.MULTILINE)
    assert question, "the first cell asks a question"
    assert tuple(re.findall(r"^## (.+)$", prose(chapter), flags=re.MULTILINE)) == SECTIONS


@each_chapter
def test_the_first_result_comes_soon(chapter):
    lines = chapter.read_text(encoding="utf-8").splitlines()[cells(chapter)[0].line :]
    written = [line.strip() for line in lines if line.strip() and not line.startswith("# %%")]
    first = next(number for number, line in enumerate(written, start=1) if line.startswith("print("))
    assert first <= RESULT_LINES


@each_chapter
def test_equations_stand_beside_lines_that_the_package_has(chapter):
    rows = list(ROW.finditer(prose(chapter)))
    assert rows, "no row of the table of equations was understood"
    for row in rows:
        assert row["id"].lower() == row["anchor"]
        source = statements_of(ROOT / row["file"])
        assert row["line"] in source, f"{row['file']} has no {row['line']!r}"
        assert re.search(rf"\b(def|class) {row['function'].rpartition('.')[2]}\b", source), row["function"]


@each_chapter
def test_links_lead_somewhere(chapter):
    targets = [target for target in LINK.findall(prose(chapter)) if "://" not in target]
    dead = [dead_end(chapter.parent, target) for target in targets]
    assert not [end for end in dead if end]


@each_chapter
def test_the_effect_is_drawn(chapter):
    assert "plt.subplots" in "\n".join(cell.text for cell in code_after(chapter, "The effect, seen"))
    assert "plt.show" not in chapter.read_text(encoding="utf-8"), "a script would wait for the window"


@each_chapter
@pytest.mark.parametrize("heading", ["Predict, then run", "Break it"])
def test_predictions_and_symptoms_are_asserted(chapter, heading):
    assert asserts(code_after(chapter, heading))


@each_chapter
def test_the_check_accepts_the_right_one_and_rejects_a_wrong_one(chapter):
    code = code_after(chapter, "Check yourself")
    slot = "\n".join(cell.text for cell in code if not cell.is_folded)
    assert "NotImplementedError" in slot, "the reader has a place to write"
    assert "check_function(" in slot, "and is told what the vectors say"
    found = [ast.unparse(node.test) for node in asserts([cell for cell in code if cell.is_folded])]
    assert any(text.endswith(".is_right") and not text.startswith("not ") for text in found)
    assert any(text.startswith("not ") and text.endswith(".is_right") for text in found)


@each_chapter
def test_exercises_have_folded_solutions_that_run(chapter):
    numbered = re.findall(r"^(\d)\. ", prose(chapter).partition("## Exercises")[2], flags=re.MULTILINE)
    solutions = [cell.text for cell in code_after(chapter, "Exercises") if cell.is_folded]
    assert len(numbered) >= 2
    for number in numbered:
        assert any(re.search(rf"^# {number}\. ", text, flags=re.MULTILINE) for text in solutions), number


@each_chapter
def test_a_chapter_defines_nothing_that_the_package_has(chapter):
    public = {
        node.name
        for path in python_files("awq_ref")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    tree = ast.parse(chapter.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not own & public


@each_chapter
def test_the_list_of_chapters_has_it(chapter):
    assert f"({chapter.name})" in (ROOT / "tutorials" / "README.md").read_text(encoding="utf-8")
