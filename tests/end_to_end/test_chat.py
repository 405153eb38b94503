"""`awq-ref chat` as a person uses it: the embedded model, a terminal (pexpect), keys and lines."""

import json
import os
import re
import signal
import sys
import warnings

import pytest
from helpers.source import ROOT

from awq_ref.checkpoint import demo_model_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a Unix terminal")

PATIENCE = 60  # seconds that a loaded machine may take for a few hundred tokens
PROMPT = "\r\n> "


def heeds_interrupts():
    """Undo what a shell does to programs that it starts in the background: they, and their children, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Person:
    """Someone at a terminal, on which the chat runs."""

    def __init__(self, *options, folder):
        import pexpect

        environment = os.environ | {"TERM": "dumb", "INPUTRC": os.devnull, "PYTHONPATH": str(ROOT)}
        arguments = ["-m", "awq_ref", "chat", str(demo_model_path()), *options]
        with warnings.catch_warnings():
            # Newer Pythons warn of a fork beside threads; the child becomes another program at once.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.child = pexpect.spawn(
                sys.executable, arguments, env=environment, cwd=folder, encoding="utf-8", timeout=PATIENCE,
                preexec_fn=heeds_interrupts,
            )  # fmt: skip
        self.end, self.late = pexpect.EOF, pexpect.TIMEOUT
        self.wait(r"/help lists the commands\.\r\n> ")

    def wait(self, pattern):
        """Wait for a text; return what came before it and itself."""
        self.child.expect(pattern)
        return self.child.before + self.child.after

    def says(self, line):
        """Write a line; return all that comes until the next prompt."""
        self.child.sendline(line)
        return self.wait(PROMPT)

    def interrupts_at_the_prompt(self, pattern):
        """Press Ctrl-C until it is noticed: readline misses one that comes between two looks at the keyboard."""
        for _ in range(6):
            self.child.sendintr()
            if self.child.expect([pattern, self.late], timeout=PATIENCE / 6) == 0:
                return
        raise AssertionError(f"Ctrl-C was never noticed: {self.child.before!r}")

    def leaves(self):
        """Wait until the chat has ended; return its exit code."""
        self.child.expect(self.end)  # again and again, once it has
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def person(tmp_path):
    people = []

    def sits_down(*options):
        people.append(Person(*options, folder=tmp_path))
        return people[-1]

    yield sits_down
    for one in people:
        one.child.close(force=True)


def measure(table, name):
    """The numbers of a row of /stats."""
    row = re.search(rf"\| {name} +\| ([^|]*)\|", table)
    return [float(number) for number in re.findall(r"[\d.]+", row[1])]


def test_an_answer_comes_piece_by_piece(person):
    one = person("--max-new-tokens", "200")
    one.child.sendline("def read_lines(path):")
    chunks, seen = [], ""
    while "[stopped after 200 tokens" not in seen:
        chunks.append(one.child.read_nonblocking(4096, timeout=PATIENCE))
        seen += chunks[-1]
    assert len(chunks) > 10  # a program that prints at the end needs one or two
    assert "Traceback" not in seen
    one.child.sendline("/exit")
    assert one.leaves() == 0


def test_control_c_stops_the_answer_and_the_conversation_goes_on(person):
    one = person("--max-new-tokens", "400")
    one.child.sendline("class Stack:")
    one.wait(r"class Stack:\r\n.*\w.*\r\n")
    one.child.sendintr()
    shown = one.wait(r"\[stopped\]\r\n> ")
    assert "Traceback" not in shown
    table = one.says("/stats")
    assert measure(table, "turns") == [1]
    assert 0 < measure(table, "new tokens")[0] < 400
    assert one.says("/save chat.json").count("[saved 2 messages to chat.json]") == 1
    one.child.sendline("def pop(self):")
    one.wait(r"def pop\(self\):\r\n.*\w.*\r\n")
    one.child.sendintr()
    one.wait(r"\[stopped\]\r\n> ")
    table = one.says("/stats")
    prompt, reused = measure(table, "prompt tokens")
    assert measure(table, "turns") == [2]
    assert 0 < reused < prompt  # the first turn was not read again
    one.child.sendeof()
    assert one.leaves() == 0


def test_reset_save_load_and_stats(person, tmp_path):
    one = person("--max-new-tokens", "12", "--system", "import os")
    first = one.says("def main():")
    one.says("    return")
    assert "[saved 5 messages to chat.json]" in one.says("/save chat.json")
    assert "[a new conversation]" in one.says("/reset")
    # greedy, and the same text before it: the same answer, read from the cache
    assert one.says("def main():") == first
    table = one.says("/stats")
    assert measure(table, "turns") == [3]
    assert measure(table, "new tokens") == [36]
    assert all(speed > 0 for name in ("prompt speed", "generation speed") for speed in measure(table, name))
    assert measure(table, "cache")[1] == 512
    assert "[loaded 5 messages]" in one.says("/load chat.json")
    one.says("x = 1")
    assert "[saved 7 messages to again.json]" in one.says("/save again.json")
    saved, again = (
        json.loads((tmp_path / name).read_text())["messages"] for name in ("chat.json", "again.json")
    )
    assert again[:5] == saved
    assert [message["role"] for message in again] == ["system", *["user", "assistant"] * 3]
    one.child.sendline("/exit")
    assert one.leaves() == 0


def test_mistakes_are_told_and_forgiven(person, tmp_path):
    one = person("--max-new-tokens", "4")
    (tmp_path / "other.json").write_text("{}")
    for line, message in {
        "/sav chat.json": "a command must be one of /help, /reset",
        "/save": "/save needs a file",
        "/save other.json": "other.json: exists, and holds no conversation",
        "/save absent/chat.json": "absent/chat.json: cannot be written",
        "/load other.json": "must hold a conversation that /save wrote",
        "/load absent.json": "absent.json: the file must exist",
        "x = " * 600: "must fit the model's context of 512 tokens",
    }.items():
        shown = one.says(line).replace("\r\n", "")
        assert "awq-ref: " in shown
        assert message in shown
        assert "Traceback" not in shown
    assert "/stats" in one.says("/help")
    one.child.sendline("def f():\\")
    one.wait(r"\.\.\. ")
    assert one.says("    return 1")
    assert measure(one.says("/stats"), "turns") == [1]
    one.says("/save chat.json")
    messages = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert messages[0]["content"] == "def f():\n    return 1"


def test_control_c_at_the_prompt_clears_the_line_and_twice_leaves(person):
    one = person("--max-new-tokens", "4")
    one.child.send("half a line")
    one.wait("half a line")
    one.interrupts_at_the_prompt(r"\[Ctrl-C again, Ctrl-D or /exit leaves\]\r\n> ")
    one.says("import os")
    assert measure(one.says("/stats"), "turns") == [1]
    one.interrupts_at_the_prompt("leaves]\r\n> ")
    one.interrupts_at_the_prompt(one.end)
    assert one.leaves() == 0
