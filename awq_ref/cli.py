"""The command line: `awq-ref quantize | calibrate | generate | chat | perplexity | inspect | paper | bench | ...`.

The options of every command; what they do is in `awq_ref.commands`.
Exit code 0: done. 1: `conform` found a backend wrong. 2: an error or an interrupt, one message on standard error and
nothing half-written.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from awq_ref import __version__, commands
from awq_ref.bench import command as bench
from awq_ref.errors import AwqRefError, CalibrationWarning
from awq_ref.matmul import RESIDENCIES
from awq_ref.model import OVERFLOWS
from awq_ref.pack import FOLDER_LAYOUTS, LAYOUTS
from awq_ref.paper.experiment import Options
from awq_ref.pipeline.tables import HEADS
from awq_ref.search import RECIPES
from awq_ref.spec import BITS, STATE_DTYPES
from awq_ref.text.sampling import GREEDY, Sampling
from awq_ref.vectors.addresses import PLACES
from awq_ref.vectors.case import LEVELS

ON_HUB = "or its name on the Hugging Face hub: NAME or NAME@REVISION"


def _add_command(
    parsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = parsers.add_parser(
        name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _add_calibration(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument(
        "--calibration", type=Path, nargs="+", metavar="FILE", help="UTF-8 text; default: Python's library"
    )
    parser.add_argument("--samples", type=int, default=128, help="calibration windows")
    parser.add_argument("--seq-len", type=int, default=512, help="tokens per window")


def _add_quantize(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "quantize", commands.run_quantize, "quantize a checkpoint to a new folder")
    parser.add_argument("model", help=f"folder with config.json and safetensors, {ON_HUB}")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--bits", type=int, default=4, choices=BITS, help="bits per weight")
    parser.add_argument(
        "--group-size", type=int, default=128, help="weights that share a scale; -1: a whole row"
    )
    parser.add_argument("--symmetric", action="store_true", help="no zero points")
    parser.add_argument("--recipe", default="awq", help=", ".join(RECIPES))
    _add_calibration(parser)
    parser.add_argument("--statistics", type=Path, metavar="FILE", help="of `calibrate`, instead of text")
    parser.add_argument(
        "--max-shard-bytes", type=int, default=5 * 10**9, help="size of a safetensors file at most"
    )
    parser.add_argument("--memory", metavar="SIZE", help="what it may take, e.g. 4GB; default: no limit")
    parser.add_argument(
        "--activations", default="float32", choices=STATE_DTYPES, help="of hidden states between blocks"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes beside this one")
    parser.add_argument(
        "--restart", action="store_true", help="drop the finished blocks of an interrupted run"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="save the full report here (safetensors)")
    parser.add_argument("--verbose", action="store_true", help="print the choice made at every site")


def _add_residency(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--residency", default="packed", choices=RESIDENCIES, help="how quantized weights stay in memory"
    )
    parser.add_argument("--head", default="float", choices=HEADS, help="how the head stays in memory")


def _add_calibrate(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        parsers, "calibrate", commands.run_calibrate, "observe a model once, for any number of `quantize`"
    )
    parser.add_argument("model", help=f"float checkpoint folder, {ON_HUB}")
    parser.add_argument("out", type=Path, metavar="FILE", help="file to write (safetensors); must not exist")
    _add_calibration(parser)


def _add_sampling(parser: argparse.ArgumentParser, defaults: Sampling | None) -> None:
    """Add how a model picks tokens and holds its weights; without defaults, generation_config.json has them."""

    def add(name: str, kind: type, summary: str) -> None:
        default = None if defaults is None else getattr(defaults, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=default, help=summary)

    add("temperature", float, "0: always the most likely token")
    add("top_p", float, "sample from the likeliest tokens that hold this share")
    add("top_k", int, "sample from this many likeliest tokens; 0: all")
    add("min_p", float, "sample from tokens at least this share as likely as the likeliest")
    add("repetition_penalty", float, "above 1: what was seen becomes less likely")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument(
        "--speculate",
        type=int,
        default=0,
        metavar="N",
        help="guess up to N tokens from what the text repeats, and check them in one pass; the text stays the same",
    )
    _add_residency(parser)


def _add_generate(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "generate", commands.run_generate, "continue a prompt")
    parser.add_argument("model", help=f"float or quantized checkpoint folder, {ON_HUB}")
    parser.add_argument("--prompt", required=True, help="text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="stop after this many")
    parser.add_argument(
        "--overflow",
        default="error",
        choices=OVERFLOWS,
        help="where the context ends: stop, and refuse a longer prompt; or roll, and forget the oldest tokens",
    )
    _add_sampling(parser, GREEDY)


def _add_chat(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "chat", commands.run_chat, "talk to a model")
    parser.add_argument("model", help=f"float or quantized checkpoint folder, {ON_HUB}")
    parser.add_argument("--system", metavar="TEXT", help="what stands before the conversation")
    parser.add_argument(
        "--template", type=Path, metavar="FILE", help="a chat template instead of the model's own"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, help="of an answer; default: a quarter of the context, at most 512"
    )
    parser.add_argument(
        "--drop-oldest", action="store_true", help="forget the oldest turns when the context is full"
    )
    _add_sampling(parser, None)


def _add_perplexity(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        parsers, "perplexity", commands.run_perplexity, "measure how well a model predicts a text"
    )
    parser.add_argument("model", help=f"float or quantized checkpoint folder, {ON_HUB}")
    parser.add_argument("--text", type=Path, help="UTF-8 file; default: held-out files of Python's library")
    parser.add_argument("--seq-len", type=int, default=512, help="tokens of context in a window")
    parser.add_argument("--stride", type=int, help="tokens from window to window; default: seq-len")
    parser.add_argument("--reference", metavar="FLOAT_MODEL", help="its divergence from this one")
    parser.add_argument("--max-tokens", type=int, help="evaluate on about this many tokens only")
    _add_residency(parser)


def _add_paper(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "paper", commands.run_paper, "repeat an experiment of the paper")
    parser.add_argument("experiment", nargs="?", help="its name; without one, list the experiments")
    for item in fields(Options):  # what is not given stays away: every experiment has its own defaults
        parser.add_argument(f"--{item.name.replace('_', '-')}", default=argparse.SUPPRESS, **item.metadata)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw its figure: .png, .svg or .pdf")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write its rows and its setup here")


def _add_bench(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bench.add_options(_add_command(parsers, "bench", bench.run, "measure this machine, and a model on it"))


def _add_inspect(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "inspect", commands.run_inspect, "say what a checkpoint holds")
    parser.add_argument("model", help=f"float or quantized checkpoint folder, {ON_HUB}")
    parser.add_argument("quantized", nargs="?", help="with --errors: what was made of it")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument(
        "--errors",
        action="store_true",
        help="say what quantization did to every linear: --errors MODEL QUANTIZED",
    )
    errors = parser.add_argument_group("with --errors")
    errors.add_argument("--report", type=Path, metavar="FILE", help="of quantize: all scales exactly")
    _add_calibration(errors)
    errors.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")


def _add_convert(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(
        parsers, "convert", commands.run_convert, "a quantized checkpoint in another layout"
    )
    parser.add_argument("model", help=f"quantized checkpoint folder, {ON_HUB}")
    parser.add_argument("out", type=Path, help="folder (gguf: file) to write; must not exist")
    layouts = (*FOLDER_LAYOUTS, "gguf")
    parser.add_argument("--layout", required=True, choices=layouts, help="what to write")
    parser.add_argument(
        "--allow-rounding", action="store_true", help="change weights that do not fit exactly"
    )
    parser.add_argument(
        "--max-shard-bytes", type=int, default=5 * 10**9, help="size of a safetensors file at most"
    )


def _add_vectors(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "vectors", commands.run_vectors, "golden vectors as plain files")
    parser.add_argument("action", choices=("copy",), help="copy: write them into a new folder")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--level", action="append", choices=LEVELS, help="only this one; may be repeated")
    parser.add_argument("--layout", action="append", choices=LAYOUTS, help="only cases of this layout")


def _add_conform(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "conform", commands.run_conform, "hold a backend to the golden vectors")
    parser.add_argument(
        "--cmd", metavar="COMMAND", help="a program that speaks docs/conformance.md's protocol"
    )
    parser.add_argument("--python", metavar="MODULE", help="a module with answer(request)")
    parser.add_argument(
        "--run", dest="run_globs", action="append", metavar="GLOB", help="only cases of ids like this"
    )
    parser.add_argument("--skip", action="append", metavar="GLOB", help="no case of an id like this")
    parser.add_argument("--xfail", type=Path, metavar="FILE", help="globs of ids that are known to fail")
    parser.add_argument("--report", choices=("junit", "tap", "json", "html"), help="on standard output")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for a case; default: 10, 60 at L6")
    parser.add_argument(
        "--repeat", type=int, default=1, help="ask every case so often: state that is left shows"
    )
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="a folder of `vectors copy`")


def _add_explain_layout(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(parsers, "explain-layout", commands.run_explain_layout, "draw the bits of a layout")
    parser.add_argument("layout", choices=PLACES, help="its name")
    parser.add_argument("--rows", type=int, default=8, help="outputs")
    parser.add_argument("--cols", type=int, default=32, help="inputs")
    parser.add_argument("--bits", type=int, default=4, choices=BITS, help="bits per weight")
    parser.add_argument("--group-size", type=int, default=-1, help="weights that share a scale; -1: a row")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="awq-ref", description="AWQ quantization and int4 inference in NumPy."
    )
    parser.add_argument("--version", action="version", version=f"awq-ref {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_quantize(parsers)
    _add_calibrate(parsers)
    _add_generate(parsers)
    _add_chat(parsers)
    _add_perplexity(parsers)
    _add_inspect(parsers)
    _add_paper(parsers)
    _add_bench(parsers)
    _add_convert(parsers)
    _add_vectors(parsers)
    _add_conform(parsers)
    _add_explain_layout(parsers)
    demo = _add_command(parsers, "demo", commands.run_demo, "quantize the embedded model and show the result")
    demo.add_argument("--out", type=Path, default=Path("awq_ref_demo"), help="folder for the checkpoints")
    return parser


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"awq-ref: warning: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", CalibrationWarning)
            warnings.showwarning = _show_warning
            return int(arguments.run(arguments))
    except AwqRefError as error:
        print(f"awq-ref: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:  # its message: what was kept
        left = str(interrupt) or "no unfinished output was left behind"
        print(f"awq-ref: interrupted; {left}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output (head, less) has gone: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
