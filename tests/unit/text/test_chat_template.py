"""Chat templates: what transformers rendered, where a folder keeps them, and what a template may not do."""

import json
import subprocess
import sys

import pytest
from helpers.chat_template_cases import CONVERSATIONS, SPECIAL, TEMPLATES, cases, read_recorded

from awq_ref.errors import ChatTemplateError, FormatError, UnsupportedError
from awq_ref.text import ChatTemplate, load_chat_templates, template_sandbox
from awq_ref.text.chat_template import choose_template

HELLO = [{"role": "user", "content": "hello"}]
RECORDED = read_recorded()


def render(source, messages=HELLO, **options):
    return ChatTemplate(source, "the template").render(messages, **options)


@pytest.mark.parametrize("case", cases(), ids=", ".join)
def test_a_rendering_is_what_transformers_made_of_it(case):
    template = ChatTemplate(TEMPLATES[case[0]], variables=SPECIAL)
    if RECORDED[case] is None:
        with pytest.raises(ChatTemplateError):
            template.render(**CONVERSATIONS[case[1]])
    else:
        assert template.render(**CONVERSATIONS[case[1]]) == RECORDED[case]


def test_some_renderings_by_hand():
    user = [{"role": "user", "content": " hi "}]
    system = [{"role": "system", "content": "Be brief."}, *user]
    by_hand = {
        "llama2": (system, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n hi [/INST]"),
        "gemma": (user, "<s><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"),
        "zephyr": (system, "<|system|>\nBe brief.</s>\n<|user|>\n hi </s>\n<|assistant|>\n"),
        "phi3": (user, "<|user|>\n hi <|end|>\n<|assistant|>\n"),
    }
    for name, (messages, want) in by_hand.items():
        got = ChatTemplate(TEMPLATES[name], variables=SPECIAL).render(messages, add_generation_prompt=True)
        assert got == want


# ---- what is given ----


def test_messages_stay_as_they_are_and_variables_win():
    messages = [{"role": "user", "content": "a", "extra": None, "list": (1, 2)}]
    got = render("{{ messages[0].extra is defined }} {{ messages[0].list }} {{ x }}", messages, x="given")
    assert got == "False [1, 2] given"
    assert messages == [{"role": "user", "content": "a", "extra": None, "list": (1, 2)}]
    assert ChatTemplate("{{ bos_token }}", variables=SPECIAL).render(HELLO, bos_token="<b>") == "<b>"


@pytest.mark.parametrize(
    ("messages", "options", "message"),
    [
        (["hello"], {}, "a message must be an object; got str"),
        ([{"role": "user", "content": object()}], {}, "messages must hold texts, .* got object"),
        (HELLO, {"tools": [len]}, "tools must hold texts, .* got builtin_function_or_method"),
        (HELLO, {"continue_final_message": True, "add_generation_prompt": True}, "exclude each other"),
        ([{"role": "assistant"}], {"continue_final_message": True}, "a last message with a text to continue"),
        ([], {"continue_final_message": True}, "a last message with a text to continue"),
    ],
)
def test_what_cannot_be_rendered_is_named(messages, options, message):
    with pytest.raises(ChatTemplateError, match=message):
        render("{{ messages[0].content }}", messages, **options)


def test_a_message_that_the_template_leaves_out_cannot_be_continued():
    with pytest.raises(ChatTemplateError, match="must appear in the rendering as it is"):
        render("nothing", continue_final_message=True)


def test_the_last_block_of_a_list_of_contents_is_continued():
    blocks = [{"type": "text", "text": "one"}, {"type": "image"}]
    source = "{% for b in messages[0].content %}[{{ b.text }}]{% endfor %}"
    assert render(source, [{"role": "assistant", "content": blocks}], continue_final_message=True) == "[one"


# ---- what a template may not do ----

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GROWS = "{% set ns = namespace(x='ab', y=[1, 2], z=2) %}{% for i in range(99) %}{% set ns.?? %}{% endfor %}"
BAD = {
    "refuses": ("{{ raise_exception('No system role') }}", "refuses this conversation: No system role"),
    "syntax": ("{% if %}", "must be valid jinja2; line 1"),
    "unknown tag": ("a\n{% foo %}", "must be valid jinja2; line 2: Encountered unknown tag 'foo'"),
    "undefined": ("{{ a.b.c }}", "'a' is undefined"),
    "wrong type": ("{{ 1 + 'a' }}", "fails on this conversation: TypeError"),
    "include": ("{% include 'secret' %}", "fails on this conversation: TypeError: no loader"),
    "loops": (LOOPS, "must end within its bounds; it took more than 20000 steps"),
    "loops, with a name of ours": ("{% set count_step = 1 %}" + LOOPS, "took more than 20000 steps"),
    "range": ("{% for i in range(10000000) %}{% endfor %}", "Range too big"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
    "recursive loop": ("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "calls itself without end"),
    "macros that double": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
        "took more than 20000 steps",
    ),
    "long output": (
        "{% for i in range(9999) %}{{ messages[0].content * 1000 }}{% endfor %}",
        "made a text of more than 4000000 characters",
    ),
    "long block": (
        "{% set x %}{% for i in range(9999) %}{{ 'hello' * 1000 }}{% endfor %}{% endset %}",
        "made a text of more than 4000000 characters",
    ),
    "doubling by +": (GROWS.replace("??", "x = ns.x + ns.x"), "too large"),
    "doubling by ~": (GROWS.replace("??", "x = ns.x ~ ns.x"), "made a text of more than"),
    "doubling lists": (GROWS.replace("??", "y = ns.y + ns.y"), "too large"),
    "squaring": (GROWS.replace("??", "z = ns.z * ns.z"), "too large"),
    "replace": (GROWS.replace("??", "x = ns.x.replace('a', ns.x)"), "made a text of more than"),
    "filter replace": (GROWS.replace("??", "x = ns.x | replace('a', ns.x)"), "made a text of more than"),
    "join": (GROWS.replace("??", "x = ns.x.join([ns.x, ns.x, ns.x])"), "made a text of more than"),
    "filter join": (GROWS.replace("??", "x = [ns.x, ns.x] | join(ns.x)"), "made a text of more than"),
    "power": ("{{ 10 ** 1000000000 }}", "too large"),
    "repeat": ("{{ 'a' * 1000000000 }}", "too large"),
    "repeat a list": ("{{ [1] * 1000000 }}", "too large"),
    "width": ("{{ 'a'.ljust(1000000000) }}", "made a text of more than"),
    "width of a filter": ("{{ 'a' | center(1000000000) }}", "made a text of more than"),
    "width of a format": ("{{ '%1000000000d' % 1 }}", "too large"),
    "width of another format": ("{{ '{:1000000000d}'.format(1) }}", "made a text of more than"),
    "indent": ("{{ [1] | tojson(indent=1000000000) }}", "made a text of more than"),
    "class": ("{{ ''.__class__.__mro__ }}", "must stay in its sandbox; access to attribute '__class__'"),
    "globals": ("{{ raise_exception.__globals__['os'] }}", "must stay in its sandbox; .*'__globals__'"),
    "format": ("{{ '{0.__class__.__mro__}'.format(1) }}", "must stay in its sandbox"),
    "attr": ("{{ (1 | attr('__class__')).__base__ }}", "must stay in its sandbox"),
    "mutation": ("{{ messages.append(1) }}", "must stay in its sandbox; .*'append'"),
    "deletion": ("{{ messages[0].pop('role') }}", "must stay in its sandbox; .*'pop'"),
    "namespace": ("{{ namespace(__init__=1) }}", "must stay in its sandbox; a namespace may not have"),
    "namespace later": (
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "must stay in its sandbox; a namespace may not have",
    ),
    "too long": ("a" * 1_000_001, "must be bounded; it has more than 1000000 characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_template_out_of_bounds_gives_one_clear_error(name, monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_STEPS", 20_000)  # of 300 000, which take seconds
    source, message = BAD[name]
    with pytest.raises(ChatTemplateError, match=message) as caught:
        render(source)
    assert str(caught.value).startswith("the template: ")
    assert "--template FILE" in str(caught.value) or name == "too long"


def test_a_template_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.0)
    with pytest.raises(ChatTemplateError, match="took more than 0 seconds"):
        render("{% for i in range(3) %}{% endfor %}")


def test_every_rendering_has_its_own_steps(monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_STEPS", 5)
    template = ChatTemplate("{% for i in range(5) %}{{ i }}{% endfor %}")
    assert [template.render(HELLO) for _ in range(3)] == ["01234"] * 3
    with pytest.raises(ChatTemplateError, match="took more than 5 steps"):
        render("{% for i in range(6) %}{{ i }}{% endfor %}")


def test_without_jinja2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UnsupportedError, match=r'pip install "awq-ref\[chat\]"'):
        render("hello")


def test_jinja2_is_imported_when_a_template_is_used_and_not_before():
    script = "import sys, awq_ref.chat, awq_ref.cli; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# ---- where a folder keeps them ----


def write(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({}, {}),
        ({"tokenizer_config.json": {"chat_template": "a"}}, {"default": "a"}),
        ({"tokenizer_config.json": {"chat_template": None}}, {}),
        ({"chat_template.json": {"chat_template": "b"}}, {"default": "b"}),
        (
            {"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "c"}]}},
            {"rag": "c"},
        ),
        (
            {"chat_template.jinja": "d\n", "tokenizer_config.json": {"chat_template": "a"}},
            {"default": "d\n"},
        ),
        (
            {"chat_template.jinja": "d", "additional_chat_templates/tool_use.jinja": "e"},
            {"default": "d", "tool_use": "e"},
        ),
    ],
)
def test_templates_of_a_folder(tmp_path, files, want):
    for name, content in files.items():
        write(tmp_path, name, content)
    assert load_chat_templates(tmp_path) == want


@pytest.mark.parametrize("stored", [5, [1], [{"name": "a"}], {"default": "a"}])
def test_a_setting_that_is_no_template_is_named(tmp_path, stored):
    write(tmp_path, "tokenizer_config.json", {"chat_template": stored})
    with pytest.raises(FormatError, match="tokenizer_config.json: chat_template must be a text, or a list"):
        load_chat_templates(tmp_path)


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"a\xff")
    with pytest.raises(FormatError, match="chat_template.jinja: the file must be UTF-8 text; byte 1 is not"):
        load_chat_templates(tmp_path)


def test_the_template_for_tools():
    templates = {"default": "a", "tool_use": "b", "rag": "c"}
    assert choose_template(templates) == "a"
    assert choose_template(templates, tools=True) == "b"
    assert choose_template({"default": "a"}, tools=True) == "a"
    with pytest.raises(ChatTemplateError, match="must be called 'default'; got rag"):
        choose_template({"rag": "c"})
