"""Is there memory enough for an experiment? Asked of the configuration, before any weight is read.

free_bytes       what the system could give this process now
needed_bytes     what an experiment takes at its peak
require_memory   raise, with both numbers, if it does not fit
"""

import math
import os
from pathlib import Path

from awq_ref.errors import RangeError
from awq_ref.model import ModelConfig, block_linear_shapes, model_tensor_shapes
from awq_ref.report.tables import format_bytes
from awq_ref.search import plan_for, site_inputs

FLOAT32_BYTES = 4
HIDDEN_COPIES = 4
MODELS = 2  # the float model and one quantized copy, both dense
MARGIN = 1.1  # activations of a batch, logits, Python


def free_bytes() -> int | None:
    """Return the bytes of memory that are free for use; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def gram_bytes(config: ModelConfig) -> int:
    """Return the bytes of the Gram matrices of all sites."""
    shapes = block_linear_shapes(config)
    widths = [shapes[linear][1] for linear in site_inputs(plan_for(config.model_type)).values()]
    return config.num_hidden_layers * FLOAT32_BYTES * sum(width * width for width in widths)


def needed_bytes(config: ModelConfig, *, windows: int, tokens: int, seq_len: int) -> int:
    """Return the bytes of an experiment at its peak.

    Two models in float32, the statistics of all sites, the hidden states of the calibration windows (four times in a
    recipe that follows their drift), and the float model's final hidden states of the evaluation text.
    """
    weights = sum(math.prod(shape) for shape in model_tensor_shapes(config).values()) * FLOAT32_BYTES
    hidden = (HIDDEN_COPIES * windows * seq_len + tokens) * config.hidden_size * FLOAT32_BYTES
    return round(MARGIN * (MODELS * weights + gram_bytes(config) + hidden))


def require_memory(
    config: ModelConfig, *, windows: int, tokens: int, seq_len: int, free: int | None = None
) -> None:
    """Raise RangeError, saying what is needed and what is there, unless an experiment fits into memory.

    Parameters
    ----------
    free : int, optional
        Bytes that may be used; `free_bytes()` when left out. Where that is unknown nothing is raised.
    """
    needed = needed_bytes(config, windows=windows, tokens=tokens, seq_len=seq_len)
    there = free_bytes() if free is None else free
    if there is not None and needed > there:
        raise RangeError(
            f"awq-ref paper: the model must fit into memory twice as float32, with the statistics of its inputs "
            f"({format_bytes(gram_bytes(config))}): about {format_bytes(needed)}; {format_bytes(there)} are free. "
            "Take a smaller model, or fewer samples and tokens if those are what is large."
        )
