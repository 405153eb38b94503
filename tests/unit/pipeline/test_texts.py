"""Text to windows: files, strings, ids; what is wrong is said."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_checkpoint import VOCAB_SIZE, write_tokenizer

from awq_ref.errors import CorpusError, DtypeError, RangeError, ShapeError
from awq_ref.pipeline.texts import calibration_windows, evaluation_tokens, read_text
from awq_ref.text import Tokenizer

OPTIONS = {"samples": 2, "seq_len": 4, "vocab_size": VOCAB_SIZE}


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path)
    return Tokenizer.load(tmp_path)


def test_a_string_is_text_and_a_path_is_a_file(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("abcdefgh", encoding="utf-8")
    from_text, seen_text = calibration_windows(tokenizer, "abcdefgh", **OPTIONS)
    from_file, seen_file = calibration_windows(tokenizer, [tmp_path / "a.txt"], **OPTIONS)
    assert from_text.dtype == np.int64
    assert from_text.shape == (2, 4)
    np.testing.assert_array_equal(from_text, from_file)
    assert tokenizer.decode(from_text.ravel()) == "abcdefgh"
    assert seen_file == seen_text | {"source": "a.txt"}


def test_ids_are_used_as_they_are_and_fingerprinted():
    ids = np.array([[1, 2, 3]], dtype=np.int32)
    windows, seen = calibration_windows(None, ids, **OPTIONS)
    np.testing.assert_array_equal(windows, [[1, 2, 3]])
    # The digest is of the ids as little-endian 64-bit integers.
    wanted = hashlib.sha256(bytes([1, *[0] * 7, 2, *[0] * 7, 3, *[0] * 7])).hexdigest()
    assert seen == {"source": "token ids", "windows": 1, "seq_len": 3, "sha256": wanted}


def test_the_standard_library_is_the_default(tokenizer):
    windows, seen = calibration_windows(tokenizer, None, **OPTIONS)
    assert windows.shape == (2, 4)
    assert seen["source"] == "Python standard library"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            np.array([[0, VOCAB_SIZE]]),
            RangeError,
            rf"\[0, {VOCAB_SIZE - 1}\]; got {VOCAB_SIZE} at position \(0, 1\)",
        ),
        (np.array([[0, -1]]), RangeError, "got -1"),
        (np.array([0, 1]), ShapeError, "must have shape"),
        (np.array([[0.5]]), DtypeError, "must be integers; got float64"),
        ("abc", CorpusError, "4"),
        ([], CorpusError, "got 0"),
        (Path("/nonexistent/file.txt"), CorpusError, "readable text file"),
    ],
)
def test_bad_calibration_is_refused(tokenizer, given, error, words):
    with pytest.raises(error, match=words):
        calibration_windows(tokenizer, given, **OPTIONS)


def test_text_without_a_tokenizer_is_refused():
    with pytest.raises(CorpusError, match=r"tokenizer\.json, which is missing"):
        calibration_windows(None, "text", **OPTIONS)


def test_read_text_says_what_is_wrong(tmp_path):
    (tmp_path / "latin1.txt").write_bytes("caf\xe9 au lait".encode("latin-1"))
    with pytest.raises(CorpusError, match="byte 0xe9 at offset 3"):
        read_text(tmp_path / "latin1.txt")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(CorpusError, match="it is empty"):
        read_text(tmp_path / "empty.txt")


def test_evaluation_counts_bytes_and_honours_the_limit(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("na\u00efve", encoding="utf-8")
    ids, source, n_bytes = evaluation_tokens(tokenizer, tmp_path / "a.txt")
    assert (len(ids), source, n_bytes) == (6, "a.txt", 6)
    ids, source, n_bytes = evaluation_tokens(tokenizer, None, limit=500)
    assert len(ids) == 500
    assert "held-out" in source
