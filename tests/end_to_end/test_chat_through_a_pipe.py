"""`awq-ref chat` without a terminal: a line is a turn, answers on standard output, an error ends with exit code 2."""

import json
import subprocess
import sys

import pytest
from helpers.command_line import assert_refused, shell

from awq_ref.checkpoint import demo_model_path
from awq_ref.pipeline import load_model

DEMO = demo_model_path()


def chat(lines, *options, model=DEMO):
    return shell(["chat", model, "--max-new-tokens", 8, *options], input=lines)


def test_a_line_is_a_turn():
    done = chat("import os\n\nimport sys\r\n/exit\nnot read\n")
    assert done.returncode == 0
    assert done.stderr == ""
    model = load_model(DEMO)
    first = "".join(model.stream_text("import os", max_new_tokens=8))
    second = "".join(model.stream_text(f"import os{first}\nimport sys", max_new_tokens=8))
    assert done.stdout.split("\n", 1)[0] == first.removeprefix("\n").split("\n")[0]
    answers = [answer.removeprefix("\n") for answer in (first, second)]
    assert done.stdout == "".join(answer if answer.endswith("\n") else f"{answer}\n" for answer in answers)


def test_notes_and_tables_do_not_mix_with_answers(tmp_path):
    done = chat(f"/stats\n/save {tmp_path / 'chat.json'}\n/reset\n/load {tmp_path / 'chat.json'}\n")
    assert (done.returncode, done.stdout) == (0, "")
    for words in ("generation speed", "[saved 0 messages", "[a new conversation]", "[loaded 0 messages]"):
        assert words in done.stderr


def test_sampling_options_and_those_of_the_folder(pristine, tmp_path):
    same = [chat("x\n", "--temperature", 1.5, "--seed", seed, model=pristine).stdout for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]
    greedy = chat("x\n", model=pristine).stdout
    assert chat("x\n", "--temperature", 1.5, "--min-p", 1.0, model=pristine).stdout == greedy
    assert chat("x\n", "--temperature", 1.5, "--top-k", 1, model=pristine).stdout == greedy


def test_the_folder_recommends_and_the_command_line_wins(model):
    greedy = chat("x\n", model=model).stdout
    (model / "generation_config.json").write_text('{"do_sample": true, "temperature": 2.0, "top_k": 0}')
    assert chat("x\n", model=model).stdout != greedy
    assert chat("x\n", "--temperature", 0, model=model).stdout == greedy
    generate = ["generate", model, "--prompt", "x", "--max-new-tokens", 8]
    assert shell(generate).stdout == f"x{greedy}"  # greedy unless told otherwise


@pytest.mark.skipif(sys.platform == "win32", reason="redirections of sh")
def test_closed_streams_are_empty_ones(pristine):
    command = f"{sys.executable} -m awq_ref chat {pristine} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=120).returncode == 0


def test_a_chat_template_of_the_folder_or_of_a_file(model, tmp_path):
    (model / "chat_template.jinja").write_text("{{ messages | length }}", encoding="utf-8")
    own = chat("a\nb\n", model=model)
    assert own.returncode == 0
    # The first prompt is "1", the second "3": the answers do not depend on what was said.
    assert chat("c\nd\n", model=model).stdout == own.stdout
    (tmp_path / "plain.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8"
    )
    assert chat("c\n", "--template", tmp_path / "plain.jinja", model=model).stdout != own.stdout


@pytest.mark.parametrize(
    ("template", "options", "words"),
    [
        ("{% if %}", [], "must be valid jinja2"),
        (
            "{{ raise_exception('System role not supported') }}",
            ["--system", "S"],
            "System role not supported",
        ),
        (
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
            [],
            "took more than",
        ),
        ("{{ messages.__class__.__mro__ }}", [], "must stay in its sandbox"),
    ],
)
def test_a_template_that_cannot_be_used(model, template, options, words):
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    done = chat("a\n", *options, model=model)
    assert_refused((done.returncode, done.stderr), words)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        ("/unknown\n", [], "a command must be one of"),
        ("x\n", ["--temperature", -1], "temperature must lie in"),
        ("x\n", ["--min-p", 2], "min_p must lie in"),
        ("x\n", ["--repetition-penalty", 0], "repetition_penalty must lie in"),
        ("x\n", ["--max-new-tokens", 0], "max_new_tokens"),
        ("x\n", ["--template", "absent.jinja"], "absent.jinja"),
        ("x" * 200 + "\n", [], "context of 128 tokens"),
    ],
)
def test_a_mistake_ends_it_with_2(pristine, lines, options, words):
    done = chat(lines, *options, model=pristine)
    assert_refused((done.returncode, done.stderr), words)


def test_a_folder_without_a_tokenizer_or_with_one_that_is_too_large(model):
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    (model / "tokenizer.json").unlink()
    done = chat("x\n", model=model)
    assert_refused((done.returncode, done.stderr), "tokenizer.json")
    for place in range(8):  # ids 257 to 264; the model has 264 rows, up to id 263
        token = tokenizer["added_tokens"][0] | {"id": 257 + place, "content": f"<{place}>"}
        tokenizer["added_tokens"].append(token)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    done = chat("x\n", model=model)
    assert_refused((done.returncode, done.stderr), "[0, 263]", "'<7>' has 264", "tokenizer.json")
