"""A conversation becomes the text that a chat model was trained on: its chat template, rendered.

    ChatTemplate          a template and the special tokens that it may name; `render` gives the text
    load_chat_templates   the templates of a model folder, by name
    choose_template       the one for a conversation

Templates are rendered as transformers 5 renders them, byte for byte, by jinja2 (extra `chat`), in a sandbox with bounds
(`awq_ref.text.template_sandbox`). jinja2 is imported when the first template is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awq_ref.errors import ChatTemplateError, FormatError, UnsupportedError
from awq_ref.text.files import read_json_object, read_text_file

if TYPE_CHECKING:
    from awq_ref.text.template_sandbox import Bounded

Message = Mapping[str, Any]

DEFAULT, TOOL_USE = "default", "tool_use"
# Names under which a message's reasoning travels; templates read the first, some the second.
REASONING = ("reasoning_content", "thinking", "reasoning")
CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


def _plain(value: Any, what: str) -> Any:
    """Return a copy of JSON-like data, made of Python's own types; anything else is an error."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {_plain(key, what): _plain(item, what) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, what) for item in value]
    raise ChatTemplateError(
        f"chat template: {what} must hold texts, numbers, lists and objects as JSON does; got {type(value).__name__}."
    )


def _plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages without keys that are None, and their reasoning under every name that templates read."""
    plain = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise ChatTemplateError(
                f"chat template: a message must be an object; got {type(message).__name__}."
            )
        found = {key: value for key, value in _plain(message, "messages").items() if value is not None}
        reasoning = next((found[name] for name in REASONING if name in found), None)
        if reasoning is not None:
            found = {"thinking": reasoning, **found, "reasoning_content": reasoning}
        plain.append(found)
    return plain


def _tagged(messages: list[dict[str, Any]]) -> str:
    """Put the tag behind the last message's text, and return that text."""
    last = messages[-1] if messages else {}
    content = last.get("content")
    if isinstance(content, list):
        block = next((b for b in reversed(content) if isinstance(b, dict) and "text" in b), None)
        if block is not None:
            text = str(block["text"])
            block["text"] = text + CONTINUE_TAG
            return text
    elif content is not None:
        last["content"] = content + CONTINUE_TAG
        return str(content)
    raise ChatTemplateError(
        "chat template: continue_final_message needs a last message with a text to continue; there is none."
    )


def _cut_at_tag(rendered: str, text: str) -> str:
    """Return a rendering up to the end of the message that is to be continued."""
    place = rendered.rfind(CONTINUE_TAG.strip())
    if place < 0 or text.strip() not in rendered:
        raise ChatTemplateError(
            "chat template: the message to continue must appear in the rendering as it is; it does not. "
            "Leave continue_final_message out for this template."
        )
    whole = rendered.startswith(CONTINUE_TAG, place)
    return rendered[:place] if whole else rendered[:place].rstrip()  # the template trims messages


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    source      the jinja2 text
    where       where it comes from, for messages of errors
    variables   what every rendering knows: bos_token, eos_token, ...
    """

    source: str
    where: str = "chat template"
    variables: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _compiled(self) -> "Bounded":
        try:
            import jinja2

            from awq_ref.text import template_sandbox
        except ImportError as error:
            raise UnsupportedError(
                f"{self.where}: chat templates need jinja2, which cannot be imported ({error}). "
                'Install the extra: pip install "awq-ref[chat]".'
            ) from error
        try:
            return template_sandbox.compile_template(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ChatTemplateError(
                f"{self.where}: the template must be valid jinja2; line {error.lineno}: {error.message}. "
                "Give another one with --template FILE."
            ) from error
        except (template_sandbox.BoundsError, RecursionError) as error:
            raise ChatTemplateError(f"{self.where}: the template must be bounded; it {error}.") from error

    def _rendered(self, variables: dict[str, Any]) -> str:
        compiled = self._compiled
        import jinja2

        from awq_ref.text.template_sandbox import BoundsError

        try:
            return compiled.render(variables)
        except BoundsError as error:
            cause = f"the template must end within its bounds; it {error}"
        except RecursionError:
            cause = "the template must end within its bounds; it calls itself without end"
        except jinja2.exceptions.SecurityError as error:
            cause = f"the template must stay in its sandbox; {error}"
        except jinja2.exceptions.TemplateError as error:
            cause = f"the template refuses this conversation: {error}"
        except Exception as error:  # a stranger's program: whatever it does wrong
            cause = f"the template fails on this conversation: {type(error).__name__}: {error}"
        raise ChatTemplateError(f"{self.where}: {cause.rstrip('.')}. Give another one with --template FILE.")

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        documents: Sequence[Message] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """Return the text of a conversation.

        Parameters
        ----------
        messages : sequence of objects
            Each with "role" (system, user, assistant, tool, ...) and "content".
        tools : sequence of objects, optional
            JSON schemas of functions that the model may call.
        documents : sequence of objects, optional
            What a model for retrieval may read.
        add_generation_prompt : bool
            End with what begins an answer.
        continue_final_message : bool
            End with the last message's own last character, so that it goes on.
        **variables
            Whatever else the template reads; they win over the special tokens.

        Raises
        ------
        ChatTemplateError
            If the template has a syntax error, refuses the conversation, reaches a bound, tries to leave the sandbox,
            or messages, tools or documents are not such objects.
        UnsupportedError
            If jinja2 is not installed.
        """
        if continue_final_message and add_generation_prompt:
            raise ChatTemplateError(
                "chat template: continue_final_message and add_generation_prompt exclude each other; got both."
            )
        plain = _plain_messages(messages)
        text = _tagged(plain) if continue_final_message else ""
        known = {
            "messages": plain,
            "tools": None if tools is None else _plain(tools, "tools"),
            "documents": None if documents is None else _plain(documents, "documents"),
            "add_generation_prompt": add_generation_prompt,
        }
        rendered = self._rendered({**self.variables, **_plain(variables, "variables"), **known})
        return _cut_at_tag(rendered, text) if continue_final_message else rendered


def _named_templates(stored: Any, path: Path) -> dict[str, str]:
    """Return name -> source of what a JSON file gives: a text, or a list of named ones."""
    if isinstance(stored, str):
        return {DEFAULT: stored}
    if isinstance(stored, list) and all(
        isinstance(t, dict) and isinstance(t.get("name"), str) and isinstance(t.get("template"), str)
        for t in stored
    ):
        return {item["name"]: item["template"] for item in stored}
    raise FormatError(f"{path}: chat_template must be a text, or a list of objects with name and template.")


def load_chat_templates(folder: str | Path) -> dict[str, str]:
    """Return name -> source of the chat templates of a model folder; empty if it has none.

    chat_template.jinja and additional_chat_templates/NAME.jinja come first, then what tokenizer_config.json says, then
    chat_template.json. A single template is called "default".

    Raises
    ------
    FormatError
        If a file cannot be read, or does not hold templates.
    """
    folder = Path(folder)
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files = {DEFAULT: folder / "chat_template.jinja"} | files
    if files:
        return {name: read_text_file(path) for name, path in files.items()}
    for name in ("tokenizer_config.json", "chat_template.json"):
        stored = read_json_object(folder / name).get("chat_template")
        if stored is not None:
            return _named_templates(stored, folder / name)
    return {}


def choose_template(
    templates: Mapping[str, str], *, tools: bool = False, where: str = "chat template"
) -> str:
    """Return the source for a conversation: "tool_use" if there are tools and it is there, else "default".

    Raises
    ------
    ChatTemplateError
        If neither is there.
    """
    if tools and TOOL_USE in templates:
        return templates[TOOL_USE]
    if DEFAULT in templates:
        return templates[DEFAULT]
    raise ChatTemplateError(
        f"{where}: one of the chat templates must be called 'default'; got {', '.join(templates) or 'none'}. "
        "Give one with --template FILE."
    )
