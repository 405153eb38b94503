"""One residency, measured in a process that does nothing else.

run_job    Job -> a dictionary for JSON: rates, bytes, memory, where the time goes
resident, peak   memory of this process, where the system says it
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from awq_ref.bench.job import BITS, GROUP_SIZE, Job, bench_shapes
from awq_ref.bench.random_model import random_decoder
from awq_ref.bench.watch import OUTSIDE, REST, Watch, short_name, watching
from awq_ref.model import Decoder, KVCache, new_cache
from awq_ref.spec import QuantSpec

PREFILLS, PREFILL_SECONDS = 5, 6.0  # as many, but no more once they have taken so long
WATCHED = 8  # new tokens that are timed by operation


def _status(name: str) -> int | None:
    """Return a size that Linux keeps of this process, in bytes; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def resident() -> int | None:
    """Return the bytes of memory that this process has now."""
    return _status("VmRSS")


def peak() -> int | None:
    """Return the most bytes of memory that this process has had."""
    return _status("VmHWM")


def load(job: Job) -> Decoder:
    """Return the decoder of a job."""
    if job.folder:
        from awq_ref.pipeline import load_model

        return load_model(job.folder, residency=job.residency, head=job.head).decoder
    config = bench_shapes()[job.shape]
    spec = QuantSpec(bits=BITS, group_size=GROUP_SIZE)
    layers = job.layers or config.num_hidden_layers
    return random_decoder(config, spec=spec, residency=job.residency, head=job.head, layers=layers)


def _seconds(forward: Any, ids: Any, cache: KVCache) -> tuple[float, KVCache]:
    started = time.perf_counter()
    _, longer = forward(ids, cache, last_only=True)
    return time.perf_counter() - started, longer


def _prefill(decoder: Decoder, ids: Any, capacity: int) -> tuple[list[float], KVCache]:
    """Read the prompt several times; return the seconds and the last cache. The first counts only if it is long."""
    times: list[float] = []
    while True:
        empty = new_cache(decoder.config, batch=1, capacity=capacity)
        seconds, cache = _seconds(decoder.forward, ids, empty)
        times.append(seconds)
        if len(times) > PREFILLS or sum(times) > PREFILL_SECONDS:
            return times[1:] or times, cache


def _decode(decoder: Decoder, cache: KVCache, tokens: list[int]) -> list[float]:
    times = []
    for token in tokens:
        seconds, cache = _seconds(decoder.forward, np.array([[token]], dtype=np.int64), cache)
        times.append(seconds)
    return times


def _operation_rows(watch: Watch, decoder: Decoder) -> list[dict[str, Any]]:
    """One row per operation: seconds, share of all, and the rate at which linears read their weights."""
    found = watch.by_operation()
    total = sum(seconds for seconds, _ in found.values())
    sizes: dict[str, int] = {"head": decoder.lm_head.resident_bytes}
    for block in decoder.blocks:
        for name, linear in block.linears.items():
            short = short_name(name, block.linears)
            sizes[short] = sizes.get(short, 0) + linear.resident_bytes
    return [
        {
            "operation": name,
            "calls": calls,
            "seconds": seconds,
            "share": seconds / total,
            "bytes_per_s": sizes[name] / seconds if name in sizes else None,
        }
        for name, (seconds, calls) in found.items()
    ]


def _watched(decoder: Decoder, cache: KVCache, tokens: list[int]) -> dict[str, Any]:
    """Where the time of a step goes: of several that are watched, the one of median length."""
    steps = []
    for token in tokens:
        with watching(decoder) as watch:
            forward = watch.timed(REST, decoder.forward)
            seconds, cache = _seconds(forward, np.array([[token]], dtype=np.int64), cache)
        steps.append((seconds, watch))
    seconds, watch = sorted(steps, key=lambda step: step[0])[len(steps) // 2]
    by_layer = watch.by_layer()
    return {
        "seconds": seconds,
        "operations": _operation_rows(watch, decoder),
        "layers": [by_layer[layer] for layer in range(decoder.config.num_hidden_layers)],
        "outside": by_layer[OUTSIDE],
    }


def run_job(job: Job) -> dict[str, Any]:
    """Measure one residency."""
    before, started = resident(), time.perf_counter()
    decoder = load(job)
    loaded, after = time.perf_counter() - started, resident()
    rng = np.random.default_rng(0)
    ids = rng.integers(0, decoder.vocab_size, (1, job.prompt), dtype=np.int64)
    tokens: list[int] = rng.integers(0, decoder.vocab_size, job.new, dtype=np.int64).tolist()
    prefills, cache = _prefill(decoder, ids, job.prompt + job.new)
    _, read = _seconds(decoder.forward, np.array([tokens[:1]], dtype=np.int64), cache)  # wakes the threads
    steps = _decode(decoder, read, tokens[1:])
    highest = peak()  # of the work alone: the watch keeps nothing, but it is not what users run
    return {
        "load_seconds": loaded,
        "prefill_seconds": prefills,
        "step_seconds": steps,
        "watched": _watched(decoder, cache.truncated(job.prompt), tokens[:WATCHED]),
        "interpreter": before,
        "resident": after,
        "peak": highest,
        "weights": decoder.resident_bytes(),
        "head_bytes": decoder.lm_head.resident_bytes,
    }
