"""The search for channel scales: which power of the mean activation makes rounding hurt least.

    pool                    a statistic of a site's channels -> of the producer's (values under grouped queries)
    Trials                  one site: the scales of an alpha, the losses so far
    search_together         all alphas of several sites
    search_channel_scales   all alphas of one site, the loss of each, the best one

Source: Lin et al. 2023, arXiv:2306.00978, section 3.2, eq. 5; docs/equations.md#awq-6.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from awq_ref.dtypes import F32, I64
from awq_ref.errors import RangeError
from awq_ref.search.candidates import Candidate, candidate
from awq_ref.threads import run_jobs

Realize: TypeAlias = Callable[[F32], F32]


def pool(act_mean_abs: F32, tie: I64) -> F32:
    """Return the mean statistic of the channels that a producer's row feeds: float32 (producer rows,).

    Parameters
    ----------
    act_mean_abs : float32 array, shape (in_features,)
    tie : int64 array, shape (in_features,)
        The producer's row behind every channel, each row at least once.
    """
    sums = np.bincount(tie, weights=act_mean_abs)  # float64
    means: F32 = (sums / np.bincount(tie)).astype(np.float32)
    return means


@dataclass(frozen=True)
class ScaleSearch:
    """The outcome of one search.

    alphas          : the alphas tried, ascending
    losses          : the loss of each
    alpha           : the chosen one
    producer_scales : float32 (producer channels,), what divides the producer
    channel_scales  : float32 (in_features,), what multiplies the consumers' columns
    loss_rtn        : loss of round-to-nearest, all scales 1
    """

    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    alpha: float
    producer_scales: F32
    channel_scales: F32
    loss_rtn: float

    @property
    def loss(self) -> float:
        """The loss of the chosen alpha."""
        return self.losses[self.alphas.index(self.alpha)]


class Trials:
    """One site's search: makes the scales of an alpha, and remembers what every alpha cost.

    The arguments are those of `search_channel_scales`.
    """

    def __init__(
        self,
        loss: Callable[[F32], float],
        act_mean_abs: F32,
        *,
        alphas: Sequence[float],
        refine: float = 0.0,
        candidate: Candidate = candidate,
        tie: I64 | None = None,
        realize: Realize | None = None,
    ) -> None:
        if not alphas:
            raise RangeError(
                "search_channel_scales: alphas must hold at least one number; got none. (0.0,) is RTN."
            )
        self._loss, self._candidate, self._tie, self._realize = loss, candidate, tie, realize
        self._alphas, self._refine, self._in_features = alphas, refine, len(act_mean_abs)
        self._statistic = act_mean_abs if tie is None else pool(act_mean_abs, tie)
        self._losses: dict[float, float] = {}

    def scales(self, alpha: float) -> tuple[F32, F32]:
        """Return the producer's and the consumers' scales of one alpha; scales of 1 leave the layers alone."""
        wanted = self._candidate(self._statistic, alpha)
        realized = wanted if self._realize is None or (wanted == 1.0).all() else self._realize(wanted)
        return wanted, realized if self._tie is None else realized[self._tie]

    def judge(self, alpha: float) -> None:
        """Find the loss of an alpha; it is the same whatever else is judged at the same time."""
        self._losses[alpha] = self._loss(self.scales(alpha)[1])

    def grid(self) -> list[float]:
        """Return the alphas to begin with."""
        return sorted({float(alpha) for alpha in self._alphas})

    def refinement(self) -> list[float]:
        """Return the alphas beside the best of the grid that are to be judged after it."""
        if self._refine == 0.0:
            return []
        around = {round(self._best() + sign * self._refine, 9) for sign in (-1.0, 1.0)}
        return sorted(alpha for alpha in around - self._losses.keys() if 0.0 < alpha <= 1.0)

    def _best(self) -> float:
        """Return the smallest alpha that has the least loss."""
        finite = [alpha for alpha in sorted(self._losses) if math.isfinite(self._losses[alpha])]
        if not finite:
            raise RangeError(
                "search_channel_scales: at least one alpha must have a finite loss; got "
                f"{list(self._losses.values())}. Check the statistics and weights for huge values."
            )
        return min(finite, key=self._losses.__getitem__)

    def found(self) -> ScaleSearch:
        """Return the outcome, once the grid and its refinement have been judged."""
        best, tried = self._best(), tuple(sorted(self._losses))
        identity = 0.0 in tried and bool((self.scales(0.0)[1] == 1.0).all())
        ones = np.ones(self._in_features, dtype=np.float32)
        loss_rtn = self._losses[0.0] if identity else self._loss(ones)
        losses = tuple(self._losses[alpha] for alpha in tried)
        return ScaleSearch(tried, losses, best, *self.scales(best), loss_rtn)


def search_together(sites: Sequence[Trials], *, n_threads: int = 1) -> list[ScaleSearch]:
    """Search the channel scales of several sites that do not depend on each other, all alphas as one list of jobs.

    Parameters
    ----------
    sites : sequence of Trials
        For threads to end together, the largest first.
    n_threads : int
        Alphas that are judged at the same time; for more than one, the losses must bear to be called so.

    Returns
    -------
    searches : list of ScaleSearch, in the order of the sites

    Raises
    ------
    RangeError
        As `search_channel_scales`.
    """
    for stage in (Trials.grid, Trials.refinement):
        jobs = [(site, alpha) for site in sites for alpha in stage(site)]
        run_jobs(lambda job: job[0].judge(job[1]), jobs, n_threads=n_threads)
    return [site.found() for site in sites]


def search_channel_scales(
    loss: Callable[[F32], float],
    act_mean_abs: F32,
    *,
    alphas: Sequence[float],
    refine: float = 0.0,
    candidate: Candidate = candidate,
    tie: I64 | None = None,
    realize: Realize | None = None,
    n_threads: int = 1,
) -> ScaleSearch:
    """Return the channel scales with the least loss over a grid of alphas.

    Parameters
    ----------
    loss : callable
        channel_scales float32 (in_features,) -> float: `GramObjective`, `ModuleObjective`.
    act_mean_abs : float32 array, shape (in_features,)
    alphas : sequence of float in [0, 1]
    refine : float
        After the grid, try the best alpha - refine and + refine too. 0: the grid alone.
    candidate : callable
        The scales of an alpha: `candidate` or `candidate_llm_awq`.
    tie : int64 array, shape (in_features,), or None
        The producer's row behind every channel, where several share one (`ties.query_head_tie`).
    realize : callable or None
        What becomes of the scales when the producer is stored (`fold_into_norm`), so that it is judged.
    n_threads : int
        Alphas that are judged at the same time; for more than one, `loss` must bear to be called so.

    Returns
    -------
    search : ScaleSearch

    Raises
    ------
    RangeError
        If there is no alpha, one lies outside [0, 1], or no loss is finite.

    Notes
    -----
    Of equal losses the smallest alpha wins, so with 0 in the grid nothing is scaled unless it helps, and the
    chosen loss is never above that of round-to-nearest.
    """
    trials = Trials(
        loss, act_mean_abs, alphas=alphas, refine=refine, candidate=candidate, tie=tie, realize=realize
    )
    return search_together([trials], n_threads=n_threads)[0]
