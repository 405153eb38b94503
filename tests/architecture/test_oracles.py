"""What the vectors expect never comes from the code that is tested with them."""

import ast

import pytest
from helpers.source import ROOT, parse, python_files, relative

ROOM = ROOT / "awq_ref" / "vectors"
BACKENDS = {"backend.py", "backend_model.py", "backend_search.py"}
FAST = ("pack", "quantize", "matmul", "search", "model", "calibration")


def imported(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
    "path", [p for p in python_files("awq_ref/vectors") if p.name not in BACKENDS], ids=relative
)
def test_only_the_backend_knows_the_fast_paths(path):
    fast = {f"awq_ref.{room}" for room in FAST}
    assert not [name for name in imported(path) if ".".join(name.split(".")[:2]) in fast]
    assert not {f"awq_ref.vectors.{name.removesuffix('.py')}" for name in BACKENDS} & set(imported(path))


ORACLES = [
    *sorted(ROOM.glob("oracle_*.py")),
    *(ROOM / f"{name}.py" for name in ("addresses", "rounding", "draws", "running")),
]


@pytest.mark.parametrize("path", ORACLES, ids=relative)
def test_oracles_are_plain_python(path):
    allowed = {"awq_ref.vectors", "awq_ref.errors"}
    names = {".".join(name.split(".")[:2]) for name in imported(path)}
    assert "numpy" not in names
    assert {name for name in names if name.startswith("awq_ref")} <= allowed


@pytest.mark.parametrize("path", python_files("tests/mutants"), ids=relative)
def test_the_textbook_backend_imports_nothing_of_the_package(path):
    if path.name.startswith(("textbook", "mutant", "bits", "numbers", "models")):
        assert not [name for name in imported(path) if name.startswith("awq_ref")]
