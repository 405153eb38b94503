"""All of `awq-ref bench`: the machine, then every residency, a process after the other.

Target      what is measured: a folder or a shape, with its configuration
open_target the model or shape that was asked for; a float checkpoint is rounded into a temporary folder
plan        how many layers are measured, and what memory that will take
run_bench   the result, a dictionary for JSON
"""

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np

from awq_ref.bench.job import BITS, GROUP_SIZE, WHO, Job, bench_shapes, require_shape_name
from awq_ref.bench.passes import BUSES, Passes, forecasts
from awq_ref.bench.predict import layers_that_fit, peak_bytes, resident_bytes
from awq_ref.bench.score import score
from awq_ref.checkpoint import Float8Config, demo_model_path, model_name, resolve_model
from awq_ref.errors import RangeError, UnsupportedError
from awq_ref.matmul import RESIDENCIES, Residency
from awq_ref.model import ModelConfig, block_linear_shapes
from awq_ref.paper.capacity import free_bytes
from awq_ref.pipeline import quantize_model
from awq_ref.pipeline.reading import open_model
from awq_ref.pipeline.stored import open_quantization
from awq_ref.pipeline.tables import HEADS, Head
from awq_ref.report.tables import format_bytes
from awq_ref.spec import QuantSpec

Say: TypeAlias = Callable[[str], None]

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclass(frozen=True)
class Target:
    """What is measured: a quantized folder, or, if that is "", random weights of a shape."""

    name: str
    folder: str
    config: ModelConfig
    spec: QuantSpec
    stored: str = "BF16"  # dtype of the embedding in its file


@contextmanager
def open_target(model: str | None, shape: str | None) -> Iterator[Target]:
    """Give the model or shape that was asked for; neither is the embedded model.

    A float checkpoint is rounded to nearest into a temporary folder: times do not depend on how its integers were
    chosen.

    Raises
    ------
    RangeError
        If there is no such shape.
    UnsupportedError
        If a model and a shape are named, or the model has experts or float8 weights.
    AwqRefError
        As `load_model`.
    """
    if model is not None and shape is not None:
        raise UnsupportedError(f"{WHO}: takes --model or --shape, one of the two.")
    spec = QuantSpec(bits=BITS, group_size=GROUP_SIZE)
    if shape is not None:
        require_shape_name(shape)
        yield Target(shape, "", bench_shapes()[shape], spec)
        return
    path = demo_model_path() if model is None else resolve_model(model)
    checkpoint, config = open_model(path)
    if config.num_experts:
        raise UnsupportedError(
            f"{WHO}: a model must be one without experts: a token reads only some of them."
        )
    stored = checkpoint.info(f"{config.family.embed_tokens}.weight").dtype
    quantization, name = open_quantization(checkpoint), model_name(Path(path).resolve())
    if isinstance(quantization, Float8Config):
        raise UnsupportedError(
            f"{WHO}: {path}: float8 weights run as float32. Name a float or integer checkpoint."
        )
    if quantization is not None:
        yield Target(name, str(path), config, quantization.spec, stored)
        return
    with TemporaryDirectory() as folder:
        group_size = math.gcd(GROUP_SIZE, *(into for _, into in block_linear_shapes(config).values()))
        spec = QuantSpec(bits=BITS, group_size=group_size)
        quantize_model(path, Path(folder) / "int4", recipe="rtn", bits=BITS, group_size=group_size)
        yield Target(f"{name}, rounded to nearest", str(Path(folder) / "int4"), config, spec, stored)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_threads(threads: int) -> None:
    """Raise RangeError unless the process can be held to so many threads."""
    most = processors()
    if not 1 <= threads <= most or (threads < most and not hasattr(os, "sched_setaffinity")):
        least = 1 if hasattr(os, "sched_setaffinity") else most
        raise RangeError(f"{WHO}: --threads must lie in [{least}, {most}], this machine's; got {threads}.")


def plan(target: Target, job: Job, free: int | None) -> tuple[Job, dict[str, int]]:
    """Return the job with the layers that fit into the free bytes, and the peak that it will have, by part.

    Raises
    ------
    RangeError
        If not even one layer fits, or a checkpoint, of which all layers are loaded, does not.
    """
    config, spec = target.config, target.spec
    sizes: dict[str, Any] = {
        "spec": spec, "residency": job.residency, "head": job.head, "threads": job.threads, "stored": target.stored,
        "tokens": job.prompt + job.new, "prompt": job.prompt,
    }  # fmt: skip
    total = config.num_hidden_layers
    fit = total if free is None else layers_that_fit(config, **sizes, free=free)
    if fit < (total if target.folder else 1):
        packed = layers_that_fit(config, **sizes | {"residency": "packed"}, free=free or 0)
        raise RangeError(
            f"{WHO}: {target.name}, {job.residency}, must fit into memory; {format_bytes(free or 0)} are free, for "
            f"{fit} of {total} layers. As packed {packed} of them would fit: --residency packed."
        )
    layers = total if target.folder else min(job.layers or total, total, fit)
    job = Job(**asdict(job) | {"layers": layers})
    return job, peak_bytes(config, **sizes, layers=layers)


def _in_a_process(given: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run one job in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "awq_ref.bench", json.dumps(given)],
        env=os.environ | {name: str(threads) for name in THREADS}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode < 0:
        raise RangeError(
            f"{WHO}: the process was ended by signal {-done.returncode}: memory may be short. Try --layers."
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing said"]
        raise UnsupportedError(f"{WHO}: the process that measures failed: {said[0]}")
    return dict(json.loads(done.stdout))


def _machine(threads: int) -> dict[str, Any]:
    return {
        "processor": platform.machine(), "system": platform.system(), "processors": processors(), "threads": threads,
        "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip


def _run(target: Target, job: Job, parts: dict[str, int], limits: dict[str, Any], say: Say) -> dict[str, Any]:
    """Measure one residency; what was expected of it stands beside."""
    predicted = limits["interpreter"] + sum(parts.values())
    of = f"{job.layers} of {target.config.num_hidden_layers} layers"
    say(f"{job.residency}, head {job.head}: {of}, at most {format_bytes(predicted)} of memory expected ...")
    weights = resident_bytes(
        target.config, spec=target.spec, residency=job.residency, head=job.head, layers=job.layers,
        stored=target.stored,
    )  # fmt: skip
    memory = {"weights": weights, "peak": predicted, "parts": parts}
    return score(job, target.config, limits, _in_a_process(asdict(job), job.threads), memory)


def _model_of_passes(limits: dict[str, Any]) -> dict[str, Any]:
    """Return what four and eight threads would give, and from how many on packed is as fast as float32."""
    measured = limits["passes"]
    passes = Passes(**measured | {"bandwidth": {int(t): rate for t, rate in measured["bandwidth"].items()}})
    return {
        "rows": [asdict(row) | {"ratio": row.ratio} for row in forecasts(passes)],
        "crossing": {bus: passes.crossing(bus) for bus in BUSES},
    }


def run_bench(
    *,
    model: str | None = None,
    shape: str | None = None,
    residencies: Sequence[Residency] = RESIDENCIES,
    heads: Sequence[Head] = HEADS[:1],
    threads: int | None = None,
    prompt: int = 512,
    new: int = 32,
    layers: int = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Measure the machine, then every residency and head; return all numbers, ready for JSON.

    Parameters
    ----------
    model, shape
        As for `open_target`.
    residencies, heads : sequences of str
    threads : int or None
        None: as many as there are processors.
    prompt, new : int
        Tokens read at once, and generated after; a shorter context shortens the prompt.
    layers : int
        Of a shape, measured instead of all; times are then scaled, and said to be. 0: all that fit into memory.
    say : callable
        Told what comes next.

    Raises
    ------
    AwqRefError
        As `open_target` and `plan`; RangeError for a number outside its range.
    """
    threads = processors() if threads is None else threads
    require_threads(threads)
    with open_target(model, shape) as target:
        prompt = min(prompt, target.config.context - new)
        name = "" if target.folder else target.name
        jobs = [
            Job(target.folder, name, residency, head, layers, prompt, new, threads)
            for residency in residencies
            for head in heads
        ]
        plans = [plan(target, job, free_bytes()) for job in jobs]
        say("the machine's limits ...")
        limits = _in_a_process({"limits": threads}, threads)
        runs = [_run(target, job, parts, limits, say) for job, parts in plans]
    spec = {"bits": target.spec.bits, "group_size": target.spec.group_size}
    return {
        "machine": _machine(threads),
        "limits": limits,
        "setup": {"model": target.name, **spec, "prompt": prompt, "new": new},
        "runs": runs,
        "passes": _model_of_passes(limits),
    }
