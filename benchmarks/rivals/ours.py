"""awq_ref: a folder, a residency (and what else `load_model` takes) -> rates of prompts and new tokens."""

import time

started = time.perf_counter()

import numpy as np  # noqa: E402
from result import options, report, text_rates  # noqa: E402

import awq_ref  # noqa: E402

given = options()
model = awq_ref.load_model(given["folder"], **given["load"])
load = time.perf_counter() - started
times = {}
for prompt in given["prompts"]:
    ids = np.random.default_rng(0).integers(0, model.vocab_size, prompt, dtype=np.int64)
    times[prompt] = [time.perf_counter()]
    for _ in model.stream(ids, max_new_tokens=given["new"], eos_token_ids=()):
        times[prompt].append(time.perf_counter())
report(load=load, rates=text_rates(times))
