"""Token ids and texts against transformers' AutoTokenizer, on tokenizers that are built here."""

import json

import pytest
from helpers.tiny_tokenizers import byte_fallback, byte_level, gemma, gpt_2, qwen_2, unigram
from tokenizers import AddedToken
from transformers import AutoTokenizer

from awq_ref.text import Tokenizer

TEXTS = [
    "",
    "hello",
    " hello  world",
    "hello</s>hello </s> hello",
    "<s>hello<s>",
    "abab é 🙂 \ufffd",
    "a<|im_start|> b<|im_end|>\n",
    "  \n\t hello",
    "<pad> <more> x",
    "it's 1234 e\u0301\r\n\r\n\n  ab!!\n",
]
GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast"}
SETTINGS = {
    "nothing": GENERIC,
    "names": GENERIC | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "bos asked for": GENERIC
    | {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True},
    "bos refused": GENERIC | {"bos_token": "<s>", "add_bos_token": False},
    "written out": GENERIC
    | {
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": True},
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "rstrip": True, "normalized": False},
    },
    "added": GENERIC
    | {"eos_token": "<|im_end|>", "pad_token": "<pad>", "additional_special_tokens": ["<more>"]},
}


def with_chat_tokens(inner):
    inner.add_special_tokens(["<|im_start|>"])
    inner.add_tokens([AddedToken("<|im_end|>", special=False, normalized=False)])
    return inner


KINDS = {
    "byte level": byte_level,
    "byte fallback": byte_fallback,
    "unigram": unigram,
    "gemma": gemma,
    "gpt 2": gpt_2,
    "qwen 2": qwen_2,
    "byte level, chat": lambda: with_chat_tokens(byte_level()),
    "byte fallback, chat": lambda: with_chat_tokens(byte_fallback()),
}


def both(folder, kind, settings, **files):
    KINDS[kind]().save(str(folder / "tokenizer.json"))
    for name, contents in ({"tokenizer_config": settings} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(contents), encoding="utf-8")
    return Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)


def assert_same(ours, theirs):
    for text in TEXTS:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special).tolist()
            assert ids == theirs(text, add_special_tokens=special)["input_ids"], text
        for skip in (True, False):
            want = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special_tokens=skip) == want
            stream = ours.stream_decoder(skip_special_tokens=skip)
            assert "".join(stream.push(i) for i in ids) + stream.flush() == want


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts(tmp_path, kind, settings):
    ours, theirs = both(tmp_path, kind, SETTINGS[settings])
    assert_same(ours, theirs)
    assert ours.special_tokens == theirs.special_tokens_map
    assert ours.special_ids >= set(theirs.all_special_ids)
    for name in ("bos", "eos"):
        if f"{name}_token" in SETTINGS[settings]:
            assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")


def test_special_tokens_map_of_older_folders(tmp_path):
    special = {"eos_token": {"content": "</s>", "lstrip": True}, "additional_special_tokens": ["<more>"]}
    ours, theirs = both(tmp_path, "byte level, chat", GENERIC, special_tokens_map=special)
    assert_same(ours, theirs)
    assert ours.special_tokens == theirs.special_tokens_map


def test_added_tokens_decoder(tmp_path):
    listed = {
        "260": {"content": "<pad>", "special": True, "normalized": False},
        "259": {"content": "<|im_start|>", "special": False, "normalized": False},
    }
    settings = GENERIC | {"added_tokens_decoder": listed, "eos_token": "</s>"}
    ours, theirs = both(tmp_path, "byte level", settings, special_tokens_map={"eos_token": "<s>"})
    assert_same(ours, theirs)
    assert ours.eos_token_id == theirs.eos_token_id


CLASSES = {"gemma": "GemmaTokenizer", "gpt 2": "GPT2Tokenizer", "qwen 2": "Qwen2Tokenizer"}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_that_are_built_anew_as_their_file_says(tmp_path, kind):
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>" if kind != "gemma" else "<unk>"}
    settings = names | {"pad_token": "</s>", "tokenizer_class": CLASSES[kind]}
    assert_same(*both(tmp_path, kind, settings))


LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize("legacy", [True, False, None])
def test_llama_2_where_the_class_and_the_file_agree(tmp_path, legacy):
    settings = LLAMA | {"add_bos_token": True, "add_eos_token": False, "legacy": legacy}
    ours, theirs = both(tmp_path, "byte fallback", settings)
    for text in ("", "hello", "hello  world", "abab é 🙂 \ufffd", "hello</s>", "a\n\n b"):
        ids = ours.encode(text).tolist()
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_llama_2_where_they_do_not(tmp_path):
    """docs/decisions.md#tokenizer-file: transformers 5 builds this class anew, we read its tokenizer.json."""
    ours, theirs = both(tmp_path, "byte fallback", LLAMA)
    (tmp_path / "as_file").mkdir()
    _, file_itself = both(tmp_path / "as_file", "byte fallback", GENERIC)
    for text in (" hello", "hello</s>hello"):
        ids = ours.encode(text).tolist()
        assert ids == file_itself(text)["input_ids"]
        assert ids != theirs(text)["input_ids"]
