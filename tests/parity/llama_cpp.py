"""llama.cpp, run in this process through the package xllamacpp: token ids in, greedy ids and logits out.

LlamaCpp    one GGUF file
"""

import json
import urllib.request

import numpy as np
import xllamacpp


class LlamaCpp:
    """A model on one thread, its cache in float32, attention step by step: what can be compared."""

    def __init__(self, path, vocab_size):
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 512, 1, 0
        params.cpuparams.n_threads = 1
        params.verbosity, params.warmup, params.cache_prompt = -1, False, False
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server, self.vocab_size = xllamacpp.Server(params), vocab_size

    def greedy(self, ids, n_tokens):
        """Return new ids, and the logarithm of every token's probability at each step (steps, vocab_size)."""
        request = {"prompt": ids, "max_tokens": n_tokens, "temperature": 0.0, "logprobs": self.vocab_size}
        content = self.server.handle_completions(request)["choices"][0]["logprobs"]["content"]
        table = np.full((len(content), self.vocab_size), np.nan, dtype=np.float64)
        for row, step in zip(table, content, strict=True):
            for entry in step["top_logprobs"]:
                row[entry["id"]] = entry["logprob"]
        return [step["id"] for step in content], table

    def tokenize(self, text):
        body = json.dumps({"content": text, "add_special": True, "parse_special": False}).encode()
        request = urllib.request.Request(
            f"{self.server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)["tokens"]
