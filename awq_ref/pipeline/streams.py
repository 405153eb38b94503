"""The hidden states of all windows twice: as the float model has them, and as the layers rounded so far leave them.

    TwoStreams    walks through one block, module by module, while its layers are rounded one after the other
    open_streams, shared_sites    for a block that has been searched, and where its two inputs can be compared

Nothing here knows families: a layer's input is what the decoder's own functions hand to it. What comes of it are the
sums of [GPTQ-6]: docs/equations.md#gptq-6.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from awq_ref.calibration import DriftAccumulator, DriftStatistics
from awq_ref.dtypes import F32
from awq_ref.matmul import DenseLinear
from awq_ref.model import (
    Block,
    ModelConfig,
    add_branch,
    arithmetic,
    attention_forward,
    block_router_shapes,
    mlp_forward,
    mlp_input,
    normed,
)
from awq_ref.model.family import Place
from awq_ref.pipeline.observation import ObservedBlock, batches
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.states import States, blank_like
from awq_ref.quantize import dequantize_linear
from awq_ref.search import BlockResult, LinearFold, Recipe
from awq_ref.spec import LinearOperator, QuantizedLinear
from awq_ref.threads import run_side_by_side
from awq_ref.turns import Turns

ATTENTION = "self_attn."  # what the names of the attention's linears begin with; the others are the MLP's
ATTENTION_OUT = "self_attn.o_proj"


class _Caught(Exception):  # noqa: N818, not an error
    """Ends a run at the layer whose input is wanted."""

    def __init__(self, x: F32) -> None:
        super().__init__()
        self.x = x


class _Catcher:
    """Stands in the place of a linear layer."""

    def __init__(self, linear: LinearOperator) -> None:
        self.in_features, self.out_features, self.resident_bytes = linear.in_features, linear.out_features, 0

    def __call__(self, x: F32) -> F32:
        raise _Caught(x)


def _input_of(names: Sequence[str], block: Block, run: Callable[[Block], F32]) -> F32:
    """Return what a run of a block hands to some of its linears, which share it."""
    catchers = {name: _Catcher(block.linears[name]) for name in names}
    try:
        run(Block(block.norms, {**block.linears, **catchers}))
    except _Caught as caught:
        return caught.x
    raise AssertionError(f"{', '.join(names)}: not reached")


class TwoStreams:
    """One block on its way to integers, and what enters its layers: of the float model, and after rounding.

    Parameters
    ----------
    found : ObservedBlock
        With its `streams`, in which all work is done: at the end the rounded one is what enters the next block.
    norms : dict of norm -> float32 array
        Of the rounded block, scales folded in.
    config : ModelConfig
    recovers : float
        The share of the stream's error that the last layer of a module is asked to take back.
    """

    def __init__(
        self, found: ObservedBlock, norms: dict[str, F32], *, config: ModelConfig, recovers: float
    ) -> None:
        assert found.streams is not None
        self._context, *self._entered = found.streams  # what enters the attention
        self._blocks = (found.block, Block(norms, dict(found.block.linears)))
        apart = config.family.parallel or not isinstance(
            self._entered[0], np.ndarray
        )  # a file must stay as it is
        self._streams = [x.copy() if apart else x for x in self._entered]
        self._leaving = self._entered[1] if found.leaving is None else found.leaving
        self._config, self._recovers = config, recovers
        self._batches = batches(config, self._entered[0])
        self._mixed: States | None = None  # what the rounded attention hands to its last layer

    def put(self, linears: Mapping[str, QuantizedLinear], folds: Mapping[str, LinearFold]) -> None:
        """Put rounded layers into the rounded block, each with its bias."""
        for name, linear in linears.items():
            bias = getattr(self._blocks[0].linears[name], "bias", None)
            bias = None if bias is None else folds[name].apply_bias(bias)
            self._blocks[1].linears[name] = DenseLinear(dequantize_linear(linear), bias)

    def put_float(self, weights: Mapping[str, F32]) -> None:
        """Put layers that stay in float into the rounded block, with their scales."""
        self._blocks[1].linears.update({name: DenseLinear(weight) for name, weight in weights.items()})

    def drift(self, names: Sequence[str], columns: F32 | None) -> DriftStatistics:
        """Return what enters a site in both blocks; the layers before it are rounded by now.

        Parameters
        ----------
        names : sequence of str
            Layers that read all of the site.
        columns : float32 array, shape (in_features,), or None
            The site's channel scales: they divide the float model's input, as they have divided the other one.
        """
        with arithmetic():  # what overflows is named where the sums are made
            self._leave_attention()
            name = names[0]
            run = self._attention if name.startswith(ATTENTION) else self._mlp
            in_features, turns = self._blocks[0].linears[name].in_features, Turns()
            sums = DriftAccumulator(in_features, site=name)
            if name == ATTENTION_OUT:
                self._mixed = blank_like(self._entered[1], width=in_features)

            def one(batch: int) -> None:
                rows = self._batches[batch]
                with turns.job(batch) as turn:
                    x, y = (
                        _input_of(names, block, run(which, rows)) for which, block in enumerate(self._blocks)
                    )
                    sums.add(x if columns is None else x / columns, y, self._missing(name, rows), turn)
                if self._mixed is not None:
                    self._mixed[rows] = y
                    self._pass_attention(0, rows, x)

            run_side_by_side(one, len(self._batches))
            return sums.finish()

    def finish(self) -> None:
        """Let the rounded stream pass the rounded block, now that all of it is known."""
        with arithmetic():  # the next block's sums name what overflows
            self._leave_attention()
            block, after = self._blocks[1], self._leaving

            def one(batch: int) -> None:
                rows = self._batches[batch]
                y = self._mlp(1, rows)(block)
                after[rows] = add_branch(self._streams[1][rows], y, block, self._config, "after_mlp")

            run_side_by_side(one, len(self._batches))

    def _attention(self, which: int, rows: slice) -> Callable[[Block], F32]:
        """Return what runs the attention of a block on some windows."""
        u = normed(self._entered[which][rows], self._blocks[which], self._config, "before_attention")
        return lambda block: attention_forward(u, block, self._config, self._context)

    def _mlp(self, which: int, rows: slice) -> Callable[[Block], F32]:
        """Return what runs the MLP of a block on some windows, after `_leave_attention`."""
        block, stream, before = self._blocks[which], self._streams[which][rows], self._entered[which][rows]
        parallel = self._config.family.parallel
        u = normed(before, block, self._config, "before_attention") if parallel else before
        inputs = mlp_input(stream, before, u, block, self._config)
        return lambda block: mlp_forward(inputs, block, self._config)

    def _pass_attention(self, which: int, rows: slice, mixed: F32) -> None:
        """Add to a stream what the attention's last layer makes of its input."""
        block, stream = self._blocks[which], self._streams[which]
        y = block.linears[ATTENTION_OUT](mixed)
        stream[rows] = add_branch(stream[rows], y, block, self._config, "after_attention")

    def _leave_attention(self) -> None:
        """Let the rounded stream pass the attention, if its last layer has been reached."""
        mixed, self._mixed = self._mixed, None
        if mixed is not None:
            run_side_by_side(
                lambda batch: self._pass_attention(1, self._batches[batch], mixed[self._batches[batch]]),
                len(self._batches),
            )

    def _missing(self, name: str, rows: slice) -> F32 | None:
        """Return what a layer is to add to its own output: nothing, unless that goes into the stream as it is."""
        places: dict[str, Place] = {
            "self_attn.o_proj": "after_attention",
            self._config.family.mlp[2]: "after_mlp",
        }
        if not self._recovers or name not in places or self._config.family.norm_at(places[name]):
            return None
        missing: F32 = self._streams[0][rows] - self._streams[1][rows]
        return missing * (self._recovers / self._config.residual_multiplier)


def open_streams(
    found: ObservedBlock, result: BlockResult, config: ModelConfig, recipe: Recipe
) -> TwoStreams | None:
    """Return the two streams before a block, if the recipe follows them; a router has its scales from the start."""
    if found.streams is None:
        return None
    streams = TwoStreams(found, result.norms, config=config, recovers=recipe.recovers)
    routers, weights = block_router_shapes(config, found.layer), found.weights()
    streams.put_float({name: result.folds[name].apply(weights[name]) for name in routers})
    return streams


def shared_sites(found: ObservedBlock, config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return site -> linears that read all of it, of the sites that the same tokens reach in both streams.

    Which tokens an expert gets may differ: its own site has the statistics of the float model. Nothing for a block
    without streams.
    """
    plan = () if found.streams is None else layer_plan(config, found.layer)
    return {group.site: group.followers or group.consumers for group in plan if not group.routed}
