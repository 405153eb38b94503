"""The search over one transformer block: statistics and float weights in, folds and a report out.

    search_block   the search; what comes out is in `search.result`

All sites are searched on the block as it came, then all scales are folded, then clips are searched.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from awq_ref.checks import require_names
from awq_ref.dtypes import F32, F64, I64
from awq_ref.errors import ShapeError
from awq_ref.search.block_clips import BlockClips
from awq_ref.search.candidates import (
    CANDIDATES,
    WEIGHTED_CANDIDATES,
    Candidate,
    candidate,
    relative_weight_mean,
)
from awq_ref.search.channel_scales import ScaleSearch, Trials, pool, search_together
from awq_ref.search.folding import LinearFold, StorageDtype, fold_into_norm, round_to
from awq_ref.search.objective import (
    FeedbackObjective,
    GramObjective,
    ModuleObjective,
    ModuleRunner,
    Quantizer,
    Statistics,
)
from awq_ref.search.plan import ScaleGroup
from awq_ref.search.recipes import Recipe
from awq_ref.search.result import BlockResult, SiteReport
from awq_ref.spec import QuantSpec
from awq_ref.threads import blas_on_one_thread, default_threads


@dataclass
class _Search:
    """The arguments of search_block, and what has been decided so far."""

    weights: Mapping[str, F32]
    statistics: Mapping[str, Statistics]
    recipe: Recipe
    quantizer: Quantizer
    group_size: int
    norm_dtype: StorageDtype
    ties: Mapping[str, I64]
    modules: Mapping[str, ModuleRunner]
    clip_tokens: Mapping[str, F32]
    importance: Mapping[str, F32]
    norms: dict[str, F32]
    folds: dict[str, LinearFold] = field(default_factory=dict)

    def scaled(self, group: ScaleGroup) -> bool:
        """Tell whether this site can be scaled, and the recipe scales it."""
        if group.fixed or not group.tied or self.recipe.tied_sites == "shared":
            return not group.fixed
        return self.weights[group.producer].shape == self.weights[group.consumers[0]].shape

    def judge(self, group: ScaleGroup) -> str:
        """Return the objective at a site: for a module that is the layer itself, "gram" is the same number."""
        return "gram" if self.recipe.objective == "module" and group.judged_itself else self.recipe.objective

    def objective(self, group: ScaleGroup, judge: str) -> Callable[[F32], float]:
        weights = {name: self.weights[name] for name in group.consumers}
        if judge == "module":
            return ModuleObjective(weights, self.modules[group.judged], self.quantizer)
        if judge == "feedback":
            return FeedbackObjective(list(weights.values()), self.importance[group.site], self.quantizer)
        return GramObjective(list(weights.values()), self.statistics[group.site], self.quantizer)

    def realize(self, group: ScaleGroup) -> Callable[[F32], F32] | None:
        """Return what the stored norm makes of the scales, where that is compensated."""
        if group.producer_kind != "norm" or self.recipe.fold == "plain":
            return None
        norm = self.norms[group.producer]
        return lambda scales: fold_into_norm(norm, scales, storage_dtype=self.norm_dtype)[1]

    def candidate(self, group: ScaleGroup) -> Candidate:
        """Return what makes the scales of an alpha, bound to the site's weights where it looks at them."""
        name, tie = self.recipe.candidates, self.ties.get(group.site) if group.tied else None
        if not self.scaled(group):
            return candidate
        if name in CANDIDATES:
            return CANDIDATES[name]
        mean = relative_weight_mean([self.weights[linear] for linear in group.consumers], self.group_size)
        return partial(WEIGHTED_CANDIDATES[name], weight_mean=mean if tie is None else pool(mean, tie))

    def statistic(self, group: ScaleGroup) -> F32:
        """Return what the candidates are powers of: how loud a channel is, or what only it can say."""
        if self.recipe.objective == "feedback":
            return np.sqrt(self.importance[group.site])
        return self.statistics[group.site].act_mean_abs

    def trials(self, group: ScaleGroup) -> Trials:
        return Trials(
            self.objective(group, self.judge(group)),
            self.statistic(group),
            alphas=self.recipe.alphas if self.scaled(group) else (0.0,),
            refine=self.recipe.refine if self.scaled(group) else 0.0,
            candidate=self.candidate(group),
            tie=self.ties.get(group.site) if group.tied else None,
            realize=self.realize(group),
        )

    def search_all(self, plan: Sequence[ScaleGroup]) -> list[ScaleSearch]:
        """Search the channel scales of all sites, large ones first; return them in the order of the plan."""
        modules = [[group] for group in plan if self.judge(group) == "module"]
        others = [group for group in plan if self.judge(group) != "module"]
        others.sort(key=lambda group: -sum(self.weights[name].size for name in group.consumers))
        found: dict[str, ScaleSearch] = {}
        for groups in [*modules, others]:
            n_threads = default_threads() if groups is others else 1  # a module has threads of its own
            searches = search_together([self.trials(group) for group in groups], n_threads=n_threads)
            found |= {group.site: search for group, search in zip(groups, searches, strict=True)}
        return [found[group.site] for group in plan]

    def fold(self, group: ScaleGroup, found: ScaleSearch) -> None:
        """Write the chosen scales into the folds of producer and consumers."""
        if (found.channel_scales == 1.0).all():
            return
        for name in group.readers:
            self.folds[name] = replace(self.folds[name], columns=found.channel_scales)
        if group.producer_kind == "linear":
            self.folds[group.producer] = replace(self.folds[group.producer], rows=found.producer_scales)
            return
        norm, bias = self.norms[group.producer], f"{group.producer}.bias"
        if bias in self.norms:
            self.norms[bias] = round_to(self.norms[bias] / found.channel_scales, self.norm_dtype)
        if self.recipe.fold == "compensated":
            norm, _ = fold_into_norm(norm, found.producer_scales, storage_dtype=self.norm_dtype)
        else:
            norm = round_to(norm / found.producer_scales, self.norm_dtype)
        self.norms[group.producer] = norm

    def clip_all(self, plan: Sequence[ScaleGroup]) -> dict[str, F64]:
        """Search and keep the clips of the sites that the recipe clips; return the losses of their rows."""
        clips = BlockClips(
            self.weights,
            self.folds,
            self.statistics,
            self.clip_tokens,
            self.recipe,
            self.quantizer,
            self.group_size,
        )
        losses = {}
        for name, (clip, of_rows) in clips.search(plan).items():
            self.folds[name], losses[name] = replace(self.folds[name], clip=clip), of_rows
        return losses

    def report(self, group: ScaleGroup, found: ScaleSearch, row_losses: Mapping[str, F64]) -> SiteReport:
        """Return the report of a site, given the losses of its clipped consumers' rows."""
        loss_rtn, loss_scaled = found.loss_rtn, found.loss
        if self.judge(group) != "gram":  # report what other recipes report
            gram = self.objective(group, "gram")
            loss_rtn, loss_scaled = gram(np.ones_like(found.channel_scales)), gram(found.channel_scales)
        loss_clipped = loss_scaled
        if group.consumers[0] in row_losses:
            losses = np.concatenate([row_losses[name] for name in group.consumers])
            loss_clipped = math.fsum(losses) / len(losses)
        clips = {name: self.folds[name].clip for name in group.consumers}
        return SiteReport(
            site=group.site,
            linears=group.consumers,
            alphas=found.alphas,
            losses=found.losses,
            alpha=found.alpha,
            channel_scales=found.channel_scales,
            loss_rtn=loss_rtn,
            loss_scaled=loss_scaled,
            clips={name: clip for name, clip in clips.items() if clip is not None},
            loss_clipped=loss_clipped,
        )


def _check(search: _Search, plan: Sequence[ScaleGroup]) -> None:
    """Raise unless everything that the plan and the recipe need is there and fits."""
    recipe, require = search.recipe, partial(require_names, "search_block")
    sites = [group.site for group in plan]
    require("weights", search.weights, [name for group in plan for name in group.readers])
    require("norms", search.norms, [group.producer for group in plan if group.producer_kind == "norm"])
    require("statistics", search.statistics, sites)
    if recipe.objective == "module":
        require("modules", search.modules, [group.judged for group in plan if not group.judged_itself])
    if recipe.clip_tokens:
        require("clip_tokens", search.clip_tokens, sites)
    if recipe.objective == "feedback":
        require("importance", search.importance, sites)
    for group in plan:
        if group.producer_kind != "linear" or not search.scaled(group):
            continue
        rows, inputs = len(search.weights[group.producer]), search.weights[group.consumers[0]].shape[1]
        if rows != inputs and group.site not in search.ties:
            raise ShapeError(
                f"search_block: {group.producer} must have as many outputs as {group.site} has channels; got "
                f"{rows} and {inputs}. Give ties[{group.site!r}] (see query_head_tie)."
            )


def search_block(
    weights: Mapping[str, F32],
    norms: Mapping[str, F32],
    statistics: Mapping[str, Statistics],
    *,
    plan: Sequence[ScaleGroup],
    recipe: Recipe,
    spec: QuantSpec,
    pseudo_quantize: Callable[..., F32],
    norm_dtype: StorageDtype = "float16",
    ties: Mapping[str, I64] | None = None,
    modules: Mapping[str, ModuleRunner] | None = None,
    clip_tokens: Mapping[str, F32] | None = None,
    importance: Mapping[str, F32] | None = None,
) -> BlockResult:
    """Search the channel scales and clips of one block.

    Parameters
    ----------
    weights : mapping of linear layer -> float32 array, shape (out_features, in_features)
        All linear layers of the block, as they came.
    norms : mapping of norm -> float32 array, shape (hidden_size,)
        Their weights; a norm's bias, if it has one, under "NAME.bias".
    statistics : mapping of site -> SiteStatistics
        Of the float block's inputs. May be empty for a recipe that searches nothing.
    plan : sequence of ScaleGroup
    recipe : Recipe
    spec : QuantSpec
        Its range_rule is replaced by the recipe's.
    pseudo_quantize : callable
        (weight, *, spec) -> float32 weight that the integers stand for.
    norm_dtype : "float32", "float16" or "bfloat16"
        In which the norms are going to be stored.
    ties : mapping of site -> int64 array, shape (in_features,)
        For tied sites whose producer has fewer rows than the site has channels: `query_head_tie`.
    modules : mapping of module -> callable
        For the objective "module": takes replaced float weights, yields the outputs on all windows.
    clip_tokens : mapping of site -> float32 array, shape (tokens, in_features)
        For a recipe with clip_tokens: the inputs with that stride (`calibration.observe`, token_stride).
    importance : mapping of site -> float32 array, shape (in_features,)
        For the objective "feedback": `FeedbackFactor.importance` of the site.

    Returns
    -------
    result : BlockResult

    Raises
    ------
    RangeError
        If weights, norms, statistics, modules, clip_tokens or importance lack what plan and recipe need.
    ShapeError
        If a site needs a tie and has none, or arrays do not fit.

    Notes
    -----
    Memory beyond the arguments, of each thread: a slab of 1024 rows of the widest layer, its scaled copy while it is
    clipped.
    """
    identity = {name: LinearFold() for name in weights}
    if not recipe.searches and not statistics:
        return BlockResult(dict(norms), identity, ())
    search = _Search(
        weights,
        statistics,
        recipe,
        partial(pseudo_quantize, spec=recipe.search_spec(spec)),
        spec.group_size,
        norm_dtype,
        ties or {},
        modules or {},
        clip_tokens or {},
        importance or {},
        dict(norms),
        identity,
    )
    _check(search, plan)
    with blas_on_one_thread():
        found = search.search_all(plan)
        for group, choice in zip(plan, found, strict=True):
            search.fold(group, choice)
        losses = search.clip_all(plan)
        reports = [search.report(group, choice, losses) for group, choice in zip(plan, found, strict=True)]
    return BlockResult(search.norms, search.folds, tuple(reports))
