"""Templates in the manner of published ones, conversations, and what transformers makes of each pair.

TEMPLATES       name -> source; tests/golden/chat_templates has them as files
CONVERSATIONS   name -> what a rendering is asked for, as keywords of `ChatTemplate.render`
SPECIAL         the special tokens
cases           all pairs that are recorded
read_recorded, write_recorded    (template, conversation) -> the rendering, or None where the template refuses
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "chat_templates"
RECORDED = FOLDER / "recorded.json"
TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def said(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Say how warm it is <now> & später",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "e.g. Zürich"},
                "days": {"type": "integer"},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}
CALL = {
    "type": "function",
    "id": "abcdefghi",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}},
}
USER = said(("user", "Hello, who are you?"))
SYSTEM = said(
    ("system", "Be brief."), ("user", " 1 < 2 & 'x' \"y\"? "), ("assistant", " Ja, 🙂.\n"), ("user", "Why?\n")
)
ANSWERED = said(("user", "Count."), ("assistant", "One, two,"))
TOOLS = [
    *said(("user", "How warm is it in Zürich?")),
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "21.5", "tool_call_id": "abcdefghi"},
    *said(("assistant", "21.5 degrees."), ("user", "And here?")),
]
THOUGHT = said(("user", "2+2?"), ("assistant", "<think>\nadd\n</think>\n\n4"), ("user", "3+3?"))
REASONED = [*said(("user", "2+2?")), {"role": "assistant", "reasoning_content": "add", "content": "4"}]
RESULTS = [{"title": "One", "text": "Rain, then sun."}, {"title": "Zwei", "text": "Schnee."}]

CONVERSATIONS: dict[str, dict[str, Any]] = {
    "user": {"messages": USER},
    "user, answer": {"messages": USER, "add_generation_prompt": True},
    "system": {"messages": SYSTEM, "add_generation_prompt": True},
    "answered": {"messages": ANSWERED},
    "continued": {"messages": ANSWERED, "continue_final_message": True},
    "continued, trailing space": {
        "messages": said(("user", "Count."), ("assistant", "One, two, ")),
        "continue_final_message": True,
    },
    "two users": {"messages": said(("user", "a"), ("user", "b"))},
    "tools": {"messages": TOOLS, "tools": [WEATHER, CLOCK], "add_generation_prompt": True},
    "tools, system": {"messages": SYSTEM, "tools": [CLOCK], "add_generation_prompt": True},
    "documents": {"messages": USER, "documents": RESULTS, "add_generation_prompt": True},
    "thought": {"messages": THOUGHT, "add_generation_prompt": True},
    "reasoned": {"messages": REASONED},
    "thinking": {"messages": [USER[0], {"role": "assistant", "thinking": "hm", "content": "I am."}]},
    "not thinking": {"messages": THOUGHT, "add_generation_prompt": True, "enable_thinking": False},
    "dated": {"messages": USER, "date_string": "01 Jan 2025", "controls": {"length": "short"}},
    "long": {"messages": said(*[("user", "q\n\n"), ("assistant", "\ta")] * 4), "add_generation_prompt": True},
}
Case = tuple[str, str]


def cases() -> list[Case]:
    """Every template with every conversation."""
    return [(template, conversation) for template in TEMPLATES for conversation in CONVERSATIONS]


def read_recorded() -> dict[Case, str | None]:
    stored = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {(t, c): rendering for t, renderings in stored.items() for c, rendering in renderings.items()}


def write_recorded(renderings: dict[Case, str | None]) -> None:
    stored: dict[str, dict[str, str | None]] = {}
    for (template, conversation), rendering in renderings.items():
        stored.setdefault(template, {})[conversation] = rendering
    RECORDED.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
