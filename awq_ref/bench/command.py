"""The command `awq-ref bench`: its options, and what it prints.

add_options    the options
run            arguments in, text on standard output, exit code out
"""

import argparse
import sys
from pathlib import Path

from awq_ref.matmul import RESIDENCIES
from awq_ref.pipeline.tables import HEADS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="checkpoint folder or name on the hub; default: the embedded model")
    which.add_argument(
        "--shape", metavar="NAME", help="random weights of this model's sizes: qwen2.5-0.5b, ..."
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: one per processor")
    parser.add_argument(
        "--residency", nargs="+", default=RESIDENCIES, choices=RESIDENCIES, help="how weights stay in memory"
    )
    parser.add_argument(
        "--head", nargs="+", default=HEADS[:1], choices=HEADS, help="how the head stays in memory"
    )
    parser.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens that are read at once")
    parser.add_argument("--new", type=int, default=32, metavar="N", help="tokens that are generated")
    parser.add_argument(
        "--layers",
        type=int,
        default=0,
        metavar="N",
        help="of a shape, measured and scaled to all; 0: those that fit",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a roofline: .png, .svg or .pdf")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")


def run(arguments: argparse.Namespace) -> int:
    """Measure this machine, and a model on it."""
    from awq_ref.bench.plot import draw_bench
    from awq_ref.bench.run import run_bench
    from awq_ref.bench.tables import text_of
    from awq_ref.checkpoint import write_json
    from awq_ref.paper.output import require_output

    require_output(arguments.plot, arguments.json)  # before the work
    result = run_bench(
        model=arguments.model,
        shape=arguments.shape,
        residencies=arguments.residency,
        heads=arguments.head,
        threads=arguments.threads,
        prompt=arguments.prompt,
        new=arguments.new,
        layers=arguments.layers,
        say=lambda text: print(f"awq-ref bench: {text}", file=sys.stderr),
    )
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.plot:
        draw_bench(result, arguments.plot)
    print(text_of(result))
    return 0
