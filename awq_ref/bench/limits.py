"""What this machine can do, measured: bandwidth, matrix products, the passes of a packed product.

    measure_limits    a dictionary for JSON: the limits, the constants of `passes`, one linear beside its forecast

A measurement begins after a pause, for BLAS's threads spin for some milliseconds after a product, and every number is
the median of several calls.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from awq_ref.bench.job import BITS, GROUP_SIZE
from awq_ref.bench.measure import resident
from awq_ref.bench.passes import Passes
from awq_ref.dtypes import F32
from awq_ref.matmul import PackedLinear
from awq_ref.matmul.tiles import weights_at_once
from awq_ref.paper.machine import measure_machine
from awq_ref.paper.roofline import random_linear
from awq_ref.report.memory import linear_bytes
from awq_ref.spec import QuantSpec
from awq_ref.threads import blas_on_one_thread, run_in_shares

PAUSE = 0.05
ROUNDS = 9
SHAPE = (11008, 4096)  # the linear that is measured whole: no cache holds it as float32
WIDTH = 4096  # outputs of the tile whose passes are measured
BLOCKS = 64  # of rows that threads read at once


def median(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median seconds of a call, after a pause and a call that does not count."""
    time.sleep(PAUSE)
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _passes_of_a_tile() -> dict[str, float]:
    """Seconds of one weight in the passes of `multiply_factored`: one thread, a tile that stays in the cache."""
    # g groups of n bytes and R outputs; two fields of 4 bits in a byte
    n = GROUP_SIZE * BITS // 8
    g = max(1, weights_at_once(1) // (GROUP_SIZE * WIDTH))
    part = np.random.default_rng(0).integers(0, 256, (g, n, WIDTH), dtype=np.uint8)
    lower, masks = np.empty((g, 1, n, WIDTH), dtype=np.uint8), np.full((1, 1, 1), 2**BITS - 1, dtype=np.uint8)
    values = np.empty((g, 2, n, WIDTH), dtype=np.float32)
    factors, dots = np.ones((g, 1, GROUP_SIZE), dtype=np.float32), np.empty((g, 1, WIDTH), dtype=np.float32)

    def cast() -> None:
        values[:, :1] = lower
        values[:, 1] = part

    by_group = values.reshape(g, GROUP_SIZE, WIDTH)
    with blas_on_one_thread():
        found = {
            "mask": median(lambda: np.bitwise_and(part[:, None], masks, out=lower)),
            "cast": median(cast),
            "gemv": median(lambda: np.matmul(factors, by_group, out=dots)),
        }
    return {name: seconds / values.size for name, seconds in found.items()}


def _read_seconds(weight: F32, x: F32, threads: int) -> float:
    """Seconds of x @ weight.T with rows shared among threads of ours, BLAS on one: the bandwidth that threads get."""
    y = np.empty(len(weight), dtype=np.float32)

    def work(start: int, stop: int) -> None:
        np.dot(weight[start:stop], x, out=y[start:stop])

    with blas_on_one_thread():
        return median(lambda: run_in_shares(work, len(weight), n_threads=threads, multiple=BLOCKS))


def _measured_whole(threads: int, spec: QuantSpec) -> list[dict[str, float]]:
    """One packed linear with one thread and with all: seconds of a weight."""
    linear = random_linear(*SHAPE, spec)
    x = np.random.default_rng(1).random((1, SHAPE[1]), dtype=np.float32)
    rows = []
    for n_threads in sorted({1, threads}):
        packed = PackedLinear.from_quantized(linear, n_threads=n_threads)
        seconds = median(lambda operator=packed: operator(x)) / linear.int_weight.size  # type: ignore[misc]
        rows.append({"threads": n_threads, "packed_ns": seconds * 1e9})
    return rows


def measure_limits(threads: int) -> dict[str, Any]:
    """Return this machine's limits with the threads that the process has, as a dictionary for JSON."""
    interpreter = resident()
    machine = measure_machine()
    spec = QuantSpec(bits=BITS, group_size=GROUP_SIZE)
    whole = _measured_whole(threads, spec)
    weight = np.ones(SHAPE, dtype=np.float32)
    x = np.ones(SHAPE[1], dtype=np.float32)
    out = np.empty(SHAPE[0], dtype=np.float32)
    gemv = median(lambda: np.dot(weight, x, out=out))
    reads = {t: _read_seconds(weight, x, t) for t in sorted({1, threads})}
    tile = np.ones((64, SHAPE[1]), dtype=np.float32)  # 1 MiB: stays in the cache
    small = np.empty(len(tile), dtype=np.float32)
    with blas_on_one_thread():
        cached = median(lambda: [np.dot(tile, x, out=small) for _ in range(16)]) / (16 * tile.size)
    passes = Passes(
        **_passes_of_a_tile(),
        dense=cached,
        weight_bytes=linear_bytes(*SHAPE, spec=spec, residency="packed") / weight.size,
        bandwidth={t: weight.nbytes / seconds for t, seconds in reads.items()},
    )
    for row in whole:
        row["dense_ns"] = reads[int(row["threads"])] / weight.size * 1e9
    return {
        "read_bandwidth": max(machine.read_bandwidth, *passes.bandwidth.values()),
        "sgemm_flops": machine.flops,
        "sgemv_flops": 2.0 * weight.size / gemv,
        "passes": vars(passes),
        "whole": whole,
        "linear": "{} x {}".format(*SHAPE),
        "interpreter": interpreter or 0,
    }
