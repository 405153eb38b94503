"""Compare two recipes on one model: perplexity, divergence from the float model, time.

python examples/compare_recipes.py [RECIPE RECIPE]      default: rtn awq
"""

import sys
import tempfile
import time
from pathlib import Path

import awq_ref
from awq_ref.checkpoint import demo_model_path
from awq_ref.pipeline import evaluation_tokens
from awq_ref.report.divergence import kl_divergence
from awq_ref.report.perplexity import perplexity
from awq_ref.report.tables import format_table

BITS, TOKENS, SEQ_LEN = 3, 4096, 512


def main(recipes: list[str]) -> None:
    """Quantize with each recipe, read the folder back, measure what it lost."""
    source = demo_model_path()
    original = awq_ref.load_model(source)
    tokens, _, _ = evaluation_tokens(original.require_tokenizer(), None, limit=TOKENS)
    rows = [["fp16", f"{perplexity(original, tokens, seq_len=SEQ_LEN).perplexity:.3f}", "0", "-"]]
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in recipes:
            started = time.perf_counter()
            awq_ref.quantize_model(source, Path(scratch) / recipe, recipe=recipe, bits=BITS, samples=8)
            seconds = time.perf_counter() - started
            quantized = awq_ref.load_model(Path(scratch) / recipe)
            measured = perplexity(quantized, tokens, seq_len=SEQ_LEN).perplexity
            divergence = kl_divergence(original, quantized, tokens, seq_len=SEQ_LEN)
            rows.append([recipe, f"{measured:.3f}", f"{divergence:.4f}", f"{seconds:.1f}"])
    print(format_table([f"recipe, INT{BITS}", "perplexity", "KL, nats per token", "seconds"], rows))


if __name__ == "__main__":
    main(sys.argv[1:] or ["rtn", "awq"])
