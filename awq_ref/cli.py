"""The command line: `awq-ref quantize | generate | perplexity | inspect | paper | demo`.

Each command is one function; it prints what a person wants to know and leaves the work to `awq_ref.pipeline`.
Exit code 0: done. 2: an error or an interrupt, one message on standard error and nothing half-written.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from awq_ref import __version__
from awq_ref.errors import AwqRefError, UnsupportedError
from awq_ref.matmul import RESIDENCIES
from awq_ref.paper.experiment import Options
from awq_ref.spec import BITS


def _quantize(arguments: argparse.Namespace) -> int:
    from awq_ref.pipeline import folder_bytes, quantize_model
    from awq_ref.report.tables import format_bytes

    report = quantize_model(
        arguments.model,
        arguments.out,
        recipe=arguments.recipe,
        bits=arguments.bits,
        group_size=arguments.group_size,
        symmetric=arguments.symmetric,
        calibration=arguments.calibration,
        samples=arguments.samples,
        seq_len=arguments.seq_len,
        max_shard_bytes=arguments.max_shard_bytes,
    )
    if arguments.report:
        report.save(arguments.report)
    if report.layers and arguments.verbose:
        print(report.table(), end="\n\n")
    size = format_bytes(folder_bytes(arguments.out))
    print(
        f"{arguments.out}: recipe {report.recipe}, INT{report.spec.bits}, {report.bits_per_weight:.3f} bits per "
        f"weight, layout {report.layout}, {size}, {report.seconds:.1f} s"
    )
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    from awq_ref.pipeline import load_model
    from awq_ref.report.tables import format_bytes

    model = load_model(arguments.model, residency=arguments.residency)
    n_tokens, started = 0, time.perf_counter()
    stream = model.stream_text(
        arguments.prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )
    print(arguments.prompt, end="", flush=True)
    for piece in stream:
        n_tokens += 1
        print(piece, end="", flush=True)
    seconds = time.perf_counter() - started
    print()
    print(
        f"[{n_tokens} tokens, {n_tokens / seconds:.1f} tokens/s with the prompt's time counted; weights resident: "
        f"{format_bytes(sum(model.resident_bytes().values()))} ({model.residency_note})]",
        file=sys.stderr,
    )
    return 0


def _perplexity(arguments: argparse.Namespace) -> int:
    import math

    from awq_ref.pipeline import evaluation_tokens, load_model
    from awq_ref.report.divergence import kl_divergence
    from awq_ref.report.perplexity import perplexity
    from awq_ref.report.tables import format_table

    model = load_model(arguments.model, residency=arguments.residency)
    token_ids, source, n_bytes = evaluation_tokens(
        model.require_tokenizer(), arguments.text, limit=arguments.max_tokens
    )
    seq_len = min(arguments.seq_len, model.config.max_position_embeddings)
    result = perplexity(model, token_ids, seq_len=seq_len, stride=min(arguments.stride or seq_len, seq_len))
    rows = [
        ["text", source],
        ["perplexity", f"{result.perplexity:.4f}"],
        ["nats per token", f"{result.nll:.5f}"],
        ["bits per byte", f"{result.nll * result.n_tokens / math.log(2) / n_bytes:.5f}"],
        ["tokens scored", f"{result.n_tokens}"],
        ["window, stride", f"{result.seq_len}, {result.stride}"],
        ["tokens/s", f"{result.n_tokens / result.seconds:.0f}"],
    ]
    if arguments.reference:
        reference = load_model(arguments.reference, residency=arguments.residency)
        kl = kl_divergence(reference, model, token_ids, seq_len=seq_len)
        rows.append(["KL to the reference", f"{kl:.6f} nats per token, stride {seq_len}"])
    print(format_table(["measure", "value"], rows, left=2))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from awq_ref.pipeline import describe_model

    if arguments.errors != (arguments.quantized is not None):
        raise UnsupportedError("inspect: takes one folder, or two as in inspect --errors MODEL QUANTIZED.")
    if arguments.errors:
        return _inspect_errors(arguments)
    print(describe_model(arguments.model, tensors=arguments.tensors))
    return 0


def _inspect_errors(arguments: argparse.Namespace) -> int:
    from awq_ref.checkpoint import write_json
    from awq_ref.paper.output import require_output
    from awq_ref.pipeline import compare_models

    require_output(None, arguments.json)  # before the work
    found = compare_models(
        arguments.model,
        arguments.quantized,
        report=arguments.report,
        calibration=arguments.calibration,
        samples=arguments.samples,
        seq_len=arguments.seq_len,
    )
    if arguments.json:
        write_json(arguments.json, found.to_json())
    print(found.text())
    return 0


def _paper(arguments: argparse.Namespace) -> int:
    from awq_ref.paper.experiment import changes_of
    from awq_ref.paper.output import draw, require_output, save_json
    from awq_ref.paper.registry import experiment_named, list_experiments, run_experiment

    if arguments.experiment is None:
        print(list_experiments())
        return 0
    experiment = experiment_named(arguments.experiment)
    changes = changes_of(vars(arguments))
    experiment.options(**changes)  # raises before the work begins
    require_output(arguments.plot, arguments.json)
    result = run_experiment(experiment.name, **changes)
    print(experiment.table(result.rows))
    if arguments.json:
        save_json(result, arguments.json)
    if arguments.plot:
        draw(experiment, result.rows, arguments.plot)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from awq_ref.demo import run_demo

    run_demo(arguments.out)
    return 0


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
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


def _add_quantize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(commands, "quantize", _quantize, "quantize a checkpoint folder to a new folder")
    parser.add_argument("model", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--bits", type=int, default=4, choices=BITS, help="bits per weight")
    parser.add_argument(
        "--group-size", type=int, default=128, help="weights that share a scale; -1: a whole row"
    )
    parser.add_argument("--symmetric", action="store_true", help="no zero points")
    parser.add_argument("--recipe", default="awq", help="awq, llm-awq or rtn")
    _add_calibration(parser)
    parser.add_argument(
        "--max-shard-bytes", type=int, default=5 * 10**9, help="size of a safetensors file at most"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="save the full report here (safetensors)")
    parser.add_argument("--verbose", action="store_true", help="print the choice made at every site")


def _add_generate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(commands, "generate", _generate, "continue a prompt")
    parser.add_argument("model", type=Path, help="float or quantized checkpoint folder")
    parser.add_argument("--prompt", required=True, help="text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="stop after this many")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the most likely token")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="sample from the likeliest tokens that hold this share"
    )
    parser.add_argument("--top-k", type=int, default=0, help="sample from this many likeliest tokens; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument(
        "--residency", default="packed", choices=RESIDENCIES, help="how quantized weights stay in memory"
    )


def _add_perplexity(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(commands, "perplexity", _perplexity, "measure how well a model predicts a text")
    parser.add_argument("model", type=Path, help="float or quantized checkpoint folder")
    parser.add_argument("--text", type=Path, help="UTF-8 file; default: held-out files of Python's library")
    parser.add_argument("--seq-len", type=int, default=512, help="tokens of context in a window")
    parser.add_argument("--stride", type=int, help="tokens from window to window; default: seq-len")
    parser.add_argument("--reference", type=Path, metavar="FLOAT_MODEL", help="its divergence from this one")
    parser.add_argument("--max-tokens", type=int, help="evaluate on about this many tokens only")
    parser.add_argument(
        "--residency", default="packed", choices=RESIDENCIES, help="how quantized weights stay in memory"
    )


def _add_paper(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(commands, "paper", _paper, "repeat an experiment of the paper")
    parser.add_argument("experiment", nargs="?", help="its name; without one, list the experiments")
    for item in fields(Options):  # what is not given stays away: every experiment has its own defaults
        parser.add_argument(f"--{item.name.replace('_', '-')}", default=argparse.SUPPRESS, **item.metadata)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw its figure: .png, .svg or .pdf")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write its rows and its setup here")


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_command(commands, "inspect", _inspect, "say what a checkpoint folder holds")
    parser.add_argument("model", type=Path, help="float or quantized checkpoint folder")
    parser.add_argument("quantized", type=Path, nargs="?", help="with --errors: what was made of it")
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="awq-ref", description="AWQ quantization and int4 inference in NumPy."
    )
    parser.add_argument("--version", action="version", version=f"awq-ref {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_quantize(commands)
    _add_generate(commands)
    _add_perplexity(commands)
    _add_inspect(commands)
    _add_paper(commands)
    demo = _add_command(commands, "demo", _demo, "quantize the embedded model and show the result")
    demo.add_argument("--out", type=Path, default=Path("awq_ref_demo"), help="folder for the checkpoints")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except AwqRefError as error:
        print(f"awq-ref: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("awq-ref: interrupted; no unfinished output was left behind", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output (head, less) has gone: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
