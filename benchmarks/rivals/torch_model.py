"""transformers on torch: a folder, a dtype -> rates of prompts and new tokens."""

import time

started = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from result import options, report, text_rates  # noqa: E402

given = options()
torch.set_num_threads(given["threads"])
model = transformers.AutoModelForCausalLM.from_pretrained(
    given["folder"], dtype=getattr(torch, given["dtype"])
).eval()
load = time.perf_counter() - started
times = {}
with torch.inference_mode():
    for prompt in given["prompts"]:
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, prompt), dtype=np.int64)
        step, cache = torch.from_numpy(ids), None
        times[prompt] = [time.perf_counter()]
        for _ in range(given["new"]):
            out = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, step = out.past_key_values, out.logits[:, -1:].argmax(-1)
            times[prompt].append(time.perf_counter())
report(load=load, rates=text_rates(times))
