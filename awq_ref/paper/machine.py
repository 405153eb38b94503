"""How fast this machine reads memory and multiplies: the two numbers of a roofline, measured.

    Machine            bytes/s and FLOP/s
    measure_machine    measure both, in a second or two
    median_seconds     median times of calls that take turns

Read bandwidth: the fastest of a sum, a dot product and a matrix-vector product over an array larger than any cache.
FLOP/s: a square float32 product (sgemm).
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from awq_ref.errors import RangeError
from awq_ref.paper.capacity import free_bytes
from awq_ref.report.tables import format_bytes

READ_BYTES = 2**29  # several times a large cache
GEMM_SIZE = 2048  # 17 GFLOP: long enough for the clock, short enough to repeat
ROUNDS = 7


@dataclass(frozen=True)
class Machine:
    """What a machine can do.

    read_bandwidth : bytes per second from memory
    flops          : float32 operations per second in a matrix product, a multiplication and an addition being two
    """

    read_bandwidth: float
    flops: float

    def attainable(self, intensity: float) -> float:
        """Return the most operations per second at an arithmetic intensity, in operations per byte.

        Examples
        --------
        >>> machine = Machine(read_bandwidth=10.0, flops=200.0)
        >>> machine.attainable(4.0), machine.attainable(50.0)
        (40.0, 200.0)
        """
        return min(self.flops, self.read_bandwidth * intensity)

    def limit(self, intensity: float) -> str:
        """Return what is the limit at an arithmetic intensity: "memory" or "arithmetic"."""
        return "arithmetic" if intensity > self.ridge else "memory"

    @property
    def ridge(self) -> float:
        """The intensity from which on the arithmetic is the limit."""
        return self.flops / self.read_bandwidth


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def median_seconds(calls: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Return the median time of each call. They take turns, so that whatever else the machine does falls on all.

    The first round does not count.
    """
    times = [[_seconds(call) for call in calls] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _read_bandwidth(n_bytes: int) -> float:
    matrix = np.ones((n_bytes // 2**14, 2**12), dtype=np.float32)  # rows of 16 KiB
    flat, vector = matrix.ravel(), np.ones(matrix.shape[1], dtype=np.float32)
    calls: tuple[Callable[[], object], ...] = (
        flat.sum,
        lambda: np.dot(flat, flat),  # one array: its bytes are read once
        lambda: matrix @ vector,
    )
    return matrix.nbytes / min(median_seconds(calls))


def _flops(size: int) -> float:
    left = np.ones((size, size), dtype=np.float32)
    right, out = left.copy(), np.empty_like(left)
    (seconds,) = median_seconds([lambda: np.matmul(left, right, out=out)])
    return 2.0 * size**3 / seconds


def measure_machine(n_bytes: int = READ_BYTES, size: int = GEMM_SIZE) -> Machine:
    """Measure read bandwidth and FLOP/s with the threads that BLAS has now.

    Raises
    ------
    RangeError
        If there is not enough free memory for the array that is read.
    """
    free = free_bytes()
    if free is not None and n_bytes > free:
        raise RangeError(
            f"measure_machine: {format_bytes(n_bytes)} must be free to measure the bandwidth; {format_bytes(free)} are."
        )
    return Machine(_read_bandwidth(n_bytes), _flops(size))


def blas_threads() -> str:
    """Return what the environment says about BLAS's threads."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if name in os.environ:
            return f"{name}={os.environ[name]}"
    return "its default"
