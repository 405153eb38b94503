"""Blocks searched and rounded by other processes, or other machines, while this one observes the next.

    Executor          what is asked of an executor: `submit`, as concurrent.futures has it
    require_apart     a recipe whose blocks do not wait for one another
    quantized_apart   observed blocks in, their tensors and reports out, in the same order

What goes to a worker is the path of the source, the recipe and a block's statistics; it reads the block's weights
itself, so it must see the source under that path. What comes back are the block's tensors. The worker runs the function
that the serial run calls, on the same arrays: the bytes are the same.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from awq_ref.calibration import Observations
from awq_ref.checkpoint import Checkpoint
from awq_ref.errors import OutputError, UnsupportedError
from awq_ref.model import ModelConfig
from awq_ref.pipeline.block_output import Collected, Job, quantize_block
from awq_ref.pipeline.footprint import peak_bytes, process_name
from awq_ref.pipeline.load import read_block
from awq_ref.pipeline.observation import ObservedBlock, open_float
from awq_ref.report.quantization import LayerReport
from awq_ref.search import Recipe
from awq_ref.spec import QuantSpec


class Future(Protocol):
    """A result that will come."""

    def result(self) -> Any:
        """Wait for it."""


class Executor(Protocol):
    """What takes work: a `ProcessPoolExecutor`, a Dask client's `get_executor()`, ..."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Begin fn(*args) somewhere; return its future."""


@dataclass(frozen=True)
class _Order:
    """A job as it travels."""

    source: str
    recipe: Recipe
    spec: QuantSpec
    layout: str


@dataclass(frozen=True)
class _Done:
    """A block as it comes back; process and peak: who did it, and the most memory it has held so far."""

    collected: Collected
    report: LayerReport
    warned: tuple[tuple[type[Warning], str], ...]
    process: str
    peak: int


def require_apart(recipe: Recipe) -> None:
    """Raise UnsupportedError if the blocks of a recipe wait for one another, or want the tokens themselves."""
    if recipe.follows_drift:
        raise UnsupportedError(
            f"quantize_model: with an executor, blocks must not wait for one another; recipe {recipe.name} rounds each "
            "block on what the blocks before it, rounded, make of the tokens. Leave the executor out (--workers), or "
            "take awq, gptq or awq+gptq."
        )
    if recipe.objective == "module":
        raise UnsupportedError(
            f"quantize_model: with an executor, statistics must suffice; recipe {recipe.name} judges on the tokens "
            "themselves, which would have to travel. Leave the executor out (--workers), or take awq, gptq or awq+gptq."
        )


@lru_cache(maxsize=1)
def _opened(source: str) -> tuple[Checkpoint, ModelConfig]:
    """Open the source once in a worker's life."""
    return open_float(source)


def _quantize_apart(order: _Order, layer: int, observations: Observations) -> _Done:
    """Read, search and round one block: what a worker does."""
    checkpoint, config = _opened(order.source)
    found = ObservedBlock(layer, read_block(checkpoint, config, layer), observations, {})
    collected = Collected()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = quantize_block(
            Job(checkpoint, config, order.recipe, order.spec, order.layout), found, collected
        )
    warned = tuple((warning.category, str(warning.message)) for warning in caught)
    return _Done(collected, report, warned, process_name(), peak_bytes())


def _result(future: Future) -> _Done:
    """Wait for a block; say its warnings here."""
    try:
        done = future.result()
    except BrokenExecutor as error:
        raise OutputError(
            "quantize_model: all workers must live to the end; one has died, perhaps for want of memory. Take fewer "
            "workers."
        ) from error
    assert isinstance(done, _Done)
    for category, message in done.warned:
        warnings.warn(message, category, stacklevel=3)
    return done


def quantized_apart(
    executor: Executor, job: Job, blocks: Iterator[ObservedBlock], *, ahead: int, peaks: dict[str, int]
) -> Iterator[tuple[Collected, LayerReport]]:
    """Yield tensors and report of each block, in order.

    Parameters
    ----------
    ahead : int
        So many blocks are with the executor at a time.
    peaks : dict
        Takes the peak memory of each worker.
    """
    order = _Order(str(Path(job.checkpoint.folder).resolve()), job.recipe, job.spec, job.layout)
    waiting: deque[Future] = deque()
    try:
        while True:
            found = next(blocks, None)
            if found is not None:
                waiting.append(executor.submit(_quantize_apart, order, found.layer, found.observations))
            if not waiting:
                return
            if len(waiting) >= ahead or found is None:
                done = _result(waiting.popleft())
                peaks[done.process] = max(done.peak, peaks.get(done.process, 0))
                yield done.collected, done.report
                del done
            del found
    finally:
        for future in waiting:  # an error or an interrupt: what has not begun need not
            getattr(future, "cancel", lambda: None)()
