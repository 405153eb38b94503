"""What the terminal prints, with a session that is made up."""

import io

import pytest

from awq_ref.chat import Terminal
from awq_ref.errors import RangeError


class Recorder(io.StringIO):
    """A screen that knows what was on it when it was last told to show it."""

    shown = ""

    def flush(self):
        self.shown = self.getvalue()


class Session:
    """Answers with given pieces; checks that each one is on the screen before the next one is asked for."""

    max_new_tokens, context, dropped_turns, ending, messages = 5, 9, 0, "end", ()

    def __init__(self, *pieces, screen=None):
        self.pieces, self.screen, self.asked = pieces, screen, []

    def reply(self, text):
        self.asked.append(text)
        so_far = ""
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
            so_far += piece
            assert self.screen is None or self.screen.shown == so_far


def terminal(session, lines="", *, interactive=False):
    screen = session.screen or Recorder()
    return Terminal(session, "m", interactive, io.StringIO(lines), screen, io.StringIO())


def test_a_piece_is_on_the_screen_before_the_next_one_is_computed():
    screen = Recorder()
    one = terminal(Session("a", " b", "\n", "c", screen=screen))
    one.answer("x")
    assert screen.getvalue() == "a b\nc\n"


def test_the_line_break_that_is_on_the_screen_already_is_not_printed_twice():
    one = terminal(Session("\n    a", "\n"))
    one.answer("def f():")
    assert one.answers.getvalue() == "    a\n"


def test_control_characters_cannot_move_the_cursor():
    one = terminal(Session("a\x1b[2J\x07\tb\x9b\x7f\r\n"))
    one.answer("x")
    assert one.answers.getvalue() == "a\u241b[2J\u2407\tb\ufffd\u2421\u240d\n"


def test_lines_are_read_as_they_are_and_blank_ones_are_nothing():
    session = Session("y")
    terminal(session, "  indented \n\n   \none \\\ntwo\\\n\n /no command\n").talk()
    assert session.asked == ["  indented ", "one \ntwo\n", " /no command"]


def test_an_interrupt_stops_an_answer_or_all():
    session = Session("a", KeyboardInterrupt())
    session.ending = "stopped"
    one = terminal(session, interactive=True)
    one.answer("x")
    assert one.answers.getvalue() == "a\n"
    assert one.notes.getvalue() == "[stopped]\n"
    with pytest.raises(KeyboardInterrupt):
        terminal(session, "x\n").talk()


def test_what_was_forgotten_and_why_it_ended_is_said():
    session = Session("a\n")
    session.dropped_turns, session.ending = 2, "context"
    one = terminal(session, interactive=True)
    one.answer("x")
    first, second = one.notes.getvalue().splitlines()
    assert first == "[the oldest turns were forgotten: 2]"
    assert second == "[stopped: the context of 9 tokens is full; /reset begins anew]"


def test_an_error_ends_a_pipe():
    with pytest.raises(RangeError, match="got /what"):
        terminal(Session(), "/what\n").talk()
