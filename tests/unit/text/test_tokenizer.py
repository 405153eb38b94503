import json

import numpy as np
import pytest
import tokenizers
from helpers.tiny_tokenizers import BYTES, byte_level

from awq_ref.errors import FormatError, RangeError
from awq_ref.text import Tokenizer


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
        ({"tokenizer_config.json": {"eos_token": "added at the end"}}, None, 259),
        (
            {"special_tokens_map.json": {"eos_token": "</s>"}, "tokenizer_config.json": {"eos_token": "<s>"}},
            None,
            258,
        ),
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


def test_named_tokens_become_special_and_keep_their_flags(folder):
    inner = byte_level()
    inner.add_tokens([tokenizers.AddedToken("<|im_end|>", rstrip=True), "<tool>"])
    inner.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<more>"], "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.special_tokens == {"eos_token": "<|im_end|>"}
    ids = tokenizer.encode("a<|im_end|>  <tool><more>", add_special_tokens=False).tolist()
    assert ids == [BYTES.index("a"), 259, 260, 261]  # the spaces belong to <|im_end|>
    assert tokenizer.decode(ids) == "a<tool>"
    assert tokenizer.special_ids == {257, 258, 259, 261}
    assert tokenizer.largest_id == 261


def test_added_tokens_of_the_settings_are_added_in_the_order_of_their_ids(folder):
    listed = {"260": {"content": "<two>", "special": False}, "259": {"content": "<one>", "special": True}}
    settings = {"added_tokens_decoder": listed, "eos_token": {"content": "</s>", "__type": "AddedToken"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "unheeded"}', encoding="utf-8")
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode("<one><two>", add_special_tokens=False).tolist() == [259, 260]
    assert tokenizer.decode([259, 260]) == "<two>"
    assert tokenizer.eos_token_id == 258


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eos_token": 5}, "a special token must be a text, or an object with content; got 5"),
        ({"added_tokens_decoder": ["<s>"]}, "added_tokens_decoder must map ids to tokens"),
    ],
)
def test_settings_that_are_none_are_named(folder, settings, message):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(FormatError, match=f"tokenizer_config.json: {message}"):
        Tokenizer.load(folder)
