"""A float checkpoint folder becomes a quantized one, block by block.

    quantize_model   the whole job

For each block: read, observe, search, fold, quantize, pack, write, forget. The output folder appears at the end,
whole, or not at all. What is finished is kept: a run that was stopped, at whatever moment, is taken up by the same
call.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from awq_ref.calibration import Observations
from awq_ref.checkpoint import MAX_SHARD_BYTES, Checkpoint, ShardWriter, require_new, resumable_folder
from awq_ref.checks import require_between, require_one_of
from awq_ref.dtypes import I64
from awq_ref.errors import UnsupportedError
from awq_ref.model import ModelConfig, outer_tensor_shapes
from awq_ref.pipeline.block_output import Job, quantize_block
from awq_ref.pipeline.describe import mean_bits_per_weight
from awq_ref.pipeline.fit import choose_layout, require_group_sizes, require_layout
from awq_ref.pipeline.footprint import Footprint, memory_bytes, peak_bytes, plan_memory, process_name
from awq_ref.pipeline.load import open_tokenizer, read_block
from awq_ref.pipeline.observation import EMBEDDING_ROWS, ObservedBlock, open_float
from awq_ref.pipeline.papers import write_papers
from awq_ref.pipeline.resume import FinishedBlocks, identity_of
from awq_ref.pipeline.spread import Executor, quantized_apart, require_apart
from awq_ref.pipeline.states import StateStore
from awq_ref.pipeline.statistics import ModelStatistics
from awq_ref.pipeline.texts import Calibration, calibration_windows
from awq_ref.pipeline.walk import ROUNDED, observed_blocks
from awq_ref.report.progress import progress
from awq_ref.report.quantization import LayerReport, QuantizationReport
from awq_ref.search import Recipe, recipe_named
from awq_ref.spec import STATE_DTYPES, QuantSpec, StateDtype


def _copy_outer(checkpoint: Checkpoint, config: ModelConfig, writer: ShardWriter) -> None:
    """Copy embedding, final norm and head byte by byte after checking that they are finite."""
    for name, shape in outer_tensor_shapes(config).items():
        for first in range(0, shape[0], EMBEDDING_ROWS):
            checkpoint.read(name, rows=slice(first, first + EMBEDDING_ROWS))
        writer.add_raw(name, checkpoint.info(name).dtype, shape, checkpoint.raw(name))


@dataclass(frozen=True)
class _Input:
    """What the blocks are searched on: windows to be observed, statistics, or neither; and what is recorded of it."""

    windows: I64 | None
    statistics: ModelStatistics | None
    seen: dict[str, Any]


def _calibrated(
    job: Job,
    calibration: Calibration,
    statistics: ModelStatistics | None,
    activations: StateDtype,
    *,
    samples: int,
    seq_len: int,
) -> _Input:
    """Return what the recipe needs of the calibration."""
    if not job.recipe.searches:
        return _Input(None, None, {})
    if statistics is not None:
        return _Input(None, statistics, statistics.calibration)
    windows, seen = calibration_windows(
        open_tokenizer(job.checkpoint.folder, job.config),
        calibration,
        samples=samples,
        seq_len=min(seq_len, job.config.max_position_embeddings),
        vocab_size=job.config.vocab_size,
    )
    return _Input(windows, None, seen if activations == "float32" else seen | {"activations": activations})


def _blocks(job: Job, given: _Input, store: StateStore, first: int) -> Iterator[ObservedBlock]:
    """Yield the blocks from `first` on with what the recipe needs: observed now, before, or not at all."""
    last = job.config.num_hidden_layers
    if given.windows is not None and first < last:
        yield from observed_blocks(
            job.checkpoint, job.config, given.windows, recipe=job.recipe, store=store, first=first
        )
        return
    for layer in range(first, last):
        known = {} if given.statistics is None else given.statistics.of_layer(layer)
        yield ObservedBlock(layer, read_block(job.checkpoint, job.config, layer), Observations(known, {}), {})


def _block_here(job: Job, found: ObservedBlock, writer: ShardWriter, store: StateStore) -> LayerReport:
    """Quantize a block in this process; keep the rounded stream that leaves it."""
    report = quantize_block(job, found, writer)
    if found.leaving is not None and found.layer + 1 < job.config.num_hidden_layers:
        store.keep(found.leaving, ROUNDED, found.layer + 1)
    return report


@dataclass(frozen=True)
class _Helpers:
    """Who does the searches; peaks: the memory of each of its processes."""

    executor: Executor | None
    ahead: int
    peaks: dict[str, int] = field(default_factory=dict)


def _finish_blocks(
    job: Job, given: _Input, store: StateStore, done: FinishedBlocks, helpers: _Helpers
) -> Iterator[None]:
    """Do the blocks that are not done yet; yield after each."""
    first = done.count
    blocks = _blocks(job, given, store, first)
    if helpers.executor is None:
        # No name may keep a block while the next one is read: that would be two in memory.
        for _ in range(first, job.config.num_hidden_layers):
            done.add(_block_here(job, next(blocks), done.writer, store))
            yield
        return
    apart = quantized_apart(helpers.executor, job, blocks, ahead=helpers.ahead, peaks=helpers.peaks)
    for collected, report in apart:
        for tensor in collected.tensors:
            done.writer.add_raw(*tensor)
        done.add(report)
        yield


def _require_fit(recipe: Recipe, statistics: ModelStatistics | None, helpers: _Helpers) -> None:
    """Raise UnsupportedError where a recipe cannot have what it is to be given."""
    if statistics is not None and recipe.needs_tokens:
        raise UnsupportedError(
            f"quantize_model: recipe {recipe.name} judges on the tokens themselves, which saved statistics do not "
            "hold. Give calibration text instead."
        )
    if helpers.executor is not None:
        require_apart(recipe)


def _planned(
    job: Job, given: _Input, activations: StateDtype, memory: int | str | None, helpers: _Helpers
) -> Footprint:
    """Return what the run will take."""
    shape = (0, 1) if given.windows is None else given.windows.shape
    embedding = job.checkpoint.info(f"{job.config.family.embed_tokens}.weight")
    return plan_memory(
        job.config,
        job.recipe,
        tokens=shape[0] * shape[1],
        seq_len=shape[1],
        itemsize=embedding.n_bytes // math.prod(embedding.shape),
        dtype=activations,
        budget=memory_bytes(memory) if isinstance(memory, str) else memory,
        ahead=0 if helpers.executor is None else helpers.ahead,
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
    memory: int | str | None = None,
    activations: StateDtype = "float32",
    executor: Executor | None = None,
    ahead: int = 2,
    restart: bool = False,
    planned: Callable[[Footprint], None] | None = None,
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
    memory : int or str, optional
        Bytes, or "4GB", that the process may take. Where the hidden states do not fit they go to a file beside the
        output; the result is the same. None: they stay in memory.
    activations : "float32" or "float16"
        Of the hidden states between blocks. float16 takes half the room and changes numbers, which the record in
        config.json says.
    executor : optional
        Anything with `submit` as concurrent.futures has it: a `ProcessPoolExecutor`, a Dask client's `get_executor()`.
        Blocks are searched and rounded there, with the same result. Its workers see the source under the same path.
    ahead : int
        So many blocks are with the executor at a time.
    restart : bool
        Drop the finished blocks of an earlier run that was stopped, instead of going on with them.
    planned : callable, optional
        Is told the memory that the run will need, before it begins.
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
        If the destination exists or cannot be written; if an earlier run to it was stopped and was other work.

    Notes
    -----
    Memory: one block in float32, its Gram matrices, and the hidden states of all windows; a recipe that follows their
    drift (`best`) holds two blocks and four copies of the states. `footprint.plan_memory` has the sum; the report holds
    it as `predicted_bytes`, and what the process really took as `peak_bytes`.

    Stopped: finished blocks stay in `.NAME.partial` beside the destination after an interrupt, a full disk or a death
    of the process, and the same call goes on from there to the same bytes. A call with another source, recipe, grid or
    calibration, or by another version, is refused.
    """
    started = time.perf_counter()
    chosen = recipe if isinstance(recipe, Recipe) else recipe_named(recipe)
    spec = chosen.storage_spec(QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric))
    for name, value in {"samples": samples, "seq_len": seq_len, "ahead": ahead}.items():
        require_between("quantize_model", name, value, 1, math.inf)
    require_one_of("quantize_model", "activations", activations, STATE_DTYPES)
    helpers = _Helpers(executor, ahead)
    require_new(Path(destination))  # before a download
    checkpoint, config = open_float(source)
    require_group_sizes(config, group_size)
    job = Job(checkpoint, config, chosen, spec, choose_layout(config, spec) if layout is None else layout)
    require_layout(config, spec, job.layout)
    _require_fit(chosen, statistics, helpers)
    given = _calibrated(job, calibration, statistics, activations, samples=samples, seq_len=seq_len)
    plan = _planned(job, given, activations, memory, helpers)
    if planned is not None:
        planned(plan)
    report = QuantizationReport(
        recipe=chosen.name,
        spec=spec,
        layout=job.layout,
        calibration=given.seen,
        layers=(),
        bits_per_weight=mean_bits_per_weight(config, spec, job.layout),
        predicted_bytes=plan.total,
    )
    identity = identity_of(
        job, calibration=given.seen, statistics=given.statistics, activations=activations,
        max_shard_bytes=max_shard_bytes,
    )  # fmt: skip
    with resumable_folder(destination, identity, restart=restart) as journal:
        store = StateStore(activations, plan.spilled, journal.folder)
        with FinishedBlocks(journal, store, report, max_shard_bytes=max_shard_bytes) as done:
            if not done.count:
                _copy_outer(checkpoint, config, done.writer)
            steps = _finish_blocks(job, given, store, done, helpers)
            n_layers, label = config.num_hidden_layers, f"quantize {chosen.name}"
            for _ in progress(steps, total=n_layers - done.count, label=label, unit="block", shown=shown):
                pass
            report = replace(report, layers=done.reports())
        write_papers(checkpoint, config, journal.model, Path(destination).name, report)
    peak = peak_bytes() + sum(n for name, n in helpers.peaks.items() if name != process_name())
    return replace(report, seconds=time.perf_counter() - started, peak_bytes=peak)
