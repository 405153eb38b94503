"""The output folder: whole or not at all."""

import errno
import os
import re
import sys

import numpy as np
import pytest

from awq_ref.checkpoint import ShardWriter, copy_side_files, new_folder, write_json, write_text, writer
from awq_ref.errors import FormatError, OutputError


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "out"
    with new_folder(target) as folder:
        (folder / "a.txt").write_text("a")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b")
        assert not target.exists()
        assert re.fullmatch(r"\.out\.partial-[0-9a-f]{8}", folder.name)
        assert folder.parent == tmp_path
    assert entries(tmp_path) == ["out"]
    assert entries(target) == ["a.txt", "sub"]
    assert (target / "sub" / "b.txt").read_text() == "b"


def test_folders_above_are_made(tmp_path):
    with new_folder(str(tmp_path / "x" / "y" / "out")):
        pass
    assert (tmp_path / "x" / "y" / "out").is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_the_folder_has_usual_permissions(tmp_path):
    with new_folder(tmp_path / "out"):
        pass
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_exists_is_left_as_it_is(tmp_path, kind):
    target = tmp_path / "out"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="out: exists already and is left as it is"), new_folder(target):
        pytest.fail("the block must not run")
    assert entries(tmp_path) == ["out"]


def test_a_folder_that_appears_meanwhile_is_left_as_it_is(tmp_path):
    with pytest.raises(OutputError, match="exists already"), new_folder(tmp_path / "out") as folder:
        (folder / "mine").write_text("")
        (tmp_path / "out").mkdir()
    assert entries(tmp_path) == ["out"]
    assert entries(tmp_path / "out") == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, FormatError, ZeroDivisionError])
def test_nothing_is_left_when_the_block_is_broken_off(tmp_path, error):
    with pytest.raises(error, match="in the middle"), new_folder(tmp_path / "x" / "out") as folder:
        (folder / "half.txt").write_text("half")
        raise error("in the middle")
    assert entries(tmp_path) == []


def test_folders_above_that_others_use_stay(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "x" / "out"):
        (tmp_path / "x" / "theirs").write_text("")
        raise KeyboardInterrupt
    assert entries(tmp_path / "x") == ["theirs"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_inside_the_block(tmp_path, code):
    with (
        pytest.raises(OutputError, match="out: cannot be written: the disk is full"),
        new_folder(tmp_path / "out") as folder,
    ):
        (folder / "half.txt").write_text("half")
        raise OSError(code, os.strerror(code))
    assert entries(tmp_path) == []


def test_a_full_disk_while_syncing(tmp_path, monkeypatch):
    def sync(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(writer, "sync", sync)
    with pytest.raises(OutputError, match="the disk is full"), new_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert entries(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_real_limit_on_file_size(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with (
            pytest.raises(OutputError, match="the disk is full"),
            new_folder(tmp_path / "out") as folder,
            ShardWriter(folder) as shard_writer,
        ):
            shard_writer.add("big", np.zeros(50_000, dtype=np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert entries(tmp_path) == []


def test_an_interrupt_while_a_tensor_is_written(tmp_path, monkeypatch):
    def interrupted(file, data):
        raise KeyboardInterrupt

    monkeypatch.setattr("awq_ref.checkpoint.shards.write_all", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        new_folder(tmp_path / "out") as folder,
        ShardWriter(folder) as shard_writer,
    ):
        shard_writer.add("x", np.zeros(3, dtype=np.float32))
    assert entries(tmp_path) == []


def test_other_errors_of_the_block_are_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError, match="input.txt"), new_folder(tmp_path / "out"):
        (tmp_path / "input.txt").read_text()
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot be written: .*Choose a folder that you may write to"),
        new_folder(tmp_path / "file" / "out"),
    ):
        pytest.fail("the block must not run")


SIDE_FILES = [
    "LICENSE",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
]
OTHERS = [
    "config.json",
    "tokenization_x.py",
    "tokenizer_x.py",
    "model.safetensors",
    "pytorch_model.bin",
    "README.md",
]


def test_side_files_are_copied_and_nothing_else(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in SIDE_FILES + OTHERS:
        (source / name).write_bytes(name.encode())
    assert copy_side_files(source, target) == SIDE_FILES
    assert entries(target) == SIDE_FILES
    assert all((target / name).read_bytes() == name.encode() for name in SIDE_FILES)


def test_links_are_followed_as_in_the_cache_of_the_hub(tmp_path):
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "tokenizer.json").symlink_to(tmp_path / "blob")
    (tmp_path / "target").mkdir()
    copy_side_files(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target" / "tokenizer.json").is_symlink()
    assert (tmp_path / "target" / "tokenizer.json").read_text() == "{}"


def test_a_side_file_that_cannot_be_copied(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(OutputError, match=r"tokenizer\.json: cannot be written"):
        copy_side_files(tmp_path, tmp_path / "none")


def test_text_and_json_are_utf8_with_plain_newlines(tmp_path):
    write_text(tmp_path / "a.txt", "ä\n")
    write_json(tmp_path / "a.json", {"b": "ä", "a": [1]})
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\n"
    assert (tmp_path / "a.json").read_bytes() == '{\n  "b": "ä",\n  "a": [\n    1\n  ]\n}\n'.encode()


def test_text_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: No such file or directory"):
        write_text(tmp_path / "none" / "a.txt", "a")
