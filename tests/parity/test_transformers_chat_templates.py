"""Chat templates, byte for byte as transformers renders them; `--record` writes tests/golden/chat_templates.

python -m pytest tests/parity/test_transformers_chat_templates.py --record
"""

import copy
import json

import pytest
from helpers.chat_template_cases import (
    CONVERSATIONS,
    SPECIAL,
    TEMPLATES,
    cases,
    read_recorded,
    write_recorded,
)
from helpers.tiny_tokenizers import byte_level
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from awq_ref.errors import ChatTemplateError
from awq_ref.text import ChatTemplate, Tokenizer, load_chat_templates
from awq_ref.text.chat_template import choose_template


def their_rendering(template, conversation):
    """What transformers renders, or None where it raises."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), **SPECIAL)
    options = copy.deepcopy(conversation)
    try:
        return tokenizer.apply_chat_template(
            options.pop("messages"), chat_template=template, tokenize=False, **options
        )
    except Exception:
        return None


def our_rendering(template, conversation):
    try:
        return ChatTemplate(template, variables=SPECIAL).render(**conversation)
    except ChatTemplateError:
        return None


@pytest.fixture(scope="module")
def theirs(request):
    renderings = {case: their_rendering(TEMPLATES[case[0]], CONVERSATIONS[case[1]]) for case in cases()}
    if request.config.getoption("--record", default=False):
        write_recorded(renderings)
    return renderings


@pytest.mark.parametrize("case", cases(), ids=", ".join)
def test_a_rendering_is_theirs(theirs, case):
    assert our_rendering(TEMPLATES[case[0]], CONVERSATIONS[case[1]]) == theirs[case]


def test_what_is_recorded_is_theirs(theirs):
    assert read_recorded() == theirs


SOURCE = "{{ bos_token }}{{ messages[0].content }}"
FILES = {
    "a text": {"tokenizer_config.json": {"chat_template": SOURCE + "1"}},
    "named": {
        "tokenizer_config.json": {
            "chat_template": [
                {"name": "default", "template": SOURCE + "2"},
                {"name": "tool_use", "template": SOURCE + "3"},
                {"name": "rag", "template": SOURCE + "4"},
            ]
        }
    },
    "a file before the settings": {
        "chat_template.jinja": SOURCE + "5\n",
        "tokenizer_config.json": {"chat_template": SOURCE + "6"},
    },
    "a folder": {
        "chat_template.jinja": SOURCE + "7",
        "additional_chat_templates/tool_use.jinja": SOURCE + "8",
    },
}


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("tools", [None, [{"type": "function", "function": {"name": "f"}}]])
def test_the_template_of_a_folder(tmp_path, files, tools):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    for name, content in ({"tokenizer_config.json": {}} | FILES[files]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content | settings)
        (tmp_path / name).write_text(text, encoding="utf-8")
    messages = [{"role": "user", "content": "hello"}]
    want = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(messages, tools=tools, tokenize=False)
    source = choose_template(load_chat_templates(tmp_path), tools=tools is not None)
    assert (
        ChatTemplate(source, variables=Tokenizer.load(tmp_path).special_tokens).render(messages, tools=tools)
        == want
    )


def test_ids_of_a_rendering(tmp_path):
    """A rendering is encoded as it is: the template has written the special tokens."""
    inner = byte_level()
    inner.save(str(tmp_path / "tokenizer.json"))
    theirs = PreTrainedTokenizerFast(tokenizer_object=inner, **SPECIAL)
    ours = Tokenizer.load(tmp_path)
    conversation = CONVERSATIONS["system"]
    for name in ("llama2", "zephyr", "mistral_v3"):
        want = theirs.apply_chat_template(
            conversation["messages"], chat_template=TEMPLATES[name], add_generation_prompt=True
        )["input_ids"]
        text = ChatTemplate(TEMPLATES[name], variables=SPECIAL).render(**conversation)
        assert ours.encode(text, add_special_tokens=False).tolist() == want
