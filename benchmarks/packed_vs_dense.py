"""Packed against dense: how long one linear layer takes in each residency, measured in one run.

python benchmarks/packed_vs_dense.py [--quick] [--threads N]

The operators take turns, so that what else the machine does falls on all of them; printed are the median of the
rounds, the spread (first to third quartile) and the ratio of medians to the dense layer. Threads: those of the packed
operators; for those of BLAS set OPENBLAS_NUM_THREADS (or OMP_NUM_THREADS) before starting.
"""

import argparse
import os
import platform
import time
from collections.abc import Sequence

import numpy as np

from awq_ref.matmul import RESIDENCIES, to_operator
from awq_ref.matmul.threads import default_threads
from awq_ref.spec import LinearOperator, QuantizedLinear, QuantSpec

SHAPES = ((256, 256), (768, 256), (256, 768), (2048, 2048), (4096, 4096), (11008, 4096))
QUICK_SHAPES = SHAPES[:4]
TOKENS = (1, 8, 128)
ROUND_SECONDS = 0.01  # a timing repeats the call until it is at least this long


def random_linear(out_features: int, in_features: int, spec: QuantSpec, seed: int = 0) -> QuantizedLinear:
    """A layer of random codes: the time does not depend on the values."""
    rng = np.random.default_rng(seed)
    shape = (out_features, in_features // spec.group_size)
    codes = rng.integers(0, spec.qmax + 1, (out_features, in_features), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.01, shape).astype(spec.scale_dtype)
    return QuantizedLinear(codes, scales, rng.integers(0, spec.qmax + 1, shape, dtype=np.uint8), spec)


def seconds(operator: LinearOperator, x: np.ndarray, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        operator(x)
    return (time.perf_counter() - start) / repeats


def take_turns(operators: Sequence[LinearOperator], x: np.ndarray, rounds: int) -> np.ndarray:
    """Seconds per call, (operators, rounds)."""
    repeats = [max(1, int(ROUND_SECONDS / seconds(operator, x, 2))) for operator in operators]
    times = [[seconds(op, x, n) for op, n in zip(operators, repeats, strict=True)] for _ in range(rounds)]
    return np.array(times, dtype=np.float64).T


def table_row(label: str, times: np.ndarray) -> str:
    """One line of the table: per residency median (quartiles) in microseconds, then ratios to the last, dense."""
    quartiles = np.percentile(times * 1e6, (25, 50, 75), axis=1).T  # (operators, 3)
    cells = [f"{median:.0f} ({low:.0f}-{high:.0f})" for low, median, high in quartiles]
    ratios = [f"{quartiles[i, 1] / quartiles[-1, 1]:.2f}" for i in range(len(times) - 1)]
    return "| " + " | ".join([label, *cells, *ratios]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes and fewer rounds")
    parser.add_argument("--threads", type=int, default=default_threads(), help="threads of a packed layer")
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 8))
    parser.add_argument("--group-size", type=int, default=128)
    arguments = parser.parse_args()
    spec = QuantSpec(bits=arguments.bits, group_size=arguments.group_size)
    blas = os.environ.get("OPENBLAS_NUM_THREADS", "its default")
    print(
        f"NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} processors; {spec.bits} bits, group"
    )
    print(f"{spec.group_size}; threads: {arguments.threads} of ours, {blas} of BLAS; microseconds per call,")
    print("median (quartiles), and the ratio of medians to dense: below 1 is faster than float32.\n")
    names = list(RESIDENCIES)
    print("| out x in, tokens | " + " | ".join(names + [f"{name} / dense" for name in names[:-1]]) + " |")
    print("|" + "---|" * (2 * len(names)))
    for out_features, in_features in QUICK_SHAPES if arguments.quick else SHAPES:
        linear = random_linear(out_features, in_features, spec)
        operators = [to_operator(linear, residency, n_threads=arguments.threads) for residency in names]
        for n_tokens in TOKENS:
            x = np.random.default_rng(1).normal(0, 1, (n_tokens, in_features)).astype(np.float32)
            times = take_turns(operators, x, rounds=5 if arguments.quick else 9)
            print(table_row(f"{out_features} x {in_features}, {n_tokens}", times), flush=True)


if __name__ == "__main__":
    main()
