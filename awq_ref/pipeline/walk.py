"""The walk of all calibration windows through a model, one block in memory at a time.

observed_blocks   block after block: float weights, statistics, and what the recipe needs beside them
"""

from collections.abc import Iterator
from functools import partial

from awq_ref.calibration import Unread, clip_token_stride, observe
from awq_ref.checkpoint import Checkpoint
from awq_ref.dtypes import I64
from awq_ref.model import Block, ModelConfig, block_prefix, make_context
from awq_ref.pipeline.load import read_block
from awq_ref.pipeline.observation import ObservedBlock, embed_windows, located, module_runners, run_block
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.states import States, StateStore
from awq_ref.search import Recipe, routed_sites, site_inputs
from awq_ref.spec import LinearOperator

# The two streams: of the float model, and of the one that is rounded so far.
FLOAT, ROUNDED = "float", "rounded"


def _entering(
    checkpoint: Checkpoint,
    config: ModelConfig,
    windows: I64,
    store: StateStore,
    first: int,
    follows_drift: bool,
) -> tuple[States, States | None]:
    """Return both streams before the first block to be walked through."""
    shape = (windows.shape[0], windows.shape[1], config.hidden_size)
    if first:
        drifted = store.load(shape, ROUNDED, first) if follows_drift else None
        return store.load(shape, FLOAT, first), drifted
    hidden = store.blank(shape, FLOAT, 0)
    embed_windows(checkpoint, config, windows, hidden)
    return hidden, hidden.copy() if follows_drift else None


def _to_observe(block: Block, config: ModelConfig, layer: int) -> dict[str, LinearOperator]:
    """Return the linears to run: what the last of the model's MLP makes goes nowhere."""
    if layer < config.num_hidden_layers - 1:
        return block.linears
    experts = config.family.experts
    parts = [config.family.mlp, *(experts.of(e) for e in range(config.n_experts(layer)) if experts)]
    ends = {down for _, _, down in parts}
    return {name: Unread(linear) if name in ends else linear for name, linear in block.linears.items()}


def observed_blocks(
    checkpoint: Checkpoint,
    config: ModelConfig,
    windows: I64,
    *,
    recipe: Recipe | None = None,
    store: StateStore | None = None,
    first: int = 0,
) -> Iterator[ObservedBlock]:
    """Yield block after block with its statistics; only one block's weights are in memory at a time.

    Parameters
    ----------
    windows : int64 array, shape (windows, seq_len)
    recipe : Recipe, optional
        Says whether tokens and module runners are wanted beside the statistics.
    store : StateStore, optional
        Where the hidden states are; by default in memory. The float stream that enters the next block is kept in it
        when a block is yielded.
    first : int
        The block to begin with; the store has what enters it.

    Raises
    ------
    RangeError
        If a weight or an activation is NaN or infinite; layer, tensor or site, and index are named.
    """
    store, last = store or StateStore(), config.num_hidden_layers - 1
    context = make_context(config, windows.shape[1])
    stride = clip_token_stride(windows.size, recipe.clip_tokens) if recipe and recipe.clip_tokens else None
    judged, drifts = (
        recipe is not None and recipe.objective == "module",
        bool(recipe and recipe.follows_drift),
    )
    hidden, drifted = _entering(checkpoint, config, windows, store, first, drifts)
    shape = (windows.shape[0], windows.shape[1], config.hidden_size)
    for layer in range(first, last + 1):
        plan, block = layer_plan(config, layer), read_block(checkpoint, config, layer)
        apart = judged or drifts or store.spilled
        after = store.blank(shape, FLOAT, layer + 1) if apart else hidden
        run = partial(
            run_block,
            norms=block.norms, config=config, context=context.at_layer(layer), hidden=hidden, after=after,
        )  # fmt: skip
        with located(block_prefix(config, layer).rstrip(".")):
            linears = _to_observe(block, config, layer)
            observations = observe(
                run, linears, site_inputs(plan), token_stride=stride, may_miss=routed_sites(plan)
            )
        if layer < last:
            store.keep(after, FLOAT, layer + 1)
        modules = module_runners(block, config, context.at_layer(layer), hidden) if judged else {}
        streams = None if drifted is None else (context.at_layer(layer), hidden, drifted)
        leaving = store.blank(shape, ROUNDED, layer + 1) if drifts and store.spilled else drifted
        found = ObservedBlock(layer, block, observations, modules, streams, leaving)
        del block, linears, observations, modules, streams, run
        yield found
        del found  # before the next block is read
        hidden, drifted = after, leaving
