"""What is looked up on the hub, and what is not. How a model comes from there: tests/end_to_end/test_hub.py."""

import sys
from pathlib import Path

import pytest

from awq_ref.checkpoint import Checkpoint, model_name, resolve_model
from awq_ref.checkpoint.hub import UNWANTED, WANTED, WEIGHTS
from awq_ref.errors import FormatError


@pytest.fixture(autouse=True)
def no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import of it raises


def test_a_path_that_exists_is_itself_whatever_it_looks_like(tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/model") == Path("org/model")
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_path_object_is_never_a_name():
    assert resolve_model(Path("org/model")) == Path("org/model")
    with pytest.raises(FormatError, match=r"org.model: there is no such folder\. .* name of a model on the"):
        Checkpoint.open(Path("org/model"))


@pytest.mark.parametrize(
    "name", ["org/model", "gpt2", "a/b@main", "a/b@refs/pr/1", "A_b.c-d/E.2", "a" * 96, "a@v1.0"]
)
def test_a_possible_name_is_looked_up(name):
    with pytest.raises(ImportError):
        resolve_model(name)


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c",
        "-a/b",
        "a-/b",
        "a--b",
        "a/b.",
        "a..b",
        "a.git",
        "a" * 97,
        "a/b@",
        "a@b@c",
        "a@/b",
        "a\\b",
        "é",
    ],
)
def test_what_cannot_be_a_name_is_not(name):
    with pytest.raises(FormatError, match="no such folder, and it cannot be a name on the Hugging Face hub"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("cache/models--org--model/snapshots/0123", "org/model"),
        ("cache/models--gpt2/snapshots/0123", "gpt2"),
        ("cache/models--org--model/blobs/0123", "0123"),
        ("here/my-model", "my-model"),
    ],
)
def test_the_name_of_a_folder(tmp_path, folder, name):
    assert model_name(tmp_path / folder) == name


def test_no_pattern_lets_code_or_a_pickle_through():
    assert not any(pattern.endswith(("*", "*.py", ".bin", ".pt")) for pattern in WEIGHTS)
    assert [pattern for pattern in WANTED if pattern.endswith("*")] == ["LICENSE*", "NOTICE*"]
    assert "*/*" in UNWANTED
