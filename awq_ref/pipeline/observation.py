"""Of what the walk through a model is made (`awq_ref.pipeline.walk`).

open_float        a folder -> checkpoint and configuration, of a float model
embed_windows     token ids -> the hidden states that enter the first block
run_block         all windows through one block, some batches at a time
module_runners    what the objective "module" needs
ObservedBlock     one block with what calibration knows of it
located           the place in front of an error's message
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from awq_ref.buffers import KEPT_BYTES, keep_freed_memory
from awq_ref.calibration import BatchLinears, Observations
from awq_ref.checkpoint import Checkpoint
from awq_ref.dtypes import F32, I64
from awq_ref.errors import AwqRefError, UnsupportedError
from awq_ref.matmul import DenseLinear
from awq_ref.model import (
    Block,
    Context,
    Entrance,
    ModelConfig,
    add_branch,
    arithmetic,
    attention_forward,
    block_forward,
    enter,
    mlp_forward,
    mlp_input,
    normed,
)
from awq_ref.pipeline.reading import open_model, read_entrance
from awq_ref.pipeline.states import States, blank_like
from awq_ref.pipeline.stored import check_complete
from awq_ref.threads import run_side_by_side

BATCH_TOKENS = 2048  # tokens of a batch, at most
EMBEDDING_ROWS = 4096  # rows of the embedding that are read at a time
EMBEDDED_BYTES = 2**26  # hidden states that are made of them at a time

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


def _embedded(checkpoint: Checkpoint, config: ModelConfig, windows: I64, entrance: Entrance) -> F32:
    """Return what enters the first block of some windows; a few thousand embeddings at a time."""
    name = f"{config.family.embed_tokens}.weight"
    positions = np.broadcast_to(np.arange(windows.shape[1], dtype=np.int64), windows.shape)
    hidden = np.empty((*windows.shape, config.hidden_size), dtype=np.float32)
    for first in range(0, config.vocab_size, EMBEDDING_ROWS):
        rows = checkpoint.read(name, rows=slice(first, first + EMBEDDING_ROWS))
        here = (windows >= first) & (windows < first + len(rows))
        hidden[here] = enter(rows[windows[here] - first], positions[here], entrance, config)
    return hidden


def embed_windows(checkpoint: Checkpoint, config: ModelConfig, windows: I64, hidden: States) -> None:
    """Put what enters the first block into `hidden`, (windows, seq, hidden_size), 64 MiB of it at a time."""
    entrance = read_entrance(checkpoint, config)
    step = max(1, EMBEDDED_BYTES // (4 * windows.shape[1] * config.hidden_size))
    for first in range(0, len(windows), step):
        rows = slice(first, first + step)
        hidden[rows] = _embedded(checkpoint, config, windows[rows], entrance)


@dataclass(frozen=True)
class ObservedBlock:
    """One block with what calibration knows of it.

    modules : empty unless the objective needs it
    streams : context of the block, what enters it, and what enters it once the blocks before it are rounded; None
              unless the recipe follows the drift. Those in memory are the reader's to work in.
    leaving : where what enters the next block, once this one is rounded too, must be put; may be streams[2]
    """

    layer: int
    block: Block
    observations: Observations
    modules: dict[str, ModuleRunner]
    streams: tuple[Context, States, States] | None = None
    leaving: States | None = None

    def weights(self) -> dict[str, F32]:
        """Return the float weights by the linears' names."""
        return {
            name: linear.weight
            for name, linear in self.block.linears.items()
            if isinstance(linear, DenseLinear)
        }


def windows_at_once(config: ModelConfig, seq_len: int) -> int:
    """Return how many windows a batch has: the widest array that a block makes of them can be kept."""
    tokens = min(BATCH_TOKENS, KEPT_BYTES // (4 * max(config.intermediate_size, config.hidden_size)))
    return max(1, tokens // seq_len)


def batches(config: ModelConfig, hidden: States) -> list[slice]:
    """Return the windows of each batch, those that go through a block together."""
    windows, seq_len, _ = hidden.shape
    step = windows_at_once(config, seq_len)
    return [slice(first, first + step) for first in range(0, windows, step)]


def _with_weights(block: Block, weights: Mapping[str, F32]) -> Block:
    """Return the block with some linears' weights replaced."""
    linears = dict(block.linears)
    for name, weight in weights.items():
        linears[name] = DenseLinear(weight, getattr(block.linears[name], "bias", None))
    return Block(block.norms, linears)


def module_runners(
    block: Block, config: ModelConfig, context: Context, hidden: States
) -> dict[str, ModuleRunner]:
    """Return, for the objective "module", the functions that run the attention and the MLP on the block's inputs.

    Each takes replacement weights by name and yields the module's outputs batch by batch. The MLP's inputs are
    computed once and kept: as many bytes as `hidden`. "both", of a parallel block: what the two add to the stream.
    """
    parts = batches(config, hidden)

    def entered(rows: slice) -> F32:
        return normed(hidden[rows], block, config, "before_attention")

    mlp_inputs = blank_like(hidden)
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


def run_block(
    linears_of: BatchLinears,
    *,
    norms: dict[str, F32],
    config: ModelConfig,
    context: Context,
    hidden: States,
    after: States,
) -> None:
    """Put all windows through a block with the linears of each batch; results go to `after`, which may be `hidden`.

    As many batches at a time as there are threads, each on one: they need not wait for each other at every product.
    """
    parts = batches(config, hidden)

    def one(batch: int) -> None:
        rows = parts[batch]
        with linears_of(batch) as linears:
            after[rows] = block_forward(hidden[rows], Block(norms, linears), config, context)

    keep_freed_memory()
    with arithmetic():  # what overflows reaches a site as inf or NaN, and is named
        run_side_by_side(one, len(parts))
