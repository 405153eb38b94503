"""`awq-ref chat`: a conversation in a terminal, or through a pipe.

    run_chat    load a model and talk to it
    Terminal    reads lines, prints answers, obeys the commands of COMMANDS

What is said by whom is in `awq_ref.pipeline.chat`; here are keys and text on a screen.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from awq_ref.errors import AwqRefError, RangeError
from awq_ref.pipeline.chat import ChatSession, ChatSettings, with_sampling
from awq_ref.pipeline.chat_format import chat_format, load_conversation, save_conversation
from awq_ref.report.tables import format_bytes, format_table

PROMPT, MORE = "> ", "... "
# What a model may not do to a terminal: control characters but tab and line feed are shown as their pictures.
VISIBLE = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
VISIBLE |= dict.fromkeys(range(128, 160), 0xFFFD)
ENDINGS = {
    "length": "[stopped after {tokens} tokens; --max-new-tokens allows more]",
    "context": "[stopped: the context of {context} tokens is full; /reset begins anew]",
    "stopped": "[stopped]",
}


@dataclass
class Terminal:
    """One person at one keyboard, or a pipe.

    interactive   show prompts and notes; an error or Ctrl-C ends what it concerns, not the conversation
    """

    session: ChatSession
    name: str
    interactive: bool
    lines: TextIO
    answers: TextIO
    notes: TextIO

    # ---- what is printed ----

    def note(self, text: str) -> None:
        """Print something that is not the model's."""
        print(text, file=self.notes, flush=True)

    def answer(self, text: str) -> None:
        """Print an answer as it comes. Ctrl-C stops it; the conversation keeps what has come."""
        pieces, first, column = self.session.reply(text), True, 0
        if self.session.dropped_turns:
            self.note(f"[the oldest turns were forgotten: {self.session.dropped_turns}]")
        try:
            with contextlib.closing(pieces):
                for piece in pieces:
                    shown = piece.removeprefix("\n") if first else piece  # the line has ended on the screen
                    self.answers.write(shown.translate(VISIBLE))
                    self.answers.flush()
                    first, column = False, 0 if piece.endswith("\n") else 1
        except KeyboardInterrupt:
            if not self.interactive:
                raise
        if column:
            print(file=self.answers, flush=True)
        ending = ENDINGS.get(self.session.ending, "")
        if ending and self.interactive:
            self.note(ending.format(tokens=self.session.max_new_tokens, context=self.session.context))

    # ---- commands ----

    def help(self, _: str = "") -> None:
        """Say what there is."""
        for name, (_, argument, summary) in COMMANDS.items():
            self.note(f"  /{name} {argument}".ljust(16) + summary)
        self.note(
            "  A line that ends with \\ goes on in the next one. Ctrl-C stops an answer; Ctrl-D leaves."
        )

    def reset(self, _: str = "") -> None:
        """Forget the conversation."""
        self.session.restart()
        self.note("[a new conversation]")

    def save(self, argument: str) -> None:
        """Write the conversation to a file."""
        path = _path(argument, "save")
        save_conversation(path, self.session.messages, model=self.name)
        self.note(f"[saved {len(self.session.messages)} messages to {path}]")

    def load(self, argument: str) -> None:
        """Go on with the conversation of a file."""
        messages = load_conversation(_path(argument, "load"))
        self.session.restart(messages)
        self.note(f"[loaded {len(messages)} messages]")

    def stats(self, _: str = "") -> None:
        """Print what was read and written, how fast, and what lies in memory."""
        session, stats = self.session, self.session.stats
        cached = f"{session.cached_tokens} of {session.context} tokens, {format_bytes(session.cache_bytes)}"
        weights = format_bytes(sum(session.model.resident_bytes().values()))
        rows = [
            ["turns", f"{stats.turns}"],
            ["prompt tokens", f"{stats.prompt_tokens}, {stats.reused_tokens} of them from the cache"],
            ["prompt speed", f"{stats.prompt_speed:.1f} tokens/s"],
            ["new tokens", f"{stats.new_tokens}"],
            ["generation speed", f"{stats.new_speed:.1f} tokens/s"],
            *([["speculation", str(session.speculation)]] if session.settings.speculate else []),
            ["cache", cached],
            ["weights", f"{weights} ({session.model.residency_note})"],
        ]
        self.note(format_table(["measure", "value"], rows, left=2))

    def exit(self, _: str = "") -> None:
        """Leave, as the end of the input does."""
        raise EOFError

    # ---- the loop ----

    def _line(self, prompt: str) -> str:
        """Return the next line; EOFError at the end of the input."""
        if not self.interactive:
            line = self.lines.readline()
            if not line:
                raise EOFError
            return line.rstrip("\r\n")
        try:
            return input(prompt)
        except EOFError:
            print(file=self.answers, flush=True)
            raise

    def _message(self) -> str:
        """Return the next message: a line, or several of which all but the last end with a backslash."""
        lines = [self._line(PROMPT)]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._line(MORE))
        return "\n".join(lines)

    def obey(self, message: str) -> None:
        """Do what a line says: a command, or something for the model."""
        word, _, argument = message.partition(" ")
        if not message.startswith("/"):
            self.answer(message.encode("utf-8", "replace").decode("utf-8"))  # no lone surrogates
        elif word[1:] in COMMANDS:
            COMMANDS[word[1:]][0](self, argument.strip())
        else:
            known = ", ".join(f"/{name}" for name in COMMANDS)
            raise RangeError(
                f"chat: a command must be one of {known}; got {word}. Begin a message with a space."
            )

    def talk(self) -> None:
        """Read and answer until someone leaves; Ctrl-C at the prompt clears the line, twice leaves."""
        interrupts = 0
        while interrupts < 2:
            try:
                message = self._message()
                interrupts = 0
                if message.strip():
                    self.obey(message)
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                interrupts += 1
                self.note("\n[Ctrl-C again, Ctrl-D or /exit leaves]" if interrupts == 1 else "")
            except EOFError:
                return
            except AwqRefError as error:
                if not self.interactive:
                    raise
                self.note(f"awq-ref: {error}")


COMMANDS: dict[str, tuple[Callable[[Terminal, str], None], str, str]] = {
    "help": (Terminal.help, "", "this list"),
    "reset": (Terminal.reset, "", "forget the conversation, keep the system prompt"),
    "save": (Terminal.save, "FILE", "write the conversation to a file"),
    "load": (Terminal.load, "FILE", "go on with the conversation of a file"),
    "stats": (Terminal.stats, "", "tokens, speed, memory"),
    "exit": (Terminal.exit, "", "leave"),
}


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise RangeError(f"chat: /{command} needs a file; got none. Write /{command} FILE.")
    return Path(argument).expanduser()


@contextlib.contextmanager
def _line_editing(interactive: bool) -> Iterator[None]:
    """Arrow keys and history at the prompt, where Python has readline; and no character that cannot be printed."""
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    yield


def _session(arguments: argparse.Namespace) -> ChatSession:
    from awq_ref.checkpoint import resolve_model
    from awq_ref.pipeline import load_model

    folder = resolve_model(arguments.model)
    model = load_model(folder, residency=arguments.residency, head=arguments.head)
    settings = ChatSettings(
        model.defaults.sampling,
        max_new_tokens=arguments.max_new_tokens,
        system=arguments.system,
        seed=arguments.seed,
        drop_oldest=arguments.drop_oldest,
        speculate=arguments.speculate,
    )
    settings = with_sampling(
        settings,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
    )
    return ChatSession(model, chat_format(folder, model.require_tokenizer(), arguments.template), settings)


def run_chat(arguments: argparse.Namespace) -> int:
    """Talk to a model; the options are those of `awq-ref chat`."""
    session = _session(arguments)
    # A stream that was closed before we began is None.
    lines, answers, notes = (stream or io.StringIO() for stream in (sys.stdin, sys.stdout, sys.stderr))
    interactive = lines.isatty() and answers.isatty()
    terminal = Terminal(session, str(arguments.model), interactive, lines, answers, notes)
    if interactive:
        terminal.note(f"{arguments.model}, {session.form.description}. /help lists the commands.")
    with _line_editing(interactive):
        terminal.talk()
    return 0
