"""One observed block becomes tensors of a quantized checkpoint.

Job              what every block's work needs to know
TensorSink       what takes the tensors: a `ShardWriter`, or `Collected`, a list of them
quantize_block   search, fold, quantize, pack
"""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from awq_ref.checkpoint import Checkpoint, stored_form
from awq_ref.dtypes import F32, U8, AnyArray
from awq_ref.model import ModelConfig, block_prefix, block_router_shapes, norm_tensor, part_rows, stored_order
from awq_ref.pack import pack_linear
from awq_ref.pipeline.block_search import search_sites
from awq_ref.pipeline.observation import ObservedBlock, located
from awq_ref.pipeline.rounding import round_site
from awq_ref.pipeline.streams import open_streams, shared_sites
from awq_ref.quantize import join_rows, take_rows
from awq_ref.report.quantization import LayerReport
from awq_ref.search import LinearFold, Recipe
from awq_ref.spec import QuantizedLinear, QuantSpec, Rounding


@dataclass(frozen=True)
class Job:
    """What every block's work needs to know."""

    checkpoint: Checkpoint
    config: ModelConfig
    recipe: Recipe
    spec: QuantSpec
    layout: str

    def stored_dtype(self, name: str) -> str:
        """Return the dtype in which the source stores a tensor."""
        return self.checkpoint.info(name).dtype


class TensorSink(Protocol):
    """What takes tensors, as `ShardWriter` does."""

    def add(self, name: str, array: AnyArray, *, dtype: str | None = None) -> None:
        """Take an array, in its own dtype or converted."""

    def add_raw(self, name: str, dtype: str, shape: tuple[int, ...], data: U8) -> None:
        """Take a tensor's bytes."""


@dataclass
class Collected:
    """Tensors in the order in which they came: name, storage dtype, shape, bytes."""

    tensors: list[tuple[str, str, tuple[int, ...], U8]] = field(default_factory=list)

    def add(self, name: str, array: AnyArray, *, dtype: str | None = None) -> None:
        """Take an array, in its own dtype or converted."""
        dtype, stored = stored_form(name, array, dtype)
        self.add_raw(name, dtype, array.shape, stored)

    def add_raw(self, name: str, dtype: str, shape: tuple[int, ...], data: U8) -> None:
        """Take a copy of a tensor's bytes."""
        self.tensors.append((name, dtype, tuple(shape), data.copy()))


def _write_norms(
    job: Job, sink: TensorSink, prefix: str, norms: dict[str, F32], before: dict[str, F32]
) -> None:
    """Write the norms of a block in the form in which they are stored; one that took no scales, byte by byte."""
    for name, norm in norms.items():
        place = f"{prefix}{norm_tensor(name)}"
        if norm is before[name]:
            sink.add_raw(place, job.stored_dtype(place), norm.shape, job.checkpoint.raw(place))
        else:
            offset = 0.0 if name.endswith(".bias") else job.config.family.norm_offset
            sink.add(place, norm - np.float32(offset), dtype=job.stored_dtype(place))


def _write_linears(
    job: Job,
    sink: TensorSink,
    prefix: str,
    linears: dict[str, QuantizedLinear],
    folds: dict[str, LinearFold],
) -> None:
    """Write the linears of a site; those that are one tensor in the checkpoint are put together."""
    for name, parts in job.config.family.stored_linears(linears).items():
        place, order = f"{prefix}{name}", stored_order(job.config, name)
        joined = take_rows(join_rows([linears[part] for part in parts]), order)
        for end, array in pack_linear(joined, job.layout).items():
            sink.add(f"{place}.{end}", array)
        bias = f"{place}.bias"
        if bias in job.checkpoint:
            values = job.checkpoint.read(bias)
            rows = part_rows(job.config, name).items()
            folded = np.concatenate([folds[part].apply_bias(values[row]) for part, row in rows])
            sink.add(bias, folded[order], dtype=job.stored_dtype(bias))


def _write_routers(
    job: Job, sink: TensorSink, prefix: str, weights: dict[str, F32], folds: dict[str, LinearFold]
) -> None:
    """Write the linears that stay in float; one that took scales in float32, so that the choice of experts stays."""
    for name, weight in weights.items():
        place = f"{prefix}{name}.weight"
        if folds[name].columns is None:
            sink.add_raw(place, job.stored_dtype(place), weight.shape, job.checkpoint.raw(place))
        else:
            sink.add(place, folds[name].apply(weight), dtype="F32")


def quantize_block(job: Job, found: ObservedBlock, sink: TensorSink) -> LayerReport:
    """Search, fold, quantize and pack one block; give its tensors to the sink, return what was chosen."""
    family, prefix = job.config.family, block_prefix(job.config, found.layer)
    norm_dtype = job.stored_dtype(f"{prefix}{next(iter(family.norms))}.weight")
    with located(prefix.rstrip(".")):
        result = search_sites(found, job.config, recipe=job.recipe, spec=job.spec, norm_dtype=norm_dtype)
    _write_norms(job, sink, prefix, result.norms, found.block.norms)
    weights, known = found.weights(), found.observations.statistics
    streams, shared = open_streams(found, result, job.config, job.recipe), shared_sites(found, job.config)
    reports = {report.site: report for report in result.reports}
    routers = block_router_shapes(job.config, found.layer)
    _write_routers(job, sink, prefix, {name: weights[name] for name in routers}, result.folds)
    sites = {site: report.linears for site, report in reports.items()}
    told = {*routers, *(name for names in sites.values() for name in names)}
    sites |= family.stored_linears([name for name in weights if name not in told])
    for site, names in sites.items():
        with located(f"{prefix}{', '.join(names)}"):
            drift = None
            if streams and site in shared:
                drift = streams.drift(shared[site], result.folds[names[0]].columns)
            rounded = round_site(
                {name: weights[name] for name in names}, result.folds, known.get(site),
                spec=job.spec, rounding=job.recipe.rounding if site in known else Rounding(), drift=drift,
            )  # fmt: skip
        if streams:
            streams.put(rounded.linears, result.folds)
        _write_linears(job, sink, prefix, rounded.linears, result.folds)
        if site in reports:
            reports[site] = replace(reports[site], loss_rounded=rounded.loss, damping=rounded.damping)
    if streams and found.layer + 1 < job.config.num_hidden_layers:  # nothing follows the last block
        streams.finish()
    return LayerReport(found.layer, tuple(reports.values()))
