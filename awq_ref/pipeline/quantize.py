"""A float checkpoint folder becomes a quantized one, block by block.

    quantize_model   the whole job

For each block: read, observe, search, fold, quantize, pack, write, forget. The output folder appears at the end,
whole, or not at all.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from awq_ref.calibration import Observations
from awq_ref.checkpoint import (
    MAX_SHARD_BYTES,
    Checkpoint,
    ShardWriter,
    new_folder,
    require_new,
)
from awq_ref.checks import require_between
from awq_ref.dtypes import F32, I64
from awq_ref.errors import UnsupportedError
from awq_ref.model import (
    ModelConfig,
    block_prefix,
    block_router_shapes,
    norm_tensor,
    outer_tensor_shapes,
    part_rows,
    stored_order,
)
from awq_ref.pack import pack_linear
from awq_ref.pipeline.block_search import search_sites
from awq_ref.pipeline.describe import mean_bits_per_weight
from awq_ref.pipeline.fit import choose_layout, require_group_sizes, require_layout
from awq_ref.pipeline.load import open_tokenizer, read_block
from awq_ref.pipeline.observation import (
    EMBEDDING_ROWS,
    ModelStatistics,
    ObservedBlock,
    located,
    observed_blocks,
    open_float,
)
from awq_ref.pipeline.papers import write_papers
from awq_ref.pipeline.rounding import round_site
from awq_ref.pipeline.streams import open_streams, shared_sites
from awq_ref.pipeline.texts import Calibration, calibration_windows
from awq_ref.quantize import join_rows, take_rows
from awq_ref.report.progress import progress
from awq_ref.report.quantization import LayerReport, QuantizationReport
from awq_ref.search import LinearFold, Recipe, recipe_named
from awq_ref.spec import QuantizedLinear, QuantSpec, Rounding


def _copy_outer(checkpoint: Checkpoint, config: ModelConfig, writer: ShardWriter) -> None:
    """Copy embedding, final norm and head byte by byte after checking that they are finite."""
    for name, shape in outer_tensor_shapes(config).items():
        for first in range(0, shape[0], EMBEDDING_ROWS):
            checkpoint.read(name, rows=slice(first, first + EMBEDDING_ROWS))
        writer.add_raw(name, checkpoint.info(name).dtype, shape, checkpoint.raw(name))


@dataclass(frozen=True)
class _Job:
    """What every block's work needs to know."""

    checkpoint: Checkpoint
    config: ModelConfig
    recipe: Recipe
    spec: QuantSpec
    layout: str

    def stored_dtype(self, name: str) -> str:
        return self.checkpoint.info(name).dtype


def _blocks(job: _Job, windows: I64 | None, statistics: ModelStatistics | None) -> Iterator[ObservedBlock]:
    """Yield the blocks with what the recipe needs: observed now, observed before, or not at all."""
    if windows is not None:
        yield from observed_blocks(job.checkpoint, job.config, windows, recipe=job.recipe)
        return
    for layer in range(job.config.num_hidden_layers):
        known = {} if statistics is None or not job.recipe.searches else statistics.of_layer(layer)
        yield ObservedBlock(layer, read_block(job.checkpoint, job.config, layer), Observations(known, {}), {})


def _write_norms(
    job: _Job, writer: ShardWriter, prefix: str, norms: dict[str, F32], before: dict[str, F32]
) -> None:
    """Write the norms of a block in the form in which they are stored; one that took no scales, byte by byte."""
    for name, norm in norms.items():
        place = f"{prefix}{norm_tensor(name)}"
        if norm is before[name]:
            writer.add_raw(place, job.stored_dtype(place), norm.shape, job.checkpoint.raw(place))
        else:
            offset = 0.0 if name.endswith(".bias") else job.config.family.norm_offset
            writer.add(place, norm - np.float32(offset), dtype=job.stored_dtype(place))


def _write_linears(
    job: _Job,
    writer: ShardWriter,
    prefix: str,
    linears: dict[str, QuantizedLinear],
    folds: dict[str, LinearFold],
) -> None:
    """Write the linears of a site; those that are one tensor in the checkpoint are put together."""
    for name, parts in job.config.family.stored_linears(linears).items():
        place, order = f"{prefix}{name}", stored_order(job.config, name)
        joined = take_rows(join_rows([linears[part] for part in parts]), order)
        for end, array in pack_linear(joined, job.layout).items():
            writer.add(f"{place}.{end}", array)
        bias = f"{place}.bias"
        if bias in job.checkpoint:
            values = job.checkpoint.read(bias)
            rows = part_rows(job.config, name).items()
            folded = np.concatenate([folds[part].apply_bias(values[row]) for part, row in rows])
            writer.add(bias, folded[order], dtype=job.stored_dtype(bias))


def _write_routers(
    job: _Job, writer: ShardWriter, prefix: str, weights: dict[str, F32], folds: dict[str, LinearFold]
) -> None:
    """Write the linears that stay in float; one that took scales in float32, so that the choice of experts stays."""
    for name, weight in weights.items():
        place = f"{prefix}{name}.weight"
        if folds[name].columns is None:
            writer.add_raw(place, job.stored_dtype(place), weight.shape, job.checkpoint.raw(place))
        else:
            writer.add(place, folds[name].apply(weight), dtype="F32")


def _quantize_block(job: _Job, found: ObservedBlock, writer: ShardWriter) -> LayerReport:
    """Search, fold, quantize, pack and write one block."""
    family, prefix = job.config.family, block_prefix(job.config, found.layer)
    norm_dtype = job.stored_dtype(f"{prefix}{next(iter(family.norms))}.weight")
    with located(prefix.rstrip(".")):
        result = search_sites(found, job.config, recipe=job.recipe, spec=job.spec, norm_dtype=norm_dtype)
    _write_norms(job, writer, prefix, result.norms, found.block.norms)
    weights, known = found.weights(), found.observations.statistics
    streams, shared = open_streams(found, result, job.config, job.recipe), shared_sites(found, job.config)
    reports = {report.site: report for report in result.reports}
    routers = block_router_shapes(job.config, found.layer)
    _write_routers(job, writer, prefix, {name: weights[name] for name in routers}, result.folds)
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
        _write_linears(job, writer, prefix, rounded.linears, result.folds)
        if site in reports:
            reports[site] = replace(reports[site], loss_rounded=rounded.loss, damping=rounded.damping)
    if streams and found.layer + 1 < job.config.num_hidden_layers:  # nothing follows the last block
        streams.finish()
    return LayerReport(found.layer, tuple(reports.values()))


def _require_statistics_fit(recipe: Recipe, statistics: ModelStatistics | None) -> None:
    if statistics is not None and recipe.needs_tokens:
        raise UnsupportedError(
            f"quantize_model: recipe {recipe.name} judges on the tokens themselves, which saved statistics do not "
            "hold. Give calibration text instead."
        )


def quantize_model(
    source: str | Path,
    destination: str | Path,
    *,
    recipe: str | Recipe = "awq",
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    layout: str | None = None,
    calibration: Calibration = None,
    samples: int = 128,
    seq_len: int = 512,
    statistics: ModelStatistics | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    shown: bool | None = None,
) -> QuantizationReport:
    """Quantize the linears of a float checkpoint and write a new checkpoint folder.

    Parameters
    ----------
    source : str or Path
        Folder with config.json and safetensors, float32, float16 or bfloat16, or NAME or NAME@REVISION on the hub.
    destination : str or Path
        Folder to write; it must not exist, and appears when it is complete.
    recipe : "best", "awq", "gptq", "rtn", ..., or a Recipe
        A row of `awq_ref.search.RECIPES` by its name, or one of your own.
    bits : 2, 3, 4 or 8
    group_size : int
        Weights of a row that share a scale; divides in_features of every linear. -1: the whole row.
    symmetric : bool
        No zero points.
    layout : one of `awq_ref.pack.FOLDER_LAYOUTS`, optional
        By default gemm (the AWQ format of transformers, vLLM, SGLang) where it can hold the model.
    calibration : files (Path), texts (str), ids (windows, seq), or None
        None: the calibration part of the standard library's source.
    samples, seq_len : int
        How many calibration windows, of how many tokens.
    statistics : ModelStatistics, optional
        From `calibrate`, instead of calibration text.
    max_shard_bytes : int
        Size at which a new safetensors file begins.
    shown : bool, optional
        Draw a progress bar; by default on a terminal only.

    Returns
    -------
    report : QuantizationReport

    Raises
    ------
    ShapeError
        If group_size does not divide in_features of a linear.
    RangeError
        If a weight or an activation is NaN or infinite, a token id is out of range, or an option has no such value.
    CorpusError
        If the calibration text is missing, empty, too short or not UTF-8.
    FormatError, MissingTensorError, DtypeError, UnsupportedError
        If the source is not a complete float checkpoint of a known architecture.
    HubError
        If it is a name on the hub and cannot be had from there.
    OutputError
        If the destination exists or cannot be written; nothing is left behind.

    Notes
    -----
    Memory: one block in float32, its Gram matrices, and the hidden states of all windows; a recipe that follows their
    drift (`best`) holds two blocks and four copies of the states. Error feedback adds three
    float64 matrices of the size of one Gram matrix while a site is rounded.
    """
    started = time.perf_counter()
    chosen = recipe if isinstance(recipe, Recipe) else recipe_named(recipe)
    spec = chosen.storage_spec(QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric))
    require_between("quantize_model", "samples", samples, 1, math.inf)
    require_between("quantize_model", "seq_len", seq_len, 1, math.inf)
    require_new(Path(destination))  # before a download
    checkpoint, config = open_float(source)
    require_group_sizes(config, group_size)
    job = _Job(checkpoint, config, chosen, spec, choose_layout(config, spec) if layout is None else layout)
    require_layout(config, spec, job.layout)
    _require_statistics_fit(chosen, statistics)
    with new_folder(destination) as folder:
        windows, seen = None, {} if statistics is None else statistics.calibration
        if chosen.searches and statistics is None:
            length = min(seq_len, config.max_position_embeddings)
            windows, seen = calibration_windows(
                open_tokenizer(checkpoint.folder, config),
                calibration,
                samples=samples,
                seq_len=length,
                vocab_size=config.vocab_size,
            )
        blocks = _blocks(job, windows, statistics)
        steps = progress(
            range(config.num_hidden_layers),
            total=config.num_hidden_layers, label=f"quantize {chosen.name}", unit="block", shown=shown,
        )  # fmt: skip
        with ShardWriter(folder, max_shard_bytes=max_shard_bytes) as writer:
            _copy_outer(checkpoint, config, writer)
            # No name may keep a block while the next one is read: that would be two in memory.
            layers = tuple(_quantize_block(job, next(blocks), writer) for _ in steps)
        report = QuantizationReport(
            recipe=chosen.name,
            spec=spec,
            layout=job.layout,
            calibration=seen if chosen.searches else {},
            layers=layers,
            bits_per_weight=mean_bits_per_weight(config, spec, job.layout),
        )
        write_papers(checkpoint, config, folder, Path(destination).name, report)
    return replace(report, seconds=time.perf_counter() - started)
