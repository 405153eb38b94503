"""A tiny model to spoil, a text to calibrate it on, and a hub that has such a model."""

import shutil
import time
from pathlib import Path

import pytest
from helpers.hub_server import NAME, UNWANTED_FILES, HubServer, hub_at
from helpers.tiny_checkpoint import write_tiny_llama

TEXT = "def add(left, right):\n    return left + right\n" * 60  # some 2800 tokens, one per byte
SIDE_FILES = {
    "README.md": "---\nlicense: apache-2.0\n---\n",
    "LICENSE": "do as you like",
    "generation_config.json": "{}",
}


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


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A tiny model with everything that lies beside models on the hub."""
    folder = tmp_path_factory.mktemp("published") / "tiny"
    write_tiny_llama(folder)
    for name, text in SIDE_FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in UNWANTED_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never to be asked for")
    return folder


@pytest.fixture(scope="session")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "sharded"
    write_tiny_llama(folder, shards=3)
    return folder


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def hub(monkeypatch, home, published):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library waits before it tries again
    with HubServer() as server, hub_at(monkeypatch, server, home):
        server.put(NAME, published)
        yield server
