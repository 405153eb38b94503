"""What a reader may rely on in every file, beyond what ruff checks (`make lint`)."""

import ast
import importlib
import inspect

import pytest
from helpers.source import ROOT, definitions, module_name, parse, python_files, relative

FILE_LINES = 300  # the aim is 250
BODY_LINES = 45  # without signature and docstring; the aim is 40, the median 12
# The number of positional arguments with which a dtype has been named; None: only by keyword.
ALLOCATIONS = {"zeros": 2, "empty": 2, "ones": 2, "full": 3, "arange": None, "linspace": None, "eye": None}

PACKAGE = python_files("awq_ref")
EVERYTHING = python_files("awq_ref", "tests", "benchmarks", "tools", "tutorials")


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
    return (node.end_lineno or 0) - (first or 0)


def without_dtype(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    module, name = node.func.value, node.func.attr
    if not (isinstance(module, ast.Name) and module.id == "np" and name in ALLOCATIONS):
        return False
    positional = ALLOCATIONS[name]
    by_position = positional is not None and len(node.args) >= positional
    return not by_position and all(keyword.arg != "dtype" for keyword in node.keywords)


@pytest.mark.parametrize("path", python_files("awq_ref", "tests", "benchmarks", "tutorials"), ids=relative)
def test_a_file_is_short_enough_to_read(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= FILE_LINES, f"{lines} lines: split it by what it does"


@pytest.mark.parametrize("path", EVERYTHING, ids=relative)
def test_functions_are_short(path):
    functions = (n for n in ast.walk(parse(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    long = {f"{node.name}, line {node.lineno}": body_lines(node) for node in functions}
    long = {name: lines for name, lines in long.items() if lines > BODY_LINES}
    assert not long


@pytest.mark.parametrize("path", python_files("awq_ref", "tests/helpers", "benchmarks"), ids=relative)
def test_allocations_name_their_dtype(path):
    lines = [node.lineno for node in ast.walk(parse(path)) if without_dtype(node)]
    assert not lines, f"lines {lines}: NumPy would choose float64 or the platform's integer"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_public_functions_and_classes_are_documented(path):
    tree = parse(path)
    bare = [
        name
        for name, node in definitions(tree)
        if "." not in name and not name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not bare
    assert path.stat().st_size == 0 or ast.get_docstring(tree), "the module says what it does"


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.name == "__init__.py"], ids=relative)
def test_exported_names_exist_and_are_sorted_out(path):
    module = importlib.import_module(module_name(path))
    names = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names))
    for name in names:
        thing = getattr(module, name)
        described = inspect.isclass(thing) or inspect.isroutine(thing)
        assert not described or thing.__doc__, f"{name} has no docstring"


def test_names_of_the_package_stand_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    names = importlib.import_module("awq_ref").__all__
    assert not [name for name in names if f"`{name}" not in index]


def silences_warnings(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and any(
        "errstate" in ast.unparse(item.context_expr) for item in node.items
    )


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_errstate_says_why(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = []
    for node in filter(silences_warnings, ast.walk(parse(path))):
        header = lines[node.lineno - 2 : node.body[0].lineno - 1]  # with the line before it
        if not any("#" in line for line in header):
            bare.append(node.lineno)
    assert not bare, f"lines {bare}: a silenced warning needs a comment that names the case"
