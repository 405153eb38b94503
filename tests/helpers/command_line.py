"""The command line in tests: run it, check that it refused and left nothing behind.

run                     in this process: exit code, standard error
shell                   in a process of its own
quantize_arguments      quantize with options that fit the tiny model
every_command           all commands that open a model, by name
assert_refused          exit code 2, no traceback, one message that holds these words
assert_nothing_written  neither the output folder nor a hidden one beside it
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from awq_ref import cli

NAMES = ("quantize", "generate", "perplexity", "inspect")
Result = tuple[int, str]


def run(capsys: Any, *arguments: object) -> Result:
    """Run the command line in this process; return exit code and standard error."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    return code, capsys.readouterr().err


def shell(arguments: list[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "awq_ref", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def quantize_arguments(model: Path, out: Path, text: Path, *extra: object) -> list[object]:
    options = ["--group-size", 16, "--samples", 4, "--seq-len", 64, "--calibration", text]
    return ["quantize", model, out, *options, *extra]


def every_command(model: Path, out: Path, text: Path) -> dict[str, list[object]]:
    return {
        "quantize": quantize_arguments(model, out, text),
        "generate": ["generate", model, "--prompt", "def ", "--max-new-tokens", 2],
        "perplexity": ["perplexity", model, "--text", text, "--seq-len", 64],
        "inspect": ["inspect", model],
    }


def assert_refused(result: Result, *words: str) -> None:
    code, message = result
    assert code == 2
    assert "Traceback" not in message
    for word in words:
        assert word in message


def assert_nothing_written(out: Path) -> None:
    assert not [path.name for path in out.parent.iterdir() if out.name in path.name]
