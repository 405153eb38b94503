"""The clips of a block: some rows of a layer at a time, as jobs for several threads.

BlockClips   what the search of clips reads; `search` does it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from awq_ref.dtypes import F32, F64
from awq_ref.search.clipping import diagonal_blocks, keep_better_rows, scale_blocks, search_clip, token_blocks
from awq_ref.search.folding import LinearFold
from awq_ref.search.objective import ROWS, Quantizer, Statistics, row_losses
from awq_ref.search.plan import ScaleGroup
from awq_ref.search.recipes import Recipe
from awq_ref.threads import default_threads, run_jobs

Job: TypeAlias = tuple[
    ScaleGroup, str, slice, F32
]  # site, layer, rows, diagonal Gram blocks of what they read


@dataclass(frozen=True)
class BlockClips:
    """What the search of a block's clips reads: the arguments of `search_block`, and the folds without clips."""

    weights: Mapping[str, F32]
    folds: Mapping[str, LinearFold]
    statistics: Mapping[str, Statistics]
    clip_tokens: Mapping[str, F32]
    recipe: Recipe
    quantizer: Quantizer
    group_size: int

    def _blocks(self, group: ScaleGroup) -> F32:
        """Return the diagonal Gram blocks of the inputs that the scaled consumers see."""
        if self.recipe.clip_tokens:
            blocks = token_blocks(self.clip_tokens[group.site], self.group_size)
        else:
            statistics = self.statistics[group.site]
            blocks = diagonal_blocks(statistics.gram_sum, self.group_size) * (1.0 / statistics.count)
        columns = self.folds[group.consumers[0]].columns
        return blocks if columns is None else scale_blocks(blocks, columns)

    def _slabs(self, name: str) -> list[slice]:
        """Return the rows of a layer that are searched at a time."""
        rows = len(self.weights[name])
        return [slice(first, min(first + ROWS, rows)) for first in range(0, rows, ROWS)]

    def _clip(self, job: Job) -> tuple[F32 | None, F64]:
        """Search the clips of some rows of a layer; return those that are kept, and the losses of the rows."""
        group, name, rows, blocks = job
        weight, fold = self.weights[name][rows], self.folds[name].part(rows)
        losses = partial(row_losses, weight, statistics=self.statistics[group.site], quantizer=self.quantizer)
        if not self.recipe.clips(name):
            return None, losses(fold)
        scaled = fold.scale(weight)
        clip = search_clip(scaled, blocks, quantizer=self.quantizer, ratios=self.recipe.clip_ratios).clip
        after = losses(replace(fold, clip=clip))
        return (
            keep_better_rows(scaled, clip, losses(fold), after) if self.recipe.clip_guard else (clip, after)
        )

    def search(self, plan: Sequence[ScaleGroup]) -> dict[str, tuple[F32 | None, F64]]:
        """Return, for the layers of all sites that the recipe clips, the clips and the losses of their rows."""
        jobs: list[Job] = []
        for group in plan:
            if any(map(self.recipe.clips, group.consumers)):
                blocks = self._blocks(group)
                jobs += [
                    (group, name, rows, blocks) for name in group.consumers for rows in self._slabs(name)
                ]
        jobs.sort(key=lambda job: -self.weights[job[1]][job[2]].size)
        parts: dict[tuple[str, int], tuple[F32 | None, F64]] = {}

        def one(job: Job) -> None:
            parts[job[1], job[2].start] = self._clip(job)

        run_jobs(one, jobs, n_threads=default_threads())
        found: dict[str, tuple[F32 | None, F64]] = {}
        for name in dict.fromkeys(name for _, name, _, _ in jobs):
            clips, losses = zip(*(parts[name, rows.start] for rows in self._slabs(name)), strict=True)
            found[name] = np.concatenate(clips) if self.recipe.clips(name) else None, np.concatenate(losses)
        return found
