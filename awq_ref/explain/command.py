"""The command `awq-ref explain`: its options, and what it prints.

add_options    the options
run            arguments in, text on standard output, exit code out
"""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, but for the model and the calibration."""
    parser.add_argument(
        "--layer", required=True, metavar="NAME", help="model.layers.0.mlp.down_proj, or another"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="HTML file; must not exist")
    parser.add_argument("--row", type=int, help="output to look at; default: one that gains as most do")
    parser.add_argument("--group-size", type=int, default=32, help="weights that share a scale; -1: a row")
    parser.add_argument(
        "--docs", metavar="URL", help="of the built site's docs, for links from the equations"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write a page in which one steps through a layer."""
    from awq_ref.explain.page import explain_layer

    found = explain_layer(
        arguments.model,
        arguments.out,
        layer=arguments.layer,
        row=arguments.row,
        group_size=arguments.group_size,
        calibration=arguments.calibration,
        samples=arguments.samples,
        seq_len=arguments.seq_len,
        docs=arguments.docs,
    )
    about, best = found["about"], found["trials"][found["chosen"]]
    print(
        f"{arguments.out}: {about['layer']}, row {about['row']}: alpha {best['alpha']:g} leaves {best['relative']:.1%} "
        "of the loss of rounding to nearest. Open it in a browser."
    )
    return 0
