"""How a conversation becomes token ids, and a file.

ChatFormat         messages -> ids
TemplateFormat     by the model's chat template
PlainFormat        one text that goes on and on, for models that were not trained to chat
chat_format        the format for a model, or for a template given as a file
save_conversation, load_conversation    messages <-> a JSON file
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from awq_ref.checkpoint.disk import writing
from awq_ref.dtypes import I64
from awq_ref.errors import ChatTemplateError, FormatError, OutputError
from awq_ref.text import ChatTemplate, Tokenizer, load_chat_templates
from awq_ref.text.chat_template import choose_template
from awq_ref.text.files import read_json_object, read_text_file

Message = Mapping[str, Any]

ROLES = ("system", "user", "assistant", "tool")
VERSION = 1  # of the file
PROBE = "An answer."  # behind it a template shows how answers end


class ChatFormat(Protocol):
    """What a session asks of a format."""

    @property
    def description(self) -> str:
        """What it is, for people."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens with which an answer ends, as far as the format knows them."""

    def ids(self, messages: Sequence[Message]) -> I64:
        """Return the ids of a conversation, up to where the answer begins."""


@dataclass(frozen=True)
class TemplateFormat:
    """A chat template, whose rendering is encoded without further special tokens."""

    template: ChatTemplate
    tokenizer: Tokenizer

    @property
    def description(self) -> str:
        return self.template.where

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The added token that the template puts right behind an answer: the end of a turn, where it is one token."""
        turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": PROBE}]
        try:
            behind = self.template.render(turns).rpartition(PROBE)[2]
        except ChatTemplateError:  # it may want more than this
            return frozenset()
        first = self.tokenizer.encode(behind, add_special_tokens=False)[:1].tolist()
        added = self.tokenizer.inner.get_added_tokens_decoder()
        return frozenset(token for token in first if token in added and added[token].content.strip())

    def ids(self, messages: Sequence[Message]) -> I64:
        """Return the ids of the rendering, the generation prompt at its end."""
        text = self.template.render(messages, add_generation_prompt=True)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if not len(ids):
            raise ChatTemplateError(
                f"{self.template.where}: the template must print something; it printed nothing for "
                f"{len(messages)} messages. Give another one with --template FILE."
            )
        return ids


@dataclass(frozen=True)
class PlainFormat:
    """The messages one after the other, each from the start of a line, as one text that the model goes on with."""

    tokenizer: Tokenizer

    @property
    def description(self) -> str:
        return "plain text: the model goes on with what you write; it was not trained to answer"

    @property
    def end_tokens(self) -> frozenset[int]:
        """None that the model and the tokenizer do not name."""
        return frozenset()

    @staticmethod
    def text(messages: Sequence[Message]) -> str:
        r"""Return the text of a conversation; the last line is left open.

        A line's end and the next line's indentation are one token for many tokenizers: it is the model's to write.

        Examples
        --------
        >>> turns = [("user", "def f():"), ("assistant", "\n    pass"), ("user", "f()")]
        >>> PlainFormat.text([{"role": role, "content": content} for role, content in turns])
        'def f():\n    pass\nf()'
        """
        text = ""
        for message in messages:
            if message["role"] != "assistant" and text and not text.endswith("\n"):
                text += "\n"
            text += message["content"]
        return text

    def ids(self, messages: Sequence[Message]) -> I64:
        """Return the ids of the text, with what the tokenizer puts before a text."""
        return self.tokenizer.encode(self.text(messages))


def chat_format(folder: Path, tokenizer: Tokenizer, template: Path | None = None) -> ChatFormat:
    """Return the format for a model folder: by the given template, by its own, or plain if it has none.

    Raises
    ------
    FormatError
        If a template's file cannot be read.
    ChatTemplateError
        If there are named templates, and none is the default.
    """
    if template is not None:
        chosen = ChatTemplate(read_text_file(template), str(template), tokenizer.special_tokens)
        return TemplateFormat(chosen, tokenizer)
    templates = load_chat_templates(folder)
    if not templates:
        return PlainFormat(tokenizer)
    where = f"the chat template of {folder}"
    chosen = ChatTemplate(choose_template(templates, where=where), where, tokenizer.special_tokens)
    return TemplateFormat(chosen, tokenizer)


# ---- files ----


def _is_conversation(path: Path) -> bool:
    try:
        return "awq_ref_chat" in read_json_object(path)
    except FormatError:
        return False


def save_conversation(path: Path, messages: Sequence[Message], *, model: str) -> None:
    """Write messages to a JSON file, which appears whole or not at all; an earlier conversation is replaced.

    Raises
    ------
    OutputError
        If the file cannot be written, or holds something else than a conversation.
    """
    if path.exists() and not _is_conversation(path):
        raise OutputError(f"{path}: exists, and holds no conversation. Choose another name.")
    content = {"awq_ref_chat": VERSION, "model": model, "messages": [dict(message) for message in messages]}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            part.write_text(text, encoding="utf-8", errors="replace")
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _checked_message(message: Any, place: str) -> Message:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise FormatError(f"{place}: a message must be an object whose role is one of {', '.join(ROLES)}.")
    if not isinstance(message.get("content"), str):
        raise FormatError(f"{place}: a message must have a text as its content.")
    return message


def load_conversation(path: Path) -> list[Message]:
    """Return the messages of a file that `save_conversation` wrote.

    Raises
    ------
    FormatError
        If there is no such file, or it is not a conversation of this version that ends with an answer.
    """
    if not path.is_file():
        raise FormatError(f"{path}: the file must exist; it does not.")
    stored = read_json_object(path)
    if stored.get("awq_ref_chat") != VERSION or not isinstance(stored.get("messages"), list):
        raise FormatError(
            f"{path}: the file must hold a conversation that /save wrote, of version {VERSION}."
        )
    messages = [_checked_message(m, f"{path}: messages[{i}]") for i, m in enumerate(stored["messages"])]
    if messages and messages[-1]["role"] == "user":
        raise FormatError(f"{path}: a conversation must end with an answer; it ends with the user's message.")
    return messages
