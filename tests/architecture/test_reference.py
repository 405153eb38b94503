"""The API reference holds every public name, and a docstring says what a caller must know.

The reference is made from docstrings (`tools/site_pages.py`). By rule:

- a function that takes arrays, or anything that must be explained, has a section Parameters that names its arguments;
  an array has its dtype and its shape there, or in the first lines;
- a function that raises one of the project's errors by itself has a section Raises;
- a docstring with an equation names its source.

Exempt: a function whose arguments are all plain values or records and whose first line says what they are; a class,
whose fields stand in columns.
"""

import ast
import importlib
import inspect
import re

import pytest
import site_docstrings
import site_pages
from helpers.source import ROOT, module_name, parse, python_files

PAGES = site_pages.api_pages()
MODULES = (*site_pages.ROOMS, *site_pages.MODULES)
ARRAYS = re.compile(r"\b(F16|F32|F64|I32|I64|U8|U32|Bool|AnyArray|AnyFloat)\b")
SHAPE = re.compile(r"shape|\(\w*,|\([\w, .*/+-]+\)|\d-D|scalar|any")


def public_functions():
    """(module, name) of every public function of the reference, once."""
    found = {}
    for module in MODULES:
        for name in site_pages.public_names(module):
            thing = getattr(importlib.import_module(module), name)
            if inspect.isfunction(thing):
                found[thing.__module__, thing.__name__] = thing
    return found


FUNCTIONS = public_functions()


def node_of(function):
    path = ROOT / inspect.getsourcefile(inspect.unwrap(function))
    return next(
        n for n in ast.walk(parse(path)) if isinstance(n, ast.FunctionDef) and n.name == function.__name__
    )


def raises_itself(node):
    """Raises an error, or calls one of the checks that do, outside of functions within it."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Raise) and inner.exc is not None:
            return "AssertionError" not in ast.unparse(inner.exc)  # that is for what cannot be
        called = inner.func if isinstance(inner, ast.Call) else None
        if isinstance(called, ast.Name) and called.id.startswith("require_"):
            return True
    return False


def arrays_of(node):
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a.arg for a in arguments if a.annotation and ARRAYS.search(ast.unparse(a.annotation))]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    page = PAGES[f"api/{module}.rst"]
    missing = [
        n for n in site_pages.public_names(module) if not re.search(rf"\.{n}(`|$)", page, flags=re.MULTILINE)
    ]
    assert not missing


def test_every_room_is_in_the_reference():
    exporting = {
        module_name(p)
        for p in python_files("awq_ref")
        if p.name == "__init__.py" and "__all__" in p.read_text()
    }
    assert exporting - {"awq_ref.paper"} <= set(MODULES)


@pytest.mark.parametrize("key", FUNCTIONS, ids=".".join)
def test_what_a_function_takes_and_raises_is_said(key):
    function = FUNCTIONS[key]
    doc, node = inspect.getdoc(function) or "", node_of(function)
    before, found = site_docstrings.sections(doc)
    said = "\n".join([*before, *found.get("Parameters", [])])
    lacking = [name for name in arrays_of(node) if not re.search(rf"\b{name}\b", said)]
    assert not lacking, f"arrays that the docstring does not name: {lacking}"
    for line in found.get("Parameters", []):
        name, colon, kind = line.partition(" : ")
        if colon and not line.startswith(" ") and set(name.split(", ")) & set(arrays_of(node)):
            assert SHAPE.search(kind) or {"as", "callable", "mapping", "sequence"} & set(kind.split()), (
                f"{name}: its shape; got {kind!r}"
            )
    assert not raises_itself(node) or "Raises" in found or "Error" in doc, "a section Raises"


@pytest.mark.parametrize("key", FUNCTIONS, ids=".".join)
def test_an_equation_has_its_source(key):
    doc = inspect.getdoc(FUNCTIONS[key]) or ""
    assert not re.search(r"^Equation \[", doc, flags=re.MULTILINE) or re.search(
        r"^Sources?:", doc, flags=re.MULTILINE
    )


def test_a_docstring_of_the_house_becomes_markup_that_keeps_its_columns():
    doc = (
        "Return it, |x| times `y`.\n\nEquation [AWQ-1]  a = b * c\n    b  -> x     (out,)\n"
        "Source: paper; docs/equations.md#awq-1.\n\n"
        "Parameters\n----------\nx : float32 array, shape (out,)\n    Of *any* sign.\n"
    )
    lines = site_docstrings.as_restructured(doc)
    assert r"Return it, \|x\| times \ :code:`y`\ ." in lines
    assert "   Equation [AWQ-1]  a = b * c" in lines and "       b  -> x     (out,)" in lines
    assert "**x** : float32 array, shape (out,)" in lines
    assert r"   Of \*any\* sign." in lines
    assert any("../docs/equations.html#awq-1" in line for line in lines)
