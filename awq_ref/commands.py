"""What each command of `awq-ref` does: arguments in, text on standard output, exit code out.

The work is done by `awq_ref.pipeline` and `awq_ref.paper`; a command only says what a person wants to know of it. What
a command needs is imported when it runs, so that `awq-ref --help` is quick.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from awq_ref.checks import require_between
from awq_ref.errors import OutputError, UnsupportedError


@contextmanager
def _workers(n_workers: int) -> Iterator[Executor | None]:
    """Yield an executor of so many processes; None for none."""
    require_between("quantize", "workers", n_workers, 0, 1024)
    if not n_workers:
        yield None
        return
    executor = ProcessPoolExecutor(n_workers, mp_context=get_context("spawn"))  # no forked BLAS
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def run_quantize(arguments: argparse.Namespace) -> int:
    """Quantize a checkpoint folder; print what came of it."""
    from awq_ref.pipeline import ModelStatistics, folder_bytes, quantize_model
    from awq_ref.report.tables import format_bytes

    if arguments.statistics and arguments.calibration:
        raise UnsupportedError("quantize: takes --statistics or --calibration, not both.")
    with _workers(arguments.workers) as executor:
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
            statistics=ModelStatistics.load(arguments.statistics) if arguments.statistics else None,
            max_shard_bytes=arguments.max_shard_bytes,
            memory=arguments.memory,
            activations=arguments.activations,
            executor=executor,
            ahead=max(1, arguments.workers),
            restart=arguments.restart,
            planned=lambda plan: print(f"memory: at most {plan.told()} expected", flush=True),
        )
    if arguments.report:
        report.save(arguments.report)
    if report.layers and arguments.verbose:
        print(report.table(), end="\n\n")
    size = format_bytes(folder_bytes(arguments.out))
    print(
        f"{arguments.out}: recipe {report.recipe}, INT{report.spec.bits}, {report.bits_per_weight:.3f} bits per "
        f"weight, layout {report.layout}, {size}, {report.seconds:.1f} s; peak memory "
        f"{format_bytes(report.peak_bytes)} of {format_bytes(report.predicted_bytes)} expected"
    )
    return 0


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Observe a float model and save the statistics of all its sites."""
    from awq_ref.pipeline import calibrate
    from awq_ref.report.tables import format_bytes

    if arguments.out.exists() or not arguments.out.parent.is_dir():
        raise OutputError(
            f"calibrate: {arguments.out} must be a new file in a folder that exists; it is not."
        )
    started = time.perf_counter()
    found = calibrate(
        arguments.model,
        calibration=arguments.calibration,
        samples=arguments.samples,
        seq_len=arguments.seq_len,
    )
    found.save(arguments.out)
    size, seconds = format_bytes(arguments.out.stat().st_size), time.perf_counter() - started
    print(f"{arguments.out}: statistics of {len(found.sites)} sites, {size}, {seconds:.1f} s")
    return 0


def run_generate(arguments: argparse.Namespace) -> int:
    """Continue a prompt, piece by piece."""
    from awq_ref.model import Speculation
    from awq_ref.pipeline import load_model
    from awq_ref.report.tables import format_bytes

    speculation = Speculation(arguments.speculate)  # before the model is read: its value may be wrong
    model = load_model(arguments.model, residency=arguments.residency, head=arguments.head)
    n_tokens, started = -1, time.perf_counter()  # the last piece is no token: what was held back
    stream = model.stream_text(
        arguments.prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
        overflow=arguments.overflow,
        speculate=speculation,
    )
    print(arguments.prompt, end="", flush=True)
    for piece in stream:
        n_tokens += 1
        print(piece, end="", flush=True)
    seconds = time.perf_counter() - started
    print()
    print(
        f"[{n_tokens} tokens, {n_tokens / seconds:.1f} tokens/s with the prompt's time counted; weights resident: "
        f"{format_bytes(sum(model.resident_bytes().values()))} ({model.residency_note})"
        f"{f'; {speculation}' if speculation.guesses else ''}]",
        file=sys.stderr,
    )
    return 0


def run_chat(arguments: argparse.Namespace) -> int:
    """Talk to a model."""
    from awq_ref.chat import run_chat as talk

    return talk(arguments)


def run_perplexity(arguments: argparse.Namespace) -> int:
    """Measure a model on a text, and its divergence from another."""
    import math

    from awq_ref.pipeline import evaluation_tokens, load_model
    from awq_ref.report.divergence import kl_divergence
    from awq_ref.report.perplexity import perplexity
    from awq_ref.report.tables import format_table

    model = load_model(arguments.model, residency=arguments.residency, head=arguments.head)
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


def run_inspect(arguments: argparse.Namespace) -> int:
    """Say what a folder holds, or what quantization did to it."""
    from awq_ref.pipeline import describe_model

    if arguments.errors != (arguments.quantized is not None):
        raise UnsupportedError("inspect: takes one folder, or two as in inspect --errors MODEL QUANTIZED.")
    if arguments.errors:
        return _run_inspect_errors(arguments)
    print(describe_model(arguments.model, tensors=arguments.tensors))
    return 0


def _run_inspect_errors(arguments: argparse.Namespace) -> int:
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


def run_paper(arguments: argparse.Namespace) -> int:
    """List the experiments, or run one."""
    from awq_ref.checkpoint import resolve_model
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
    if "model" in changes:
        weights = "shapes" not in experiment.takes  # the experiments on shapes read config.json alone
        changes["model"] = resolve_model(changes["model"].as_posix(), weights=weights)
    result = run_experiment(experiment.name, **changes)
    print(experiment.table(result.rows))
    if arguments.json:
        save_json(result, arguments.json)
    if arguments.plot:
        draw(experiment, result.rows, arguments.plot)
    return 0


def run_convert(arguments: argparse.Namespace) -> int:
    """Write a quantized checkpoint in another layout, or as a GGUF file; say what became of the weights."""
    from awq_ref.pipeline import convert_model, convert_to_gguf

    if arguments.layout == "gguf":
        rounding = arguments.allow_rounding
        print(convert_to_gguf(arguments.model, arguments.out, allow_rounding=rounding).text())
        return 0
    report = convert_model(
        arguments.model,
        arguments.out,
        layout=arguments.layout,
        allow_rounding=arguments.allow_rounding,
        max_shard_bytes=arguments.max_shard_bytes,
    )
    print(report.text())
    return 0


def run_vectors(arguments: argparse.Namespace) -> int:
    """Copy golden vectors into a new folder."""
    from awq_ref.vectors import copy_vectors

    n_cases = copy_vectors(arguments.out, arguments.level or (), arguments.layout or ())
    print(f"{arguments.out}: {n_cases} cases; begin with manifest.json")
    return 0


def run_conform(arguments: argparse.Namespace) -> int:
    """Hold a backend to the golden vectors."""
    from awq_ref import vectors

    if (arguments.cmd is None) == (arguments.python is None):
        raise UnsupportedError('conform: takes --cmd "PROGRAM ARGUMENTS" or --python MODULE, one of the two.')
    xfail = vectors.read_xfail(arguments.xfail) if arguments.xfail else ()
    selection = vectors.Selection(tuple(arguments.run_globs or ()), tuple(arguments.skip or ()), xfail)
    cases = selection.of(vectors.read_cases(arguments.vectors) if arguments.vectors else vectors.read_cases())
    sys.path.insert(0, "")  # a module in the working directory, as `python -m` finds it
    backend = (
        vectors.ProgramBackend(arguments.cmd) if arguments.cmd else vectors.ModuleBackend(arguments.python)
    )
    outcomes = vectors.run_cases(
        backend, cases, xfail=xfail, timeout=arguments.timeout, repeat=arguments.repeat
    )
    person = sys.stderr if arguments.report else sys.stdout
    told = (
        vectors.failures(outcomes),
        vectors.stories(outcomes),
        vectors.summary(backend.hello, outcomes),
    )
    for text in told:
        if text:
            print(text, end="\n\n", file=person)
    if arguments.report:
        print(vectors.REPORTS[arguments.report](backend.hello, outcomes))
    return vectors.exit_code(outcomes)


def run_explain_layout(arguments: argparse.Namespace) -> int:
    """Draw the bits of a layout."""
    from awq_ref.vectors import draw_layout

    sizes = {"rows": arguments.rows, "columns": arguments.cols}
    print(draw_layout(arguments.layout, bits=arguments.bits, group_size=arguments.group_size, **sizes))
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo."""
    from awq_ref.demo import run_demo as show

    show(arguments.out)
    return 0
