"""Conversations as ids and as files."""

import json

import numpy as np
import pytest
from helpers.chat_template_cases import TEMPLATES, said
from helpers.tiny_tokenizers import byte_level
from tokenizers import AddedToken

from awq_ref.errors import FormatError, OutputError
from awq_ref.pipeline.chat_format import (
    PlainFormat,
    TemplateFormat,
    chat_format,
    load_conversation,
    save_conversation,
)
from awq_ref.text import ChatTemplate, Tokenizer

END = 258  # </s>


@pytest.fixture
def tokenizer():
    return Tokenizer(byte_level(), 257, END, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("qwen2.5", "<|im_end|>"),
        ("gemma", "<end_of_turn>"),
        ("llama2", None),  # a space comes first
        ("phi3", "<|end|>"),
        ("zephyr", "</s>"),
    ],
)
def test_the_token_behind_answers_ends_them(template, end):
    inner = byte_level()
    inner.add_tokens([AddedToken(t) for t in ("<|im_end|>", "<end_of_turn>", "<|end|>", "\n", " ")])
    form = TemplateFormat(
        ChatTemplate(TEMPLATES[template], variables={"eos_token": "</s>"}), Tokenizer(inner)
    )
    assert form.end_tokens == ({inner.token_to_id(end)} if end else set())


def test_a_template_that_wants_more_than_a_question_names_no_end():
    form = TemplateFormat(ChatTemplate("{{ raise_exception('no tools') }}"), Tokenizer(byte_level()))
    assert form.end_tokens == frozenset()


def test_the_format_of_a_folder(tokenizer, tmp_path):
    assert isinstance(chat_format(tmp_path, tokenizer), PlainFormat)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ messages[0].content }}{{ eos_token }}", encoding="utf-8"
    )
    own = chat_format(tmp_path, tokenizer)
    assert own.ids(said(("user", "a"))).tolist()[1:] == [END]
    (tmp_path / "other.jinja").write_text("other", encoding="utf-8")
    given = chat_format(tmp_path, tokenizer, tmp_path / "other.jinja")
    assert given.description == str(tmp_path / "other.jinja")
    assert tokenizer.decode(given.ids(said(("user", "a")))) == "other"
    with pytest.raises(FormatError, match="absent.jinja: the file must be readable"):
        chat_format(tmp_path, tokenizer, tmp_path / "absent.jinja")


def test_plain_text_begins_the_tokenizers_way_and_messages_on_lines_of_their_own(tokenizer):
    turns = said(("system", "s"), ("user", "a\n"), ("assistant", "b"), ("user", "c"))
    assert PlainFormat.text(turns) == "s\na\nb\nc"
    assert np.array_equal(PlainFormat(tokenizer).ids(turns), tokenizer.encode("s\na\nb\nc"))


def test_a_conversation_comes_back_from_its_file(tmp_path):
    messages = said(("system", "ü\n"), ("user", "🙂"), ("assistant", ""))
    path = tmp_path / "chat.json"
    for _ in range(2):  # the second time over the first
        save_conversation(path, messages, model="some/model")
    assert load_conversation(path) == messages
    assert json.loads(path.read_text(encoding="utf-8"))["model"] == "some/model"
    assert [p.name for p in tmp_path.iterdir()] == ["chat.json"]


def test_a_file_that_is_no_conversation_stays(tmp_path):
    path = tmp_path / "precious.json"
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(OutputError, match=r"precious.json: exists, and holds no conversation"):
        save_conversation(path, [], model="m")
    assert path.read_text(encoding="utf-8") == "[1]"
    with pytest.raises(OutputError, match="cannot be written"):
        save_conversation(tmp_path / "absent" / "chat.json", [], model="m")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must hold JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "must hold a conversation that /save wrote, of version 1"),
        ('{"awq_ref_chat": 2, "messages": []}', "of version 1"),
        ('{"awq_ref_chat": 1, "messages": {}}', "must hold a conversation"),
        ('{"awq_ref_chat": 1, "messages": [3]}', r"messages\[0\]: a message must be an object whose role"),
        ('{"awq_ref_chat": 1, "messages": [{"role": "king", "content": ""}]}', "role is one of system"),
        ('{"awq_ref_chat": 1, "messages": [{"role": "user"}]}', r"messages\[0\]: .* a text as its content"),
        ('{"awq_ref_chat": 1, "messages": [{"role": "user", "content": ""}]}', "must end with an answer"),
    ],
)
def test_a_file_that_cannot_be_gone_on_with_is_named(tmp_path, content, message):
    path = tmp_path / "chat.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match=f"chat.json.*{message}"):
        load_conversation(path)
    with pytest.raises(FormatError, match="absent.json: the file must exist"):
        load_conversation(tmp_path / "absent.json")
