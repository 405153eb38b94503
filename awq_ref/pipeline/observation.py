"""Observation of a whole model, one block in memory at a time.

    embed_windows     token ids -> the hidden states that enter the first block
    observed_blocks   walk through the blocks: float weights, statistics, and what the objective "module" needs
    ModelStatistics   the statistics of all sites, with a fingerprint of the tokens; save, load
    calibrate         folder and text -> ModelStatistics

The statistics are those of the float model, so they serve every bit width, group size and recipe.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from awq_ref.calibration import (
    Observations,
    SiteStatistics,
    clip_token_stride,
    load_statistics,
    observe,
    save_statistics,
)
from awq_ref.checkpoint import Checkpoint
from awq_ref.dtypes import F32, I64
from awq_ref.errors import AwqRefError, UnsupportedError
from awq_ref.matmul import DenseLinear
from awq_ref.model import (
    Block,
    Context,
    ModelConfig,
    add_branch,
    attention_forward,
    block_forward,
    block_prefix,
    enter,
    make_context,
    mlp_forward,
    mlp_input,
    normed,
)
from awq_ref.pipeline.load import open_tokenizer, read_block
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.reading import open_model, read_entrance
from awq_ref.pipeline.stored import check_complete
from awq_ref.pipeline.texts import Calibration, calibration_windows
from awq_ref.report.progress import progress
from awq_ref.search import Recipe, routed_sites, site_inputs
from awq_ref.spec import LinearOperator

BATCH_TOKENS = 2048  # tokens that go through a block at a time
EMBEDDING_ROWS = 4096  # rows of the embedding that are read at a time

ModuleRunner = Callable[[Mapping[str, F32]], Iterable[F32]]


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the place in front of the message of any error of ours."""
    try:
        yield
    except AwqRefError as error:
        raise type(error)(f"{where}: {error}") from error


def open_float(path: str | Path) -> tuple[Checkpoint, ModelConfig]:
    """Open a float checkpoint and check from its headers that it is complete.

    Raises
    ------
    UnsupportedError
        If the checkpoint is quantized already.
    """
    checkpoint, config = open_model(path)
    if checkpoint.quantization_config is not None:
        raise UnsupportedError(
            f"{path}: must be a float checkpoint; it is quantized already. Start from its original."
        )
    check_complete(checkpoint, config, None)
    return checkpoint, config


def embed_windows(checkpoint: Checkpoint, config: ModelConfig, windows: I64) -> F32:
    """Return what enters the first block, float32 (windows, seq, hidden_size); a few thousand embeddings at a time."""
    name, entrance = f"{config.family.embed_tokens}.weight", read_entrance(checkpoint, config)
    positions = np.broadcast_to(np.arange(windows.shape[1], dtype=np.int64), windows.shape)
    hidden = np.empty((*windows.shape, config.hidden_size), dtype=np.float32)
    for first in range(0, config.vocab_size, EMBEDDING_ROWS):
        rows = checkpoint.read(name, rows=slice(first, first + EMBEDDING_ROWS))
        here = (windows >= first) & (windows < first + len(rows))
        hidden[here] = enter(rows[windows[here] - first], positions[here], entrance, config)
    return hidden


@dataclass(frozen=True)
class ObservedBlock:
    """One block with what calibration knows of it.

    modules : empty unless the objective needs it
    streams : context of the block, what enters it, and what enters it once the blocks before it are rounded; None
              unless the recipe follows the drift. The arrays are the reader's to work in; the last one must become
              what enters the next block.
    """

    layer: int
    block: Block
    observations: Observations
    modules: dict[str, ModuleRunner]
    streams: tuple[Context, F32, F32] | None = None

    def weights(self) -> dict[str, F32]:
        """Return the float weights by the linears' names."""
        return {
            name: linear.weight
            for name, linear in self.block.linears.items()
            if isinstance(linear, DenseLinear)
        }


def batches(windows: int, seq_len: int) -> list[slice]:
    """Return the windows that go through a block at a time."""
    step = max(1, BATCH_TOKENS // seq_len)
    return [slice(first, first + step) for first in range(0, windows, step)]


def _with_weights(block: Block, weights: Mapping[str, F32]) -> Block:
    """Return the block with some linears' weights replaced."""
    linears = dict(block.linears)
    for name, weight in weights.items():
        linears[name] = DenseLinear(weight, getattr(block.linears[name], "bias", None))
    return Block(block.norms, linears)


def module_runners(
    block: Block, config: ModelConfig, context: Context, hidden: F32
) -> dict[str, ModuleRunner]:
    """Return, for the objective "module", the functions that run the attention and the MLP on the block's inputs.

    Each takes replacement weights by name and yields the module's outputs batch by batch. The MLP's inputs are
    computed once and kept: as many bytes as `hidden`. "both", of a parallel block: what the two add to the stream.
    """
    parts = batches(*hidden.shape[:2])

    def entered(rows: slice) -> F32:
        return normed(hidden[rows], block, config, "before_attention")

    mlp_inputs = np.empty_like(hidden)
    for rows in parts:
        u = entered(rows)
        y = attention_forward(u, block, config, context)
        stream = add_branch(hidden[rows], y, block, config, "after_attention")
        mlp_inputs[rows] = mlp_input(stream, hidden[rows], u, block, config)

    def run_attention(weights: Mapping[str, F32]) -> Iterator[F32]:
        changed = _with_weights(block, weights)
        return (attention_forward(entered(rows), changed, config, context) for rows in parts)

    def run_mlp(weights: Mapping[str, F32]) -> Iterator[F32]:
        changed = _with_weights(block, weights)
        return (mlp_forward(mlp_inputs[rows], changed, config) for rows in parts)

    def run_both(weights: Mapping[str, F32]) -> Iterator[F32]:
        return (one + other for one, other in zip(run_attention(weights), run_mlp(weights), strict=True))

    runners: dict[str, ModuleRunner] = {"self_attn": run_attention, "mlp": run_mlp}
    return runners | {"both": run_both} if config.family.parallel else runners


def _run_block(
    linears: Mapping[str, LinearOperator],
    *,
    norms: dict[str, F32],
    config: ModelConfig,
    context: Context,
    hidden: F32,
    after: F32,
) -> None:
    """Put all windows through a block with these linears; the results go to `after`, which may be `hidden`."""
    block = Block(norms, dict(linears))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what overflows reaches a site as inf or NaN, and is named
        for rows in batches(*hidden.shape[:2]):
            after[rows] = block_forward(hidden[rows], block, config, context)


def observed_blocks(
    checkpoint: Checkpoint, config: ModelConfig, windows: I64, *, recipe: Recipe | None = None
) -> Iterator[ObservedBlock]:
    """Yield block after block with its statistics; only one block's weights are in memory at a time.

    Parameters
    ----------
    windows : int64 array, shape (windows, seq_len)
    recipe : Recipe, optional
        Says whether tokens and module runners are wanted beside the statistics.

    Raises
    ------
    RangeError
        If a weight or an activation is NaN or infinite; layer, tensor or site, and index are named.
    """
    hidden = embed_windows(checkpoint, config, windows)
    context = make_context(config, windows.shape[1])
    stride = clip_token_stride(windows.size, recipe.clip_tokens) if recipe and recipe.clip_tokens else None
    judged = recipe is not None and recipe.objective == "module"
    drifted = hidden.copy() if recipe and recipe.follows_drift else None
    for layer in range(config.num_hidden_layers):
        plan, block = layer_plan(config, layer), read_block(checkpoint, config, layer)
        after = np.empty_like(hidden) if judged or drifted is not None else hidden
        run = partial(
            _run_block,
            norms=block.norms,
            config=config,
            context=context.at_layer(layer),
            hidden=hidden,
            after=after,
        )
        with located(block_prefix(config, layer).rstrip(".")):
            observations = observe(
                run, block.linears, site_inputs(plan), token_stride=stride, may_miss=routed_sites(plan)
            )
        modules = module_runners(block, config, context.at_layer(layer), hidden) if judged else {}
        streams = None if drifted is None else (context.at_layer(layer), hidden, drifted)
        found = ObservedBlock(layer, block, observations, modules, streams)
        del block, observations, modules, streams
        yield found
        del found  # before the next block is read
        hidden = after


@dataclass(frozen=True)
class ModelStatistics:
    """The statistics of every site of a model: `sites["LAYER.SITE"]`, and which tokens they come from."""

    sites: dict[str, SiteStatistics]
    calibration: dict[str, Any]

    def of_layer(self, layer: int) -> dict[str, SiteStatistics]:
        """Return site -> statistics of one layer."""
        start = f"{layer}."
        return {name[len(start) :]: found for name, found in self.sites.items() if name.startswith(start)}

    def save(self, path: str | Path) -> None:
        """Write them to one safetensors file."""
        save_statistics(path, self.sites, source=self.calibration)

    @classmethod
    def load(cls, path: str | Path) -> "ModelStatistics":
        """Read what `save` wrote; FormatError if the file is something else."""
        return cls(*load_statistics(path))


def calibrate(
    source: str | Path,
    *,
    calibration: Calibration = None,
    samples: int = 128,
    seq_len: int = 512,
    shown: bool | None = None,
) -> ModelStatistics:
    """Observe a float model on calibration text and return the statistics of all its sites.

    With them `quantize_model(..., statistics=...)` searches at any bit width without another forward pass.

    Parameters
    ----------
    source : str or Path
        Float checkpoint folder, or its name on the hub.
    calibration : files (Path), texts (str), ids (windows, seq), or None
        None: the calibration part of the standard library's source.
    samples, seq_len : int
        How many windows, of how many tokens; a model with a shorter context gets windows of that length.
    shown : bool, optional
        Draw a progress bar; by default on a terminal only.

    Raises
    ------
    CorpusError, FormatError, HubError, MissingTensorError, RangeError, UnsupportedError
        As `quantize_model`.
    """
    checkpoint, config = open_float(source)
    windows, fingerprint = calibration_windows(
        open_tokenizer(checkpoint.folder, config),
        calibration,
        samples=samples,
        seq_len=min(seq_len, config.max_position_embeddings),
        vocab_size=config.vocab_size,
    )
    sites: dict[str, SiteStatistics] = {}
    blocks = observed_blocks(checkpoint, config, windows)
    n_layers = config.num_hidden_layers
    for layer in progress(range(n_layers), total=n_layers, label="calibrate", unit="block", shown=shown):
        statistics = next(blocks).observations.statistics
        sites |= {f"{layer}.{site}": entry for site, entry in statistics.items()}
    return ModelStatistics(sites, fingerprint)
