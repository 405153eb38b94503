"""A tiny model to spoil, and a text to calibrate it on."""

import shutil
from pathlib import Path

import pytest
from helpers.tiny_checkpoint import write_tiny_llama

TEXT = "def add(left, right):\n    return left + right\n" * 60  # some 2800 tokens, one per byte


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "tiny"
    write_tiny_llama(folder)
    (folder.parent / "text.txt").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.fixture
def model(pristine, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture
def text(pristine):
    return pristine.parent / "text.txt"
