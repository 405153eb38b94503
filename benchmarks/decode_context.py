"""Decoding at a long context against a short one, on the shape of Qwen2.5-0.5B.

    python benchmarks/decode_context.py [--contexts 128 1024 4096] [--steps 24] [--quick]

Random INT4 weights in 24 layers, an int8 head, keys and values of random numbers: no time depends on them. One token
is decoded behind each context, in turns, so that all see the same machine. Attention's growth is also foretold by a
count: every further column costs the reading of its keys and values in every layer, and four passes over a score in
every query head (maximum, difference, exponential, sum); what a byte and a score cost is measured in the same run, on
arrays of the same shapes. Printed per context: the milliseconds of a token (the shortest step), how much of it is
growth over the shortest context as measured and as foretold, the bytes of the cache, and the most that a step
allocates, counted by tracemalloc in a step of its own: the logits, or the scores of a layer, and no copy of keys or
values. Below: what a layer costs beside its products, the shortest of many steps of a decoder whose linears return
what they are asked for at once.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from kv_cache import filled
from load_and_generate import CONFIG, QUICK

from awq_ref.matmul import Int8Linear
from awq_ref.model import (
    Block,
    Decoder,
    ModelConfig,
    block_linear_shapes,
    block_norm_shapes,
    linears_of_one_input,
    new_cache,
    parts_of,
)
from awq_ref.model.ops import take_exponentials
from awq_ref.pipeline.operators import block_operators
from awq_ref.report.tables import format_bytes, format_table
from awq_ref.spec import QuantizedLinear, QuantSpec

SPEC = QuantSpec(bits=4, group_size=128)
ROOM = 128  # columns behind the context, for the steps


def random_linear(rng: np.random.Generator, out: int, into: int) -> QuantizedLinear:
    groups = (out, into // SPEC.group_size)
    codes = rng.integers(0, 16, (out, into), dtype=np.uint8)
    scales = np.full(groups, 0.2 / into**0.5, dtype=np.float16)
    return QuantizedLinear(codes, scales, np.full(groups, 8, dtype=np.uint8), SPEC)


def make_decoder(config: ModelConfig) -> Decoder:
    rng = np.random.default_rng(1)
    blocks = []
    for layer in range(config.num_hidden_layers):
        norms = {name: np.ones(shape, dtype=np.float32) for name, shape in block_norm_shapes(config).items()}
        linears = {n: random_linear(rng, *shape) for n, shape in block_linear_shapes(config, layer).items()}
        blocks.append(Block(norms, block_operators(linears, linears_of_one_input(config, layer), "packed")))
    shape = (config.vocab_size, config.hidden_size)
    head = Int8Linear(rng.integers(-127, 128, shape, dtype=np.int8), np.ones(shape[0], dtype=np.float32))
    embedding = np.ones(shape, dtype=np.float16)
    return Decoder(config, embedding, blocks, np.ones(config.hidden_size, dtype=np.float32), head)


def seconds(work: Callable[[], object], repeats: int = 60) -> float:
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return min(spent)


def column_seconds(config: ModelConfig, columns: int) -> float:
    """What a further column costs all layers: its bytes of keys and values, and its scores."""
    rng = np.random.default_rng(3)
    layers, groups, dim = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    rows = rng.standard_normal((groups, config.queries_per_key, dim), dtype=np.float32)
    keys = rng.standard_normal(
        (layers, groups, columns, dim), dtype=np.float32
    )  # of all layers: no cache has them
    scores = rng.standard_normal((config.num_attention_heads, columns), dtype=np.float32)

    def products() -> None:
        for layer in keys:
            np.matmul(rows, layer.swapaxes(-1, -2))

    per_byte = seconds(products) / keys.nbytes
    per_score = seconds(lambda: take_exponentials(scores)) / scores.size
    bytes_per_column = 2 * layers * groups * dim * 4
    return per_byte * bytes_per_column + per_score * layers * config.num_attention_heads


def step_peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


class Nothing:
    """A linear that costs no time."""

    resident_bytes = 0

    def __init__(self, out_features: int, in_features: int) -> None:
        self.out_features, self.in_features = out_features, in_features
        self.y = np.ones((1, 1, out_features), dtype=np.float32)

    def __call__(self, _: np.ndarray) -> np.ndarray:
        return self.y


def overhead(config: ModelConfig, columns: int, steps: int) -> float:
    """Seconds of a layer beside its products: norms, rope, attention over some columns, activation, Python."""
    blocks = []
    for layer in range(config.num_hidden_layers):
        norms = {name: np.ones(shape, dtype=np.float32) for name, shape in block_norm_shapes(config).items()}
        linears = {name: Nothing(*shape) for name, shape in block_linear_shapes(config, layer).items()}
        for names in linears_of_one_input(config, layer):
            sizes = [linears[name].out_features for name in names]
            linears |= dict(zip(names, parts_of(Nothing(sum(sizes), config.hidden_size), sizes), strict=True))
        blocks.append(Block(norms, linears))
    shape = (config.vocab_size, config.hidden_size)
    one = np.ones(config.hidden_size, dtype=np.float32)
    decoder = Decoder(config, np.ones(shape, dtype=np.float16), blocks, one, Nothing(*shape))
    cache, token = (
        filled(new_cache(config, batch=1, capacity=columns + 1), columns),
        np.array([[1]], dtype=np.int64),
    )
    spent = []
    for _ in range(steps):
        started = time.perf_counter()
        decoder.forward(token, cache)
        spent.append(time.perf_counter() - started)
        cache = cache.truncated(columns)
    return min(spent) / config.num_hidden_layers


def measure(config: ModelConfig, contexts: list[int], steps: int) -> list[list[str]]:
    decoder, token = make_decoder(config), np.array([[1]], dtype=np.int64)
    caches = {n: filled(new_cache(config, batch=1, capacity=n + ROOM, page=n + ROOM), n) for n in contexts}
    sizes = {n: cache.resident_bytes for n, cache in caches.items()}
    spent: dict[int, list[float]] = {n: [] for n in contexts}
    for _ in range(steps):
        for n in contexts:
            started = time.perf_counter()
            _, after = decoder.forward(token, caches[n])
            spent[n].append(time.perf_counter() - started)
            assert after is not None
            caches[n] = after
    peaks = {n: step_peak(lambda n=n: decoder.forward(token, caches[n])) for n in contexts}  # type: ignore[misc]
    shortest = contexts[0]
    per_column = column_seconds(config, max(contexts))
    rows = []
    for n in contexts:
        total = min(spent[n])
        grown = total - min(spent[shortest])
        foretold = per_column * (n - shortest)
        cells = [f"{1e3 * value:.2f}" for value in (total, grown, foretold)]
        shares = [f"{grown / total:.0%}", f"{foretold / (foretold + min(spent[shortest])):.0%}"]
        rows.append([str(n), *cells, *shares, format_bytes(sizes[n]), format_bytes(peaks[n])])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 1024, 4096])
    parser.add_argument(
        "--steps", type=int, default=24, help=f"tokens behind each context, at most {ROOM - 1}"
    )
    parser.add_argument("--quick", action="store_true", help="two layers, short contexts: only that it runs")
    arguments = parser.parse_args()
    config = ModelConfig.from_json(CONFIG | (QUICK if arguments.quick else {}))
    contexts = [32, 64] if arguments.quick else sorted(arguments.contexts)
    rows = measure(config, contexts, 2 if arguments.quick else min(arguments.steps, ROOM - 1))
    headers = [
        "context",
        "ms per token",
        "growth, ms",
        "foretold, ms",
        "share",
        "foretold",
        "cache",
        "a step allocates",
    ]
    print(format_table(headers, rows))
    spent = overhead(config, contexts[0], 5 if arguments.quick else 200)
    print(f"\nA layer beside its products, {contexts[0]} columns: {1e6 * spent:.0f} microseconds.")


if __name__ == "__main__":
    main()
