"""What a token reads and what a process holds, from shapes alone: said before anything is loaded.

    token_bytes     bytes that one new token reads, by part
    token_flops     operations of tokens, the head for the last of them alone
    resident_bytes  weights in memory, by part
    peak_bytes      what a process holds at most beside its interpreter, by part
    layers_that_fit how many layers fit into memory

Measured values stand beside these in every result, so that a wrong count shows.
"""

import math
from typing import Any

from awq_ref.matmul.tiles import DEQUANTIZED_WEIGHTS, MOST_CAST
from awq_ref.model import ModelConfig, block_linear_shapes, block_norm_shapes, linears_of_one_input
from awq_ref.model.decoder import PREFILL_CHUNK
from awq_ref.pipeline.tables import Head, table_bytes
from awq_ref.report.memory import kv_cache_bytes, linear_bytes
from awq_ref.spec import QuantSpec

FLOAT = 4  # bytes of a float32
# Bytes of a weight of the largest product while it is made, beside what stays: codes, joined, their fields; float32.
MAKING = {"packed": 5, "codes": 5, "dense": 9}
ACTIVATIONS = 4  # arrays as wide as the stream that live at the same time
GATES = 3  # arrays as wide as the MLP: gate, up, their product
MARGIN = 0.85  # of free memory that is used: the rest is for what these counts leave out


def _linears(config: ModelConfig, spec: QuantSpec, residency: str, layers: int) -> int:
    shapes = block_linear_shapes(config).values()
    return layers * sum(linear_bytes(*shape, spec=spec, residency=residency) for shape in shapes)


def _norms(config: ModelConfig, layers: int) -> int:
    block = sum(math.prod(shape) for shape in block_norm_shapes(config).values())
    return FLOAT * (layers * block + (config.hidden_size if config.family.final_norm else 0))


def _head(config: ModelConfig, head: Head) -> int:
    row = config.embedding_width
    return config.vocab_size * (FLOAT * row if head == "float" else row + FLOAT)


def _cache(config: ModelConfig, layers: int, columns: int) -> int:
    return kv_cache_bytes(
        n_layers=layers, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
        capacity=columns, windows=config.windows[:layers],
    )  # fmt: skip


def _largest_product(config: ModelConfig) -> int:
    """Return the weights of the largest linear, those that read one input counted as one."""
    sizes = {name: math.prod(shape) for name, shape in block_linear_shapes(config).items()}
    together = [sum(sizes[name] for name in names) for names in linears_of_one_input(config, 0)]
    return max(*sizes.values(), *together)


def token_bytes(
    config: ModelConfig, *, spec: QuantSpec, residency: str, head: Head = "float", context: int, layers: int
) -> dict[str, int]:
    """Return the bytes that one new token reads, by part, when `context` tokens are in the cache.

    Examples
    --------
    >>> config = ModelConfig(8, 8, 1, 1, 1, 8, 100, max_position_embeddings=64)
    >>> spec = QuantSpec(bits=4, group_size=8)
    >>> token_bytes(config, spec=spec, residency="dense", context=3, layers=1)  # 7 linears of 8 x 8
    {'linears': 1792, 'head': 3200, 'norms': 96, 'embedding': 32, 'cache': 192}
    """
    return {
        "linears": _linears(config, spec, residency, layers),
        "head": _head(config, head),
        "norms": _norms(config, layers),
        "embedding": FLOAT * config.embedding_width,  # a row, as float32
        "cache": _cache(config, layers, context),
    }


def token_flops(config: ModelConfig, *, tokens: int, before: int, layers: int) -> float:
    """Return the operations of reading some tokens after others; logits are wanted of the last one alone.

    Scores and mixtures: a multiplication and an addition each, per query head, channel and column seen.
    """
    weights = layers * sum(math.prod(shape) for shape in block_linear_shapes(config).values())
    columns = sum(before + token + 1 for token in range(tokens))
    attended = 4.0 * layers * config.num_attention_heads * config.head_dim * columns
    return 2.0 * tokens * weights + attended + 2.0 * config.vocab_size * config.embedding_width


def resident_bytes(
    config: ModelConfig, *, spec: QuantSpec, residency: str, head: Head, layers: int, stored: str = "BF16"
) -> dict[str, int]:
    """Return the bytes of the weights in memory; stored: the dtype of the embedding in its file."""
    return {
        "embedding and head": table_bytes(config, stored, head),
        "linears": _linears(config, spec, residency, layers),
        "norms": _norms(config, layers),
    }


def peak_bytes(
    config: ModelConfig,
    *,
    spec: QuantSpec,
    residency: str,
    head: Head,
    layers: int,
    tokens: int,
    prompt: int,
    threads: int,
    stored: str = "BF16",
) -> dict[str, int]:
    """Return what a process holds at most beside its interpreter: weights, cache, and the larger of two workings.

    Working memory is that of making the largest product, or of a chunk of the prompt: its activations, and what each
    thread keeps for its tiles.
    """
    chunk = min(prompt, PREFILL_CHUNK)
    making = MAKING[residency] * _largest_product(config)
    tiles = 0 if residency == "dense" else threads * max(5 * MOST_CAST, 5 * DEQUANTIZED_WEIGHTS)
    streams = FLOAT * chunk * (ACTIVATIONS * config.hidden_size + GATES * config.intermediate_size)
    weights = resident_bytes(config, spec=spec, residency=residency, head=head, layers=layers, stored=stored)
    return {
        "weights": sum(weights.values()),
        "cache": _cache(config, layers, tokens),
        "working": max(making, tiles + streams),
    }


def layers_that_fit(config: ModelConfig, *, free: int, **sizes: Any) -> int:
    """Return how many layers, at most all, fit into the free bytes with embedding and head; may be 0.

    sizes are those of `peak_bytes` without the layers.
    """

    def needed(layers: int) -> int:
        return sum(peak_bytes(config, layers=layers, **sizes).values())

    fixed = needed(0)
    each = needed(1) - fixed
    return max(0, min(config.num_hidden_layers, int((MARGIN * free - fixed) // each)))
