"""Who may import whom. The allowed edges are ALLOWED; a new room is a new row."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.source import module_name, parse, python_files

# The base: each may import the ones before it.
BASE = ("errors", "dtypes", "buffers", "threads", "turns", "checks", "spec")
# room -> rooms that it may import, beside the base and itself
ALLOWED: dict[str, set[str]] = {
    "text": set(),
    "model": set(),
    "calibration": set(),
    "search": set(),
    "quantize": set(),
    "pack": set(),
    "matmul": {"quantize"},
    "checkpoint": set(),
    "report": {"search"},
    "vectors": {"quantize", "pack", "matmul", "search", "calibration", "model"},
}
# The only modules that know all rooms; each may import the ones before it. `__init__` holds the public names, which
# it loads on first use, and the version.
TOP = ("__init__", "pipeline", "explain", "paper", "bench", "demo", "chat", "commands", "cli", "__main__")
ROOMS = set(ALLOWED)
ALLOWED |= {name: ROOMS | set(TOP[:place]) for place, name in enumerate(TOP)}
ALLOWED |= {name: set(BASE[:place]) for place, name in enumerate(BASE)}

NUMPY_ALONE = ("quantize", "pack", "matmul", "search", "vectors")
FILES = python_files("awq_ref")


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree that runs: what stands under `if TYPE_CHECKING:` never does."""
    for node in ast.iter_child_nodes(tree):
        if not is_type_checking(node):
            yield node
            yield from statements(node)


def imported_modules(path: Path) -> set[str]:
    """Every awq_ref module that a file names in an import, wherever in the file it stands."""
    modules = {module_name(file) for file in FILES}
    found = set()
    for node in statements(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, not relative ones"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in names}
    return {name for name in found if name.split(".")[0] == "awq_ref"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_module_imports_only_what_its_room_may(path):
    room = room_of(module_name(path))
    assert room in ALLOWED, f"{room} is a new room: add its row to ALLOWED"
    allowed = ALLOWED[room] | {room} | (set() if room in BASE else set(BASE))
    imported = {room_of(module) for module in imported_modules(path)}
    assert imported <= allowed, f"{room} may not import {sorted(imported - allowed)}"


def test_there_is_no_circle():
    graph = {module_name(path): imported_modules(path) - {module_name(path)} for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_rows_are_rooms_that_exist():
    rooms = {room_of(module_name(path)) for path in FILES}
    assert set(ALLOWED) == rooms


@pytest.mark.parametrize("room", NUMPY_ALONE)
def test_the_maths_imports_with_numpy_alone(room):
    script = f"""
import sys
class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "awq_ref"):
            raise ImportError(f"{{name}} is neither NumPy nor the standard library")
sys.meta_path.insert(0, OnlyNumPy())
import awq_ref.{room}
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_leaves_the_heavy_libraries_alone():
    heavy = ("torch", "transformers", "huggingface_hub", "jinja2", "matplotlib")
    script = f"import sys, awq_ref; sys.exit(', '.join(n for n in {heavy!r} if n in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"import awq_ref brings in {done.stderr}"
