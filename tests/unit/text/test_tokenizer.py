import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.errors import FormatError, RangeError
from awq_ref.text import Tokenizer

BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def byte_level() -> tokenizers.Tokenizer:
    """A token per byte, a merged token "ab", <s> put before a text, </s> known."""
    vocabulary = {token: i for i, token in enumerate([*BYTES, "ab"])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b")]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "</s>"])
    start = inner.token_to_id("<s>")
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    return inner


@pytest.fixture
def folder(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_ids_with_and_without_special_tokens(folder):
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("abc")
    start, merged, c = 257, 256, BYTES.index("c")
    assert ids.dtype == np.int64
    assert ids.tolist() == [start, merged, c]
    assert tokenizer.encode("abc", add_special_tokens=False).tolist() == [merged, c]
    assert tokenizer.encode("", add_special_tokens=False).shape == (0,)
    assert tokenizer.vocab_size == 259


def test_text_comes_back(folder):
    tokenizer = Tokenizer.load(str(folder))
    text = "def f(x):\n\treturn 'naïve 🙂'  "
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([257, 256], skip_special_tokens=False) == "<s>ab"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([256, 9999]) == "ab"


def test_a_negative_id_is_refused(folder):
    with pytest.raises(RangeError, match="at least 0; got -1"):
        Tokenizer.load(folder).decode([3, -1])


def test_truncation_and_padding_left_in_the_file_are_switched_off(tmp_path):
    inner = byte_level()
    inner.enable_truncation(2)
    inner.enable_padding(length=8)
    inner.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.load(tmp_path).encode("abcabc", add_special_tokens=False)) == 4


@pytest.mark.parametrize(
    ("side_files", "bos", "eos"),
    [
        ({}, None, None),
        ({"tokenizer_config.json": {"bos_token": "<s>", "eos_token": {"content": "</s>"}}}, 257, 258),
        ({"config.json": {"bos_token_id": 5, "eos_token_id": [6, 7]}}, 5, 6),
        (
            {
                "tokenizer_config.json": {"eos_token": "</s>"},
                "config.json": {"bos_token_id": 5, "eos_token_id": 6},
            },
            5,
            258,
        ),
        ({"tokenizer_config.json": {"eos_token": "unknown"}}, None, None),
    ],
)
def test_special_ids_are_those_that_the_folder_names(folder, side_files, bos, eos):
    for name, contents in side_files.items():
        (folder / name).write_text(json.dumps(contents), encoding="utf-8")
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (bos, eos)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(FormatError, match="tokenizer.json: the file must exist"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FormatError, match="must be a tokenizer.json"):
        Tokenizer.load(tmp_path)
    byte_level().save(str(tmp_path / "tokenizer.json"))
    for broken, message in (("{", "must hold JSON"), ("[]", "must hold a JSON object; got list")):
        (tmp_path / "tokenizer_config.json").write_text(broken, encoding="utf-8")
        with pytest.raises(FormatError, match=f"tokenizer_config.json: the file {message}"):
            Tokenizer.load(tmp_path)


def test_a_character_comes_whole():
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder()
    pieces = [stream.push(token) for token in tokenizer.encode("a🙂é", add_special_tokens=False)]
    assert pieces == ["a", "", "", "", "🙂", "", "é"]
    assert stream.flush() == ""


def test_half_a_character_at_the_end_comes_with_flush():
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder()
    half = tokenizer.encode("🙂", add_special_tokens=False)[:2].tolist()
    assert [stream.push(token) for token in half] == ["", ""]
    assert stream.flush() == tokenizer.decode(half)
    assert stream.flush() == ""


def test_special_tokens_in_a_stream():
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder(skip_special_tokens=False)
    assert "".join(stream.push(token) for token in (256, 258)) == "ab</s>"
    assert [tokenizer.stream_decoder().push(token) for token in (258, 256)] == ["", "ab"]


@given(text=st.text(max_size=12))
def test_pieces_add_up_and_hold_no_half_character(text):
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder()
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.flush() == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@given(token_ids=st.lists(st.integers(0, 258), max_size=12))
def test_pieces_of_any_ids_add_up(token_ids):
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder()
    streamed = "".join(stream.push(token) for token in token_ids) + stream.flush()
    assert streamed.replace("\ufffd", "") == tokenizer.decode(token_ids).replace("\ufffd", "")
