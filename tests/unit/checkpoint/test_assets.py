"""The embedded model is the one that was shipped."""

import hashlib

import pytest

from awq_ref.checkpoint import demo_model_path, verify_folder
from awq_ref.errors import FormatError


@pytest.fixture
def asset(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "model.sha256").write_text(f"{digest}  a.txt\n")
    return tmp_path / "model", tmp_path / "model.sha256"


def test_the_right_files_pass(asset):
    verify_folder(*asset)


def test_other_contents(asset):
    (asset[0] / "a.txt").write_bytes(b"abd")
    with pytest.raises(FormatError, match=r"a\.txt: its contents are not those that were shipped"):
        verify_folder(*asset)


def test_a_missing_file(asset):
    (asset[0] / "a.txt").unlink()
    with pytest.raises(FormatError, match=r"a\.txt: is missing, though model\.sha256 lists it"):
        verify_folder(*asset)


def test_a_missing_manifest(asset):
    asset[1].unlink()
    with pytest.raises(FormatError, match=r"model\.sha256: is missing"):
        verify_folder(*asset)


@pytest.mark.parametrize("line", ["abc  a.txt", "a" * 64 + "  ../a.txt", "a" * 64, "a" * 64 + " a.txt"])
def test_a_malformed_manifest(asset, line):
    asset[1].write_text(line + "\n")
    with pytest.raises(FormatError, match="each line must be a SHA-256, two spaces and a file name"):
        verify_folder(*asset)


def test_the_embedded_model_is_listed_whole():
    folder = demo_model_path()
    lines = (folder.parent / "demo_model.sha256").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert found == listed
