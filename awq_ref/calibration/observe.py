"""Observation: what enters the linear layers of a block while the block runs.

    Observed          a linear layer that also shows its input to listeners
    Unread            one that is there for what enters it
    StridedTokens     a listener that keeps every k-th token (llm-awq's clip search judges on such a sample)
    clip_token_stride k, as llm-awq chooses it
    observe           run a block, return the statistics of its sites

Nothing is hung on the layers: the block is run with wrapped ones, which are then forgotten. Batches may run at the same
time: listeners take note of them in their order.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from awq_ref.calibration.statistics import SiteStatistics, StatisticsAccumulator
from awq_ref.checks import require_between
from awq_ref.dtypes import F32
from awq_ref.errors import RangeError
from awq_ref.spec import LinearOperator
from awq_ref.threads import default_threads, map_jobs
from awq_ref.turns import Turn, Turns, at_once, within

# The number of a batch -> while it runs, the linear layers for it.
BatchLinears: TypeAlias = Callable[[int], AbstractContextManager[dict[str, LinearOperator]]]


class Listener(Protocol):
    """What takes note of inputs: `StatisticsAccumulator`, `StridedTokens`."""

    def add(self, x: F32, turn: Turn) -> None:
        """Take note of one batch of inputs, float32 (..., in_features); what depends on their order, in turn."""


class Observed:
    """A linear layer that shows every input to its listeners, then does what it always does."""

    def __init__(self, linear: LinearOperator, listeners: tuple[Listener, ...], turn: Turn = at_once) -> None:
        self._linear, self._listeners, self._turn = linear, listeners, turn

    @property
    def in_features(self) -> int:
        return self._linear.in_features

    @property
    def out_features(self) -> int:
        return self._linear.out_features

    @property
    def resident_bytes(self) -> int:
        return self._linear.resident_bytes

    def __call__(self, x: F32) -> F32:
        for listener in self._listeners:
            listener.add(x, self._turn)
        return self._linear(x)


class Unread:
    """A linear layer whose output nobody is going to read: zeros, for which nothing is multiplied."""

    def __init__(self, linear: LinearOperator) -> None:
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.resident_bytes = linear.resident_bytes

    def __call__(self, x: F32) -> F32:
        return np.broadcast_to(np.float32(0.0), (*x.shape[:-1], self.out_features))


class StridedTokens:
    """Keeps the tokens 0, k, 2k, ... of everything that comes, counted across batches."""

    def __init__(self, stride: int) -> None:
        require_between("StridedTokens", "stride", stride, 1, 2**31)
        self._stride = stride
        self._seen = 0
        self._kept: list[F32] = []

    def add(self, x: F32, turn: Turn = at_once) -> None:
        tokens = x.reshape(-1, x.shape[-1])  # (tokens, in_features)
        with turn("tokens"):
            self._kept.append(tokens[-self._seen % self._stride :: self._stride].copy())
            self._seen += len(tokens)

    def finish(self) -> F32:
        """Return the tokens that were kept: float32 (tokens, in_features)."""
        return np.concatenate(self._kept)


def clip_token_stride(tokens: int, wanted: int = 512) -> int:
    """Return llm-awq's stride, tokens // wanted: between `wanted` and 2 * wanted - 1 tokens are kept.

    Differs from: llm-awq has stride 0, an error, when there are fewer tokens than wanted; here all are kept.
    """
    return max(1, tokens // wanted)


@dataclass(frozen=True)
class Observations:
    """What one pass over the calibration windows tells about a block, site by site.

    statistics : dict of site -> SiteStatistics
    tokens     : dict of site -> float32 (tokens, in_features); empty unless a stride was asked for
    """

    statistics: dict[str, SiteStatistics]
    tokens: dict[str, F32]


def observe(
    run: Callable[[BatchLinears], object],
    linears: Mapping[str, LinearOperator],
    sites: Mapping[str, str],
    *,
    token_stride: int | None = None,
    may_miss: Collection[str] = (),
) -> Observations:
    """Run a block with observed linear layers; return the statistics of the sites' inputs.

    Parameters
    ----------
    run : callable
        Puts every batch of the calibration through the block. Is given a function: the number of a batch, from 0, ->
        a context, in which the batch runs, of the linear layers to use by name. Batches must begin in their order.
    linears : mapping of name -> linear layer
    sites : mapping of site -> name
        For every site one of the linear layers that it feeds (`search.plan.site_inputs`).
    token_stride : int or None
        Keep every so many tokens as well.
    may_miss : collection of str
        Sites that perhaps no token reaches; they are left out then.

    Returns
    -------
    observations : Observations

    Raises
    ------
    RangeError
        If a site names a layer that is not there, a NaN or an infinity enters it, or it saw no token.
    """
    for site, name in sites.items():
        if name not in linears:
            known = ", ".join(linears)
            raise RangeError(f"observe: site {site} must name a linear layer; got {name!r}. Known: {known}.")
    sums = {s: StatisticsAccumulator(linears[n].in_features, site=s) for s, n in sites.items()}
    kept = {s: StridedTokens(token_stride) for s in sites} if token_stride is not None else {}
    turns = Turns()

    @contextmanager
    def observed(batch: int) -> Iterator[dict[str, LinearOperator]]:
        with turns.job(batch) as turn:
            watched = dict(linears)
            for site, name in sites.items():
                listeners = (sums[site], kept[site]) if kept else (sums[site],)
                watched[name] = Observed(watched[name], listeners, within(turn, site))
            yield watched

    run(observed)
    missed = {site for site in may_miss if not sums[site].count}
    reached = [site for site in sums if site not in missed]
    finished = map_jobs(lambda site: sums[site].finish(), reached, n_threads=default_threads())
    return Observations(
        dict(zip(reached, finished, strict=True)),
        {site: entry.finish() for site, entry in kept.items() if site not in missed},
    )
