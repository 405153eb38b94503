"""Experiment `calibration-shift`: calibrate on one kind of text, evaluate on another.

    documentation   the docstrings of a module: English
    bare_code       a module without docstrings and comments: code
    texts_of        one kind of text, from the files of one part of the standard library

Calibration text comes from the calibration files alone, evaluation text from the held-out ones.
Source: Lin et al. 2023, arXiv:2306.00978, section 5.3, figure 8 (b); docs/paper/calibration-shift.md.
"""

import ast
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from awq_ref.dtypes import I64
from awq_ref.paper.bench import Bench, ids_sha256, open_bench
from awq_ref.paper.experiment import Experiment, Options, Rows, Setup, select
from awq_ref.pipeline.texts import encode_texts
from awq_ref.report.progress import progress
from awq_ref.report.tables import format_table
from awq_ref.text.corpus import Split, stdlib_texts

CHOSEN = ("awq", "gptq")  # those of the paper's figure
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in other people's strings
        return ast.parse(source)


def _documented(tree: ast.Module) -> Iterator[tuple[DOCUMENTED, str]]:
    """Yield what has a docstring, and the docstring."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield node, text


def documentation(source: str) -> str:
    r"""Return the docstrings of a module, one after the other.

    Examples
    --------
    >>> documentation('def f(x):\n    "Return x."\n    return x  # the same\n')
    'Return x.'
    """
    return "\n\n".join(text for _, text in _documented(_parse(source)))


def bare_code(source: str) -> str:
    r"""Return a module without its docstrings and comments, written out anew.

    Examples
    --------
    >>> print(bare_code('def f(x):\n    "Return x."\n    return x  # the same\n'))
    def f(x):
        return x
    """
    tree = _parse(source)
    for node, _ in _documented(tree):
        node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


KINDS = {"documentation": documentation, "code": bare_code}


def texts_of(kind: str, split: Split) -> Iterator[str]:
    """Yield one kind of text of each file of a part of the standard library that has any."""
    for source in stdlib_texts(split):
        if text := KINDS[kind](source).strip():
            yield text


def evaluation_ids(bench: Bench, kind: str, limit: int) -> I64:
    """Return ids of one kind of text from the held-out files, the same share of every file."""
    tokenizer = bench.model.require_tokenizer()
    parts = [tokenizer.encode(text) for text in texts_of(kind, "validation")]
    total = sum(len(part) for part in parts)
    share = min(1.0, limit / total)
    cut = [part[: max(1, round(share * len(part)))] for part in parts]
    ids: I64 = np.concatenate(cut)[:limit]
    return ids


def run(options: Options) -> tuple[Rows, Setup]:
    """Return a row per kind of evaluation text for FP16, then one per recipe and pair of kinds."""
    names = options.recipes or CHOSEN
    with open_bench(options) as bench:
        tokenizer = bench.model.require_tokenizer()
        judged = {kind: evaluation_ids(bench, kind, options.tokens) for kind in KINDS}
        rows: Rows = [
            {
                "recipe": "fp16",
                "bits": 16,
                "evaluated_on": kind,
                "perplexity": bench.perplexity(bench.model, ids),
            }
            for kind, ids in judged.items()
        ]
        grids = [(bits, group_size) for bits in options.bits for group_size in options.group_size]
        jobs = [(kind, grid, name) for kind in KINDS for grid in grids for name in names]
        known = None
        for kind, (bits, group_size), name in progress(
            jobs, total=len(jobs), label="calibration-shift", unit="model"
        ):
            if known is None or known[0] != kind:
                ids = encode_texts(tokenizer, texts_of(kind, "calibration"))
                known = kind, bench.calibrate(bench.windows(0, token_ids=ids), name=kind)
            model, _ = bench.quantize(name, known[1], bits=bits, group_size=group_size)
            for other, ids in judged.items():
                row = {"recipe": name, "bits": bits, "group_size": group_size, "calibrated_on": kind}
                rows.append({**row, "evaluated_on": other, "perplexity": bench.perplexity(model, ids)})
        evaluation = {kind: {"tokens": len(ids), "sha256": ids_sha256(ids)} for kind, ids in judged.items()}
        return rows, bench.setup(evaluation=evaluation)


def _series(rows: Rows) -> list[tuple[str, int, int]]:
    measured = select(rows, evaluated_on="code")[1:]
    return list(dict.fromkeys((row["recipe"], row["bits"], row["group_size"]) for row in measured))


def _value(rows: Rows, series: tuple[str, int, int], seen: str, judged: str) -> float:
    recipe, bits, group_size = series
    grid = select(rows, recipe=recipe, bits=bits, group_size=group_size)
    return float(select(grid, calibrated_on=seen, evaluated_on=judged)[0]["perplexity"])


def table(rows: Rows) -> str:
    """Return perplexities: a line per recipe and calibration text, a column per evaluation text."""
    reference = [f"{select(rows, recipe='fp16', evaluated_on=kind)[0]['perplexity']:.3f}" for kind in KINDS]
    lines = [["FP16", "", *reference]]
    for series in _series(rows):
        for seen in KINDS:
            cells = []
            for judged in KINDS:
                value, matched = _value(rows, series, seen, judged), _value(rows, series, judged, judged)
                cells.append(f"{value:.3f}" if seen == judged else f"{value:.3f} ({value - matched:+.3f})")
            lines.append([f"{series[0]} INT{series[1]} g{series[2]}", seen, *cells])
    return format_table(
        ["recipe", "calibrated on", *[f"evaluated on {kind}" for kind in KINDS]], lines, left=2
    )


def plot(figure: Any, rows: Rows) -> None:
    """Draw what a mismatch costs, in percent of the perplexity with matching text, as bars."""
    axes = figure.subplots()
    series = _series(rows)
    positions = np.arange(len(series), dtype=np.float64)
    for i, judged in enumerate(KINDS):
        (seen,) = set(KINDS) - {judged}
        costs = [
            100 * (_value(rows, one, seen, judged) / _value(rows, one, judged, judged) - 1) for one in series
        ]
        bars = axes.bar(
            positions + (i - 0.5) * 0.36, costs, 0.34, label=f"calibrated on {seen}, evaluated on {judged}"
        )
        axes.bar_label(bars, fmt="%.2f %%", padding=2)
    axes.axhline(0.0, color="0.3", lw=1)
    axes.set_xticks(positions, [f"{recipe} INT{bits} g{group_size}" for recipe, bits, group_size in series])
    axes.set(ylabel="perplexity lost by the mismatch, %")
    axes.set_xlim(-0.9, len(series) - 0.1)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center")


EXPERIMENT = Experiment(
    name="calibration-shift",
    title="calibrate on English documentation or on code, evaluate on either: the cost of the mismatch",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "bits", "group_size", "recipes", "samples", "seq_len", "tokens"),
    defaults=Options(bits=(3,), group_size=(128,), samples=32, tokens=16384),
)
