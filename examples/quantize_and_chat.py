"""Quantize a model to INT4 and talk to it.

python examples/quantize_and_chat.py [MODEL [OUT]]      MODEL: a folder or a name on the hub; default: the embedded one
"""

import sys
import tempfile
from pathlib import Path

import awq_ref
from awq_ref.checkpoint import demo_model_path
from awq_ref.pipeline.chat import ChatSession, ChatSettings
from awq_ref.pipeline.chat_format import chat_format


def main(model: str, out: Path) -> None:
    """Quantize, then answer each line of standard input."""
    report = awq_ref.quantize_model(model, out, bits=4, group_size=128, samples=8)
    print(report.table())
    quantized = awq_ref.load_model(out)
    print(f"in memory: {quantized.resident_bytes()}")
    form = chat_format(out, quantized.require_tokenizer())  # the model's own template, where it has one
    session = ChatSession(quantized, form, ChatSettings(max_new_tokens=24))
    for line in sys.stdin:
        for piece in session.reply(line.rstrip("\n")):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [*sys.argv[1:], str(demo_model_path()), str(Path(scratch) / "int4")]
        given = len(sys.argv) - 1
        main(arguments[0], Path(arguments[1] if given == 2 else arguments[-1]))
