"""docs/equations.md, the code and the tests name the same equations and laws.

Each section `## [AWQ-1] Title` of the page has a line `Code: `awq_ref.room.module.name`, ...` and a line
`Test: `tests/...py::test_name`, ...`; each law `### P-ROUND Title` has the `Test:` line.
"""

import ast
import re

import pytest
from helpers.source import ROOT, Definition, definitions, module_name, parse, python_files, relative

EQUATION = re.compile(r"\[((?:AWQ|GPTQ|LLM|EVAL)-\d+)\]")
LAW = re.compile(r"\b(P-[A-Z]+)\b")
PAGE = ROOT / "docs" / "equations.md"


def sections() -> dict[str, str]:
    """Id -> text of its section of the page."""
    found = {}
    for section in re.split(r"^##+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        match = EQUATION.match(section) or LAW.match(section)
        if match:
            assert match[1] not in found, f"{match[1]} stands twice"
            found[match[1]] = section
    return found


def named(section: str, label: str) -> list[str]:
    line = re.search(rf"^{label}: (.+(?:\n {{2,}}.+)*)$", section, flags=re.MULTILINE)
    return re.findall(r"`([^`]+)`", line[1]) if line else []


def code(name: str) -> Definition | None:
    """The node of a dotted name such as awq_ref.model.decoder.Decoder.forward."""
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        path = ROOT.joinpath(*parts[:split]).with_suffix(".py")
        if path.exists():
            return dict(definitions(parse(path))).get(".".join(parts[split:]))
    return None


def ids_in(pattern: re.Pattern[str], *folders: str) -> dict[str, set[str]]:
    """Id -> files that name it."""
    found: dict[str, set[str]] = {}
    for path in python_files(*folders):
        for name in pattern.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(relative(path))
    return found


SECTIONS = sections()
EQUATIONS = [name for name in SECTIONS if not name.startswith("P-")]
LAWS = [name for name in SECTIONS if name.startswith("P-")]


def test_every_equation_named_in_the_code_stands_on_the_page():
    unknown = {name: files for name, files in ids_in(EQUATION, "awq_ref").items() if name not in EQUATIONS}
    assert not unknown


def test_every_law_named_in_a_test_stands_on_the_page():
    unknown = {name: files for name, files in ids_in(LAW, "tests").items() if name not in LAWS}
    assert not unknown


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_equation_names_functions_that_carry_its_id(equation):
    names = named(SECTIONS[equation], "Code")
    assert names, "a line `Code: ...` names the functions"
    for name in names:
        node = code(name)
        assert node is not None, f"{name} does not exist"
        path = next(p for p in python_files("awq_ref") if node in dict(definitions(parse(p))).values())
        assert f"[{equation}]" in path.read_text(encoding="utf-8"), (
            f"the file of {name} does not name [{equation}]"
        )


@pytest.mark.parametrize("name", SECTIONS)
def test_an_equation_or_law_names_tests_that_exist(name):
    tests = named(SECTIONS[name], "Test")
    assert tests, "a line `Test: ...` names the tests"
    for test in tests:
        path, _, function = test.partition("::")
        assert (ROOT / path).exists(), f"{path} does not exist"
        assert function in dict(definitions(parse(ROOT / path))), f"{path} has no {function}"


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_named_in_the_docstring_of_its_test(law):
    for test in named(SECTIONS[law], "Test"):
        path = test.partition("::")[0]
        assert law in (ROOT / path).read_text(encoding="utf-8"), f"{path} does not name {law}"


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_says_what_the_letters_are(name):
    if not name.startswith("P-"):
        assert "| symbol |" in SECTIONS[name], "a legend symbol -> variable, as a table"


CARRIED = re.compile(r"^ *Equation \[((?:AWQ|GPTQ|LLM|EVAL)-\d+)\]", flags=re.MULTILINE)


def carriers() -> dict[str, set[str]]:
    """Equation -> dotted names of the functions and classes whose docstring states it."""
    found: dict[str, set[str]] = {}
    for path in python_files("awq_ref"):
        for name, node in definitions(parse(path)):
            for equation in CARRIED.findall(ast.get_docstring(node) or ""):
                found.setdefault(equation, set()).add(f"{module_name(path)}.{name}")
    return found


@pytest.mark.parametrize(("equation", "names"), sorted(carriers().items()))
def test_whoever_states_an_equation_stands_with_it_on_the_page(equation, names):
    on_the_page = set(named(SECTIONS[equation], "Code"))
    assert not names - on_the_page, "the line `Code: ...` names every function that states the equation"
