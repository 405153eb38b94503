"""The memory that a quantization will need, from shapes alone; and what a process has needed.

    Footprint       the parts of it, and whether the hidden states go to a file
    plan_memory     what a model, a recipe and so many tokens take, within a budget or not at all
    memory_bytes    "4GB" -> bytes
    peak_bytes      the most memory that this process has held so far
    process_name    this process among those of all machines

A block is done in phases, and the largest counts: observing, where every site has its Gram matrix and a batch of tokens
is under way; searching, where a site's weights are scaled, rounded and judged; rounding, where error feedback inverts
a Gram matrix in float64. The counts of arrays in `WORK` are those of the code as it is; a test traces allocations
against them.
"""

import math
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from awq_ref.calibration.statistics import MOST_PANEL
from awq_ref.errors import RangeError
from awq_ref.model import ModelConfig, block_linear_shapes, block_router_shapes, outer_tensor_shapes
from awq_ref.pipeline.observation import EMBEDDED_BYTES, EMBEDDING_ROWS, windows_at_once
from awq_ref.pipeline.plans import layer_plan
from awq_ref.report.tables import format_bytes
from awq_ref.search import Recipe, site_inputs
from awq_ref.search.objective import ROWS
from awq_ref.spec import StateDtype
from awq_ref.threads import default_threads, jobs_at_a_time

F32_BYTES, F64_BYTES = 4, 8
UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
# Arrays at the worst moment of a phase. search: of a site's Gram matrix, of all its weights together, of its largest
# weight. feedback, drift: of a Gram matrix in float64 and in float32, of the largest weight.
WORK = {"search": (1, 1, 3), "feedback": (3, 1, 7), "drift": (3, 4, 9)}


def memory_bytes(text: str) -> int:
    """Read an amount of memory: a number, and B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024).

    Raises
    ------
    RangeError
        If it is none.

    Examples
    --------
    >>> memory_bytes("4GB"), memory_bytes("1.5 MiB")
    (4000000000, 1572864)
    """
    found = re.fullmatch(r"(\d+\.?\d*)\s*([KMGT]?I?)B?", text.strip().upper())
    if not found or found[2] not in UNITS:
        raise RangeError(f"memory: must be a number and a unit, such as 4GB or 1500MiB; got {text!r}.")
    return int(float(found[1]) * UNITS[found[2]])


def _status(key: str) -> int | None:
    """Return a size from Linux's /proc, in bytes."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="ascii", errors="replace").splitlines() if path.exists() else []
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")]
    return sizes[0] if sizes else None


def peak_bytes() -> int:
    """Return the largest resident set that this process has had; 0 where the system does not tell."""
    peak = _status("VmHWM")  # not ru_maxrss: that begins with the size of the process that started this one
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return 0
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def process_name() -> str:
    """Return a name that no other process has, on this machine or another."""
    return f"{platform.node()}:{os.getpid()}"


@dataclass(frozen=True)
class Footprint:
    """The memory of a run, in bytes, by what takes it.

    process     : what the process holds already
    activations : hidden states in memory
    block       : the weights of a block, or of two
    statistics  : the Gram matrices of its sites, and tokens where the recipe keeps some
    work        : the largest of what comes and goes
    workers     : processes of an executor, all together
    spilled     : whether the hidden states go to a file
    """

    process: int
    activations: int
    block: int
    statistics: int
    work: int
    workers: int = 0
    spilled: bool = False

    @property
    def total(self) -> int:
        """The sum."""
        return self.process + self.activations + self.block + self.statistics + self.work + self.workers

    def told(self) -> str:
        """Return the parts in words."""
        names = ("process", "activations", "block", "statistics", "work", "workers")
        parts = [f"{name} {format_bytes(getattr(self, name))}" for name in names if getattr(self, name)]
        return f"{format_bytes(self.total)} ({', '.join(parts)})"


def _sites(config: ModelConfig, layer: int) -> list[tuple[int, int, int]]:
    """Return, for each site of a block, in_features, and out_features of all its linears and of the largest."""
    shapes, found = block_linear_shapes(config, layer) | block_router_shapes(config, layer), []
    inputs = site_inputs(layer_plan(config, layer))
    for group in layer_plan(config, layer):
        name = inputs[group.site]
        rows = [shapes[consumer][0] for consumer in group.consumers if consumer in shapes]
        found.append((shapes[name][1], sum(rows), max(rows, default=0)))
    return found


def _observing(
    config: ModelConfig, recipe: Recipe, sites: list[tuple[int, int, int]], all_tokens: int, seq_len: int
) -> int:
    """Return the bytes that come and go while batches of tokens run through a block, some at a time."""
    batch = windows_at_once(config, seq_len) * seq_len
    tokens = min(jobs_at_a_time(-(-all_tokens // batch)) * batch, all_tokens)  # under way
    inner = max(width for width, _, _ in sites)
    scores = tokens * config.num_attention_heads * seq_len
    attention = 2 * scores + 6 * tokens * config.hidden_size
    mlp = 5 * tokens * inner + 3 * tokens * config.hidden_size  # gate, up, their product, |x|, and the stream
    panels = default_threads() * inner * min(MOST_PANEL, inner)
    drift = 0
    if recipe.follows_drift:  # one stream's input waits for the other's; the sums, and of what is missing
        drift = 2 * tokens * inner + max(width * (2 * width + rows) for width, rows, _ in sites)
    return F32_BYTES * (max(attention, mlp) + panels + drift)


def _working(sites: list[tuple[int, int, int]], recipe: Recipe) -> int:
    """Return the bytes that come and go while a block is searched and rounded."""
    phases = ["search"] if recipe.alphas != (0.0,) or recipe.clip_ratios else []
    phases += [] if not recipe.rounding.feeds_back else ["drift" if recipe.follows_drift else "feedback"]
    most = 0
    for width, rows, largest in sites:
        for phase in phases or ["search"]:
            first, second, third = WORK[phase]
            if phase == "search":
                # and each further thread has four slabs of its own, one of them of scaled weights
                more = (default_threads() - 1) * 4 * min(ROWS, largest)
                taken = F32_BYTES * width * (first * width + second * rows + third * largest + more)
            else:
                taken = width * (
                    width * (first * F64_BYTES + second * F32_BYTES) + F32_BYTES * third * largest
                )
            most = max(most, taken)
    return most


def _kept(sites: list[tuple[int, int, int]]) -> int:
    """Return the bytes of the slabs that each thread keeps from the search of the block before."""
    slab = max(width * min(ROWS, largest) for width, _, largest in sites)
    return default_threads() * F32_BYTES * slab


def _block_phase(config: ModelConfig, recipe: Recipe, tokens: int, seq_len: int) -> tuple[int, int, int]:
    """Return the bytes of weights, statistics and work of the largest block."""
    found = []
    for layer in range(config.num_hidden_layers) if config.expert_layers else (0,):
        shapes = {**block_linear_shapes(config, layer), **block_router_shapes(config, layer)}
        weights = F32_BYTES * sum(math.prod(shape) for shape in shapes.values())
        sites = _sites(config, layer)
        grams = F32_BYTES * sum(width * width for width, _, _ in sites)
        kept = min(tokens, 2 * recipe.clip_tokens) * F32_BYTES * sum(width for width, _, _ in sites)
        observing = _observing(config, recipe, sites, tokens, seq_len) if recipe.searches else 0
        work = max(observing + _kept(sites), _working(sites, recipe))
        found.append((weights * (2 if recipe.follows_drift else 1), (grams + kept) * recipe.searches, work))
    return max(found, key=sum)


def _outer(config: ModelConfig, itemsize: int) -> int:
    """Return the bytes that it takes to copy the embedding: its mapped pages, and rows of it as float32."""
    shapes = outer_tensor_shapes(config).values()
    largest = max(shapes, key=math.prod)
    return itemsize * math.prod(largest) + F32_BYTES * EMBEDDING_ROWS * math.prod(largest[1:])


def streams_in_memory(recipe: Recipe) -> int:
    """Return how many copies of the hidden states a recipe holds."""
    return 4 if recipe.follows_drift or recipe.objective == "module" else 1


def plan_memory(
    config: ModelConfig,
    recipe: Recipe,
    *,
    tokens: int,
    seq_len: int,
    itemsize: int = 2,
    dtype: StateDtype = "float32",
    budget: int | None = None,
    ahead: int = 0,
) -> Footprint:
    """Predict the peak memory of a quantization; within a budget, decide whether hidden states go to a file.

    Parameters
    ----------
    tokens, seq_len : int
        Of the calibration; 0 without one.
    itemsize : int
        Bytes of a number of the stored embedding.
    dtype : "float32" or "float16"
        Of the hidden states between blocks.
    budget : int, optional
        Bytes. None: hidden states stay in memory.
    ahead : int
        Blocks that are with an executor at a time, each in a process of its own.

    Raises
    ------
    RangeError
        If the budget is too small even with hidden states in a file; it says what would fit.
    """
    process = _status("VmRSS") or peak_bytes()
    block, statistics, work = _block_phase(config, recipe, tokens, seq_len)
    size = np.dtype(dtype).itemsize * tokens * config.hidden_size
    outer = _outer(config, itemsize)
    worker = process + block + statistics + work
    workers = ahead * (worker + statistics)  # and the statistics on their way
    in_blocks = block + statistics + work
    held = Footprint(process, streams_in_memory(recipe) * size, block, statistics, work, workers)
    file = Footprint(process, min(size, 2 * EMBEDDED_BYTES), block, statistics, work, workers, spilled=True)
    floor = max(0, outer - in_blocks)  # where copying the embedding takes more than any block
    held, file = (Footprint(**{**vars(plan), "work": plan.work + floor}) for plan in (held, file))
    if budget is None or held.total <= budget:
        return held
    if file.total <= budget:
        return file
    least = file if file.total < held.total else held
    fewer = " Fewer workers take less." if ahead else ""
    raise RangeError(
        f"quantize_model: memory must be at least {format_bytes(least.total)}, hidden states in a file; got "
        f"{format_bytes(budget)}. What takes it: {least.told()}; more samples than a batch for "
        f"each thread hardly count. Fewer threads (OMP_NUM_THREADS) take less.{fewer}"
    )
