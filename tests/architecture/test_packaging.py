"""What ships, and what must not stand in it."""

import ast
import hashlib
import re
import sys

import pytest
from helpers.source import ROOT, parse, python_files, relative, tracked_files

ASSETS = ROOT / "awq_ref" / "assets"
ASSET_BYTES = 12_000_000
# Folders of one person's or one machine's disk; spelled so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.])/" + r"(work|root|home/\w+|Users/\w+|mnt|workspace)/" + r"\w")
# The name on the package index differs from the import's name only by hyphens.
DECLARED = re.compile(r'^ {4}"([a-z0-9-]+)[><=]', flags=re.MULTILINE)
OPTIONAL = {"jinja2", "matplotlib", "tqdm"}  # two extras; tqdm comes with huggingface-hub


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_tracked_file_names_a_path_of_a_machine():
    found = [
        f"{relative(path)}: {match[0]}"
        for path in tracked_files()
        for match in MACHINE_PATH.finditer(text_of(path))
    ]
    assert not found


def test_every_library_that_the_package_imports_is_declared():
    project = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[0]
    )
    declared = {name.replace("-", "_") for name in DECLARED.findall(project)}
    assert {"numpy", "safetensors", "tokenizers", "huggingface_hub", "threadpoolctl"} == declared
    imported = set()
    for path in python_files("awq_ref"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"awq_ref"} <= declared | OPTIONAL


def test_types_are_published():
    assert (ROOT / "awq_ref" / "py.typed").read_bytes() == b""


def test_the_embedded_model_is_what_its_checksums_say():
    lines = (ASSETS / "demo_model.sha256").read_text(encoding="utf-8").splitlines()
    listed = {name: checksum for checksum, name in (line.split(maxsplit=1) for line in lines)}
    files = {path.name: path for path in (ASSETS / "demo_model").iterdir()}
    assert set(listed) == set(files)
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name


def test_the_embedded_model_is_small_and_complete():
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= ASSET_BYTES
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in files
    }


@pytest.mark.parametrize("path", tracked_files(), ids=relative)
def test_tracked_files_are_small(path):
    assert path.stat().st_size <= 1_000_000 or path.is_relative_to(ASSETS)
