"""Decoding against a cache that grows page by page, and against one that has all columns from the start.

python benchmarks/kv_cache.py [--quick]

A decoder whose attention is that of Qwen2.5-0.5B (14 query heads on 2 key-value heads of 64), of two layers with a
small MLP, so that the cache counts for more than it does in a real model. Every cache holds the first columns already
(random numbers: no time depends on them), and then tokens are decoded one by one, over more than one page, in turns: a
step of each cache after the other, so that all see the same machine. Printed per number of columns: the mean
milliseconds of a step, growth included, their ratio to the preallocated cache's, and the cache's size.
"""

import argparse
import time

import numpy as np

from awq_ref.matmul import DenseLinear
from awq_ref.model import (
    Block,
    Decoder,
    KVCache,
    ModelConfig,
    block_linear_shapes,
    block_norm_shapes,
    new_cache,
)
from awq_ref.report.tables import format_bytes, format_table

COLUMNS = (4096, 16384)
PAGES = (64, 512, 2048)
STEPS = 2048
WINDOW = 4096


def make_decoder(*, window: int) -> Decoder:
    rng = np.random.default_rng(1)
    config = ModelConfig(
        896, 256, 2, 14, 2, 64, 64, 32768, model_type="mistral", windows=(window,) * 2 if window else ()
    )

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)

    blocks = []
    for _ in range(config.num_hidden_layers):
        norms = {name: np.ones(shape, dtype=np.float32) for name, shape in block_norm_shapes(config).items()}
        shapes = block_linear_shapes(config)
        blocks.append(Block(norms, {name: DenseLinear(normal(*shape)) for name, shape in shapes.items()}))
    return Decoder(
        config, normal(64, 896), blocks, np.ones(896, dtype=np.float32), DenseLinear(normal(64, 896))
    )


def filled(cache: KVCache, columns: int) -> KVCache:
    """Return the cache with columns of random numbers, appended in chunks as a prompt is."""
    rng = np.random.default_rng(2)
    for first in range(0, columns, 512):
        tokens = min(512, columns - first)
        cache = cache.appended(np.ones((1, tokens), dtype=np.bool_))
        for layer in range(len(cache.store.layers)):
            for array in cache.columns(layer, tokens):
                array[:, :, -tokens:] = rng.standard_normal(array[:, :, -tokens:].shape, dtype=np.float32)
    return cache


def compare(decoder: Decoder, columns: int, steps: int) -> list[list[str]]:
    config = decoder.config
    caches = {"all at once": new_cache(config, batch=1, capacity=columns + steps)}
    for page in PAGES:
        caches[f"pages of {page}"] = new_cache(config, batch=1, capacity=columns + steps, page=page)
    caches = {name: filled(cache, columns) for name, cache in caches.items()}
    seconds = dict.fromkeys(caches, 0.0)
    sizes = {name: format_bytes(cache.resident_bytes) for name, cache in caches.items()}
    token = np.array([[1]], dtype=np.int64)
    for _ in range(steps):
        for name, cache in caches.items():
            started = time.perf_counter()
            _, after = decoder.forward(token, cache)
            seconds[name] += time.perf_counter() - started
            assert after is not None
            caches[name] = after
    whole = seconds["all at once"]
    window = str(config.window(0) or "-")
    return [
        [str(columns), window, name, f"{1e3 * spent / steps:.3f}", f"{spent / whole:.3f}", sizes[name]]
        for name, spent in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer columns and steps: only that it runs")
    quick = parser.parse_args().quick
    rows = []
    for window in (0, 64 if quick else WINDOW):
        decoder = make_decoder(window=window)
        for columns in (128,) if quick else COLUMNS:
            rows += compare(decoder, columns, 80 if quick else STEPS)
    headers = ["columns", "window", "cache", "ms per step", "to all at once", "size before"]
    print(format_table(headers, rows, left=3))


if __name__ == "__main__":
    main()
