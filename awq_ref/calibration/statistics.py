"""What calibration keeps of the inputs of a linear layer: two arrays per site, whatever the number of tokens.

    SiteStatistics          count, sum |x| and sum x x^T; mergeable
    StatisticsAccumulator   adds activations up batch by batch, in bounded memory
    add_gram, mirror_gram   X^T X batch by batch, half of the work
    add_product             X^T Y
    merge                   statistics of two sets of tokens -> statistics of both
    save_statistics         one safetensors file for many sites
    load_statistics         its inverse

Numerics: sum |x| in float64. The Gram matrix in float32: each batch's product in float32 (BLAS), added to a
float32 sum; its relative error is at most about (tokens of a batch + batches) * 2**-24 of sum |x_i x_j|. The
square matrix of the widest input is the largest array of a calibration: float64 would double it.
Source: docs/equations.md#awq-5.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from awq_ref.buffers import scratch
from awq_ref.checks import require_dtype, require_finite, require_shape
from awq_ref.dtypes import F32, F64
from awq_ref.errors import FormatError, RangeError
from awq_ref.threads import blas_on_one_thread, default_threads, run_jobs
from awq_ref.turns import Turn, at_once

FORMAT = "awq_ref.statistics"
# Columns of the Gram matrix that one product makes: the temporary is a panel.
LEAST_PANEL, MOST_PANEL = 64, 256
SIZES = 256  # tokens whose |x| are in memory at a time


@dataclass(frozen=True)
class SiteStatistics:
    """Sums over the tokens that entered one site (an input that one or several linear layers share).

    Equation [AWQ-5]  a_i = mean_t |x_ti|,   C_ij = mean_t x_ti x_tj
        t, n  -> tokens, count
        a     -> act_mean_abs       (in_features,)
        n C   -> gram_sum           (in_features, in_features)
    Source: Lin et al. 2023, arXiv:2306.00978, section 3.2 (s_X); docs/equations.md#awq-5.

    count    : int > 0, number of tokens
    abs_sum  : float64 (in_features,), sum of |x|
    gram_sum : float32 (in_features, in_features), sum of x x^T, symmetric
    """

    count: int
    abs_sum: F64
    gram_sum: F32

    def __post_init__(self) -> None:
        who = "SiteStatistics"
        if self.count < 1:
            raise RangeError(f"{who}: count must be at least 1; got {self.count}. Were any tokens run?")
        require_shape(who, "abs_sum", self.abs_sum, (None,))
        require_shape(who, "gram_sum", self.gram_sum, (self.in_features, self.in_features))
        require_dtype(who, "abs_sum", self.abs_sum, np.float64)
        require_dtype(who, "gram_sum", self.gram_sum, np.float32)

    @property
    def in_features(self) -> int:
        return int(self.abs_sum.shape[0])

    @property
    def act_mean_abs(self) -> F32:
        """Mean |x| of every input channel: float32 (in_features,)."""
        return (self.abs_sum / self.count).astype(np.float32)

    @property
    def gram(self) -> F32:
        """Mean of x x^T: float32 (in_features, in_features). A new array as large as gram_sum."""
        return self.gram_sum * (1.0 / self.count)

    @classmethod
    def from_inputs(cls, x: F32, *, site: str = "x") -> "SiteStatistics":
        """Return the statistics of activations (..., in_features) that are all in memory."""
        accumulator = StatisticsAccumulator(x.shape[-1], site=site)
        accumulator.add(x)
        return accumulator.finish()


def _panels(in_features: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last + 1 column of every panel of the Gram matrix, the largest first."""
    width = min(max(in_features // 4, LEAST_PANEL), MOST_PANEL)
    for start in range(0, in_features, width):
        yield start, min(start + width, in_features)


def _add_panel(tokens: F32, gram_sum: F32, turn: Turn, start: int, stop: int) -> None:
    """Add columns start to stop of X^T X, from the diagonal down, to those of gram_sum."""
    columns = tokens[:, start:stop]
    for rows in (slice(start, stop), slice(stop, tokens.shape[1])):  # of the first, BLAS computes one half
        (product,) = scratch(((gram_sum[rows].shape[0], stop - start), np.float32))
        np.matmul(tokens[:, rows].T, columns, out=product)
        with turn((rows.start, start)):
            gram_sum[rows, start:stop] += product


def _add_sizes(tokens: F32, abs_sum: F64) -> None:
    """Add sum |x| of tokens (n, in_features) to abs_sum."""
    for first in range(0, len(tokens), SIZES):
        part = tokens[first : first + SIZES]
        (sizes,) = scratch((part.shape, np.float32))
        abs_sum += np.abs(part, out=sizes).sum(axis=0, dtype=np.float64)


def _add(parts: Sequence[Callable[[], None]]) -> None:
    """Let several threads add the parts of a sum."""
    with blas_on_one_thread():
        run_jobs(lambda part: part(), parts, n_threads=default_threads())


def add_gram(tokens: F32, gram_sum: F32, abs_sum: F64 | None = None, *, turn: Turn = at_once) -> None:
    """Add X^T X of tokens (n, in_features) to the lower triangle of gram_sum, panel by panel, on several threads.

    Parameters
    ----------
    abs_sum : float64 array, shape (in_features,), optional
        Receives sum |x| too.
    turn : Turn
        When this batch's products may be added: the order of batches is that of the sum.
    """
    jobs = [partial(_add_panel, tokens, gram_sum, turn, *panel) for panel in _panels(tokens.shape[1])]
    if abs_sum is not None:
        jobs.insert(0, partial(_add_sizes, tokens, abs_sum))
    _add(jobs)


def _add_rows(x: F32, y: F32, total: F32, turn: Turn, start: int, stop: int) -> None:
    """Add rows start to stop of X^T Y to those of total."""
    (product,) = scratch(((stop - start, y.shape[1]), np.float32))
    np.matmul(x[:, start:stop].T, y, out=product)
    with turn((start, "product")):
        total[start:stop] += product


def add_product(x: F32, y: F32, total: F32, *, turn: Turn = at_once) -> None:
    """Add X^T Y of tokens x (n, i) and y (n, j) to total (i, j), some rows at a time, on several threads.

    Parameters
    ----------
    turn : Turn
        As for `add_gram`.
    """
    jobs = [partial(_add_rows, x, y, total, turn, *panel) for panel in _panels(x.shape[1])]
    _add(jobs)


def mirror_gram(gram_sum: F32) -> None:
    """Copy the lower triangle to the upper one."""
    for start, stop in _panels(len(gram_sum)):
        block = gram_sum[start:stop, start:stop]
        block[...] = np.tril(block) + np.tril(block, -1).T
        gram_sum[start:stop, stop:] = gram_sum[stop:, start:stop].T


class StatisticsAccumulator:
    """Adds up SiteStatistics batch by batch. Memory: one Gram matrix, and a panel of it for each thread.

    Only the lower triangle is computed (half of the work); `finish` mirrors it.

    Parameters
    ----------
    in_features : int
    site : str
        The name that an error message gives.

    Examples
    --------
    >>> accumulator = StatisticsAccumulator(2)
    >>> accumulator.add(np.array([[1.0, -2.0], [3.0, 0.0]], dtype=np.float32))
    >>> statistics = accumulator.finish()
    >>> statistics.act_mean_abs.tolist(), statistics.gram.tolist()
    ([2.0, 1.0], [[5.0, -1.0], [-1.0, 2.0]])
    """

    def __init__(self, in_features: int, *, site: str = "x") -> None:
        self._site = site
        self._count = 0
        self._abs_sum = np.zeros(in_features, dtype=np.float64)
        self._gram_sum = np.zeros((in_features, in_features), dtype=np.float32)

    @property
    def count(self) -> int:
        """Tokens so far."""
        return self._count

    def add(self, x: F32, turn: Turn = at_once) -> None:
        """Add the tokens of x, float32 (..., in_features), when it is their turn.

        Raises
        ------
        ShapeError, DtypeError
            If x does not fit.
        RangeError
            If x holds a NaN or an infinity: site, token and channel are named.
        """
        in_features = len(self._abs_sum)
        require_shape("StatisticsAccumulator", self._site, x, (*x.shape[:-1], in_features))
        require_dtype("StatisticsAccumulator", self._site, x, np.float32)
        tokens = x.reshape(-1, in_features)  # (tokens, in_features)
        abs_sum = np.zeros(in_features, dtype=np.float64)

        with np.errstate(over="ignore", invalid="ignore"):  # finish() reports an overflow
            add_gram(tokens, self._gram_sum, abs_sum, turn=turn)
        if not np.isfinite(abs_sum).all():  # sums of finite float32 are finite in float64
            require_finite(f"calibration, inputs of {self._site}", "the activation", tokens)
        with turn("sizes"):
            self._abs_sum += abs_sum
            self._count += len(tokens)

    def finish(self) -> SiteStatistics:
        """Return the statistics and give the arrays away: the accumulator cannot be used again.

        Raises
        ------
        RangeError
            If no token came, or a square overflowed float32.
        """
        gram_sum = self._gram_sum
        mirror_gram(gram_sum)
        require_finite(f"calibration, inputs of {self._site}", "the sum of squares", gram_sum.diagonal())
        statistics = SiteStatistics(self._count, self._abs_sum, gram_sum)
        del self._gram_sum, self._abs_sum
        return statistics


def merge(first: SiteStatistics, second: SiteStatistics) -> SiteStatistics:
    """Return the statistics of both sets of tokens together.

    Raises
    ------
    ShapeError
        If the two have different in_features.
    """
    require_shape("merge", "second.abs_sum", second.abs_sum, first.abs_sum.shape)
    return SiteStatistics(
        first.count + second.count, first.abs_sum + second.abs_sum, first.gram_sum + second.gram_sum
    )


def save_statistics(
    path: str | Path, statistics: Mapping[str, SiteStatistics], *, source: Mapping[str, Any] | None = None
) -> None:
    """Write the statistics of many sites to one safetensors file, whole or not at all.

    Counts, and `source` (what says which tokens they come from; JSON-ready), are its metadata.
    """
    from safetensors.numpy import save_file  # here: the mathematics needs NumPy alone

    tensors = {}
    for site, entry in statistics.items():
        tensors[f"{site}.abs_sum"] = entry.abs_sum
        tensors[f"{site}.gram_sum"] = np.ascontiguousarray(entry.gram_sum)
    counts = {site: entry.count for site, entry in statistics.items()}
    unfinished = Path(f"{path}.partial")
    metadata = {"format": FORMAT, "counts": json.dumps(counts), "source": json.dumps(dict(source or {}))}
    save_file(tensors, unfinished, metadata=metadata)
    unfinished.replace(path)


def load_statistics(path: str | Path) -> tuple[dict[str, SiteStatistics], dict[str, Any]]:
    """Read what `save_statistics` wrote: the statistics by site, and their source.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open  # here: the mathematics needs NumPy alone

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            statistics = {
                site: SiteStatistics(
                    int(count), file.get_tensor(f"{site}.abs_sum"), file.get_tensor(f"{site}.gram_sum")
                )
                for site, count in json.loads(metadata["counts"]).items()
            }
            return statistics, json.loads(metadata["source"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise FormatError(
            f"load_statistics: {path} must be a file that save_statistics wrote; "
            f"{type(error).__name__}: {error}."
        ) from error
