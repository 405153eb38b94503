"""Packed against dense: how long one linear layer takes, beside plain NumPy on float32 weights, in one run.

    python benchmarks/packed_vs_dense.py [--quick] [--threads 1 2]

The rival is `x @ weight.T`, BLAS with as many threads as ours. Both go round copies of their weights, 512 MiB of them
and at least two, as a model goes round its layers: no cache holds what the next call reads. The two take turns, so that
what else the machine does falls on both; between turns there is a pause, for OpenBLAS's threads spin for a while after
a product, on the cores that ours need. Printed: microseconds per call, median and quartiles of the rounds; the rival's
time over ours (above 1 is faster than float32), the median of the rounds' ratios; the weights' memory over the rival's.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from awq_ref.matmul import to_operator
from awq_ref.quantize import dequantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec
from awq_ref.threads import default_threads

SHAPES = (
    (9728, 896),
    (896, 4864),
    (4096, 4096),
    (11008, 4096),
)  # the first two are Qwen2.5-0.5B's gate with up, and down
QUICK_SHAPES = SHAPES[:2]
TOKENS = (1, 4, 16, 128, 512)
ROUND_SECONDS = 0.1  # a timing repeats the call until it is at least this long
COLD_BYTES = 2**29  # of weights that a timing goes round; a large server's cache may hold a part of 2**27
PAUSE = 0.25  # seconds; OpenBLAS waits for work with its cores busy, about a tenth of a second


def random_linear(out_features: int, in_features: int, spec: QuantSpec, seed: int = 0) -> QuantizedLinear:
    """A layer of random codes: the time does not depend on the values."""
    rng = np.random.default_rng(seed)
    shape = (out_features, in_features // spec.group_size)
    codes = rng.integers(0, spec.qmax + 1, (out_features, in_features), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.01, shape).astype(spec.scale_dtype)
    return QuantizedLinear(codes, scales, rng.integers(0, spec.qmax + 1, shape, dtype=np.uint8), spec)


def in_turn(operators: Sequence[Callable[[np.ndarray], np.ndarray]]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what calls the next of some operators each time."""
    order = cycle(operators)
    return lambda x: next(order)(x)


def copies(one: object, nbytes: int) -> list[Any]:
    """Return as many as COLD_BYTES hold, at least two."""
    return [one, *(deepcopy(one) for _ in range(max(1, COLD_BYTES // nbytes)))]


def seconds(operator: Callable[[np.ndarray], np.ndarray], x: np.ndarray, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        operator(x)
    return (time.perf_counter() - start) / repeats


def take_turns(
    operators: Sequence[Callable[[np.ndarray], np.ndarray]], x: np.ndarray, rounds: int
) -> np.ndarray:
    """Seconds per call, (operators, rounds)."""
    times = np.empty((len(operators), rounds), dtype=np.float64)
    repeats = [max(1, int(ROUND_SECONDS / seconds(operator, x, 2))) for operator in operators]
    for turn in range(rounds):
        for i, operator in enumerate(operators):
            time.sleep(PAUSE)
            seconds(operator, x, repeats[i])  # as in a model that runs: threads awake, clocks up
            times[i, turn] = seconds(operator, x, repeats[i])
    return times


def table_row(label: str, times: np.ndarray, memory: float) -> str:
    """One line of the table: ours, the rival's, their ratio, and that of the memory."""
    quartiles = np.percentile(times * 1e6, (25, 50, 75), axis=1).T  # (operators, 3)
    cells = [f"{median:.0f} ({low:.0f}-{high:.0f})" for low, median, high in quartiles]
    ratio = np.median(times[1] / times[0])
    return "| " + " | ".join([label, *cells, f"{ratio:.2f}", f"{memory:.3f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes and fewer rounds")
    cores = sorted({1, default_threads()})
    parser.add_argument("--threads", type=int, nargs="+", default=cores, help="threads of both")
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 8))
    parser.add_argument("--group-size", type=int, default=128)
    arguments = parser.parse_args()
    spec = QuantSpec(bits=arguments.bits, group_size=arguments.group_size)
    where = f"NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} processors"
    print(f"{where}; {spec.bits} bits, groups of {spec.group_size}\n")
    print("| out x in | threads | tokens | packed, us | float32, us | float32 / packed | memory |")
    print("|" + "---|" * 7)
    for out_features, in_features in QUICK_SHAPES if arguments.quick else SHAPES:
        linear = random_linear(out_features, in_features, spec)
        weight = dequantize_linear(linear)
        dense = in_turn([partial(np.dot, b=each.T) for each in copies(weight, weight.nbytes)])
        for n_threads in arguments.threads:
            packed = to_operator(linear, "packed", n_threads=n_threads)
            ours = in_turn(copies(packed, packed.resident_bytes))
            for n_tokens in TOKENS:
                x = np.random.default_rng(1).normal(0, 1, (n_tokens, in_features)).astype(np.float32)
                with threadpool_limits(n_threads, user_api="blas"):
                    times = take_turns([ours, dense], x, 3 if arguments.quick else 5)
                label = f"{out_features} x {in_features} | {n_threads} | {n_tokens}"
                print(table_row(label, times, packed.resident_bytes / weight.nbytes), flush=True)


if __name__ == "__main__":
    main()
