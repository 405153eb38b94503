"""What a packed product costs with any number of threads, from constants that are measured: a model of its passes.

    Passes        the constants of this machine
    Forecast      a number of threads: packed and dense, and which is faster
    forecasts     the model, for several numbers of threads

For every weight a thread masks its byte, casts it to float32 and multiplies; only the first pass reads memory
(`matmul.tiles`), and no pass waits for another thread. float32 weights are read from memory and nothing else. So

    packed(T) = max(mask / T, bytes / B(T)) + (cast + gemv) / T          bytes = 0.57, of a weight of 4 bits
    dense(T)  = max(4 / B(T), dense gemv from the cache / T)

with B(T) the bandwidth that T threads get. It is measured up to this machine's processors; beyond them there are two
bounds: it stays (the bus is full), which is best for packed, or it grows with the threads, which is worst for it.
"""

from dataclasses import dataclass

DENSE_BYTES = 4
BUSES = ("stays", "grows")


@dataclass(frozen=True)
class Passes:
    """Constants of this machine, in seconds for a weight on one thread, and bytes/s.

    mask, cast, gemv : the passes of a packed product, from the cache
    dense            : a product by float32 weights from the cache, for a weight
    weight_bytes     : of a packed weight, scales and zero points counted
    bandwidth        : threads -> bytes/s, of those that were measured
    """

    mask: float
    cast: float
    gemv: float
    dense: float
    weight_bytes: float
    bandwidth: dict[int, float]

    def bandwidth_of(self, threads: int, bus: str) -> float:
        """Return the bandwidth of some threads: measured, or as the bus has it beyond what was measured."""
        most = max(self.bandwidth)
        known = self.bandwidth.get(threads)
        if known is not None:
            return known
        beyond = self.bandwidth[most] * (threads / most if bus == "grows" else 1.0)
        return beyond if threads > most else self.bandwidth[most] * threads / most

    def packed_seconds(self, threads: int, bus: str = "stays") -> float:
        """Return the seconds of one weight of a packed product."""
        read = self.weight_bytes / self.bandwidth_of(threads, bus)
        return max(self.mask / threads, read) + (self.cast + self.gemv) / threads

    def dense_seconds(self, threads: int, bus: str = "stays") -> float:
        """Return the seconds of one float32 weight."""
        return max(DENSE_BYTES / self.bandwidth_of(threads, bus), self.dense / threads)

    def crossing(self, bus: str = "stays", most: int = 64) -> int | None:
        """Return the fewest threads with which packed is at least as fast as dense; None up to `most`.

        Examples
        --------
        >>> passes = Passes(0.02e-9, 0.08e-9, 0.06e-9, 0.05e-9, 0.52, {1: 40e9, 2: 50e9})
        >>> passes.crossing("stays"), passes.crossing("grows")  # 0.16 ns / T against 0.08, or 0.16 / T
        (3, None)
        """
        threads = range(1, most + 1)
        return next((t for t in threads if self.packed_seconds(t, bus) <= self.dense_seconds(t, bus)), None)


@dataclass(frozen=True)
class Forecast:
    """A number of threads under one assumption about the bus: nanoseconds of a weight."""

    threads: int
    bus: str
    packed_ns: float
    dense_ns: float

    @property
    def ratio(self) -> float:
        """How many times as fast as float32 packed is."""
        return self.dense_ns / self.packed_ns


def forecasts(passes: Passes, threads: tuple[int, ...] = (1, 2, 4, 8)) -> list[Forecast]:
    """Return the model for several numbers of threads; one line where the bandwidth is measured, else two."""
    return [
        Forecast(t, "measured" if t in passes.bandwidth else bus, passes.packed_seconds(t, bus) * 1e9,
                 passes.dense_seconds(t, bus) * 1e9)
        for t in threads
        for bus in (BUSES[:1] if t in passes.bandwidth else BUSES)
    ]  # fmt: skip
