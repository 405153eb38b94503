"""Plan memory for a 70 B model: from its configuration alone, before anything is downloaded.

python examples/plan_memory.py [CONFIG.json]      default: Llama-2-70B, written out below
"""

import json
import sys
from pathlib import Path

from awq_ref.model import ModelConfig
from awq_ref.paper.memory import memory_row
from awq_ref.report.tables import format_bytes, format_table
from awq_ref.spec import QuantSpec

LLAMA_2_70B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def main(values: dict[str, object]) -> None:
    """Print what the model takes at 4 and 3 bits, at two lengths of context, and in float16."""
    config = ModelConfig.from_json(values)
    rows = []
    for form, bits in (("packed", 4), ("packed", 3), ("fp16 engine", 4)):
        spec = QuantSpec(bits=bits, group_size=128)
        name = f"INT{bits} g128" if form == "packed" else "float16"
        for context in (4096, 32768):
            row = memory_row("70b", config, form, spec=spec, context=context, batch=1)
            weights = sum(row[part] for part in ("codes", "scales", "zero_points"))
            sizes = [format_bytes(part) for part in (weights, row["outer"], row["kv_cache"], row["total"])]
            rows.append([name, str(context), *sizes])
    headers = ["linears as", "context", "linears", "embedding, head, norms", "KV cache", "all"]
    print(format_table(headers, rows))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")) if len(sys.argv) > 1 else LLAMA_2_70B)
