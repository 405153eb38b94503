"""llama.cpp through its binding xllamacpp: a GGUF file -> rates of prompts and new tokens, by its own clock."""

import time

started = time.perf_counter()

import random  # noqa: E402

import xllamacpp  # noqa: E402
from result import options, report  # noqa: E402

given = options()
params = xllamacpp.CommonParams()
params.model.path = given["file"]
params.n_ctx, params.n_parallel, params.n_gpu_layers = max(given["prompts"]) + given["new"] + 64, 1, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given["threads"]
params.verbosity, params.warmup, params.cache_prompt = -1, False, False
server = xllamacpp.Server(params)
load = time.perf_counter() - started
rates = {}
for prompt in given["prompts"]:
    ids = [random.Random(token).randrange(given["vocabulary"]) for token in range(prompt)]
    request = {"prompt": ids, "max_tokens": given["new"], "temperature": 0.0, "ignore_eos": True}
    timings = server.handle_completions(request)["timings"]
    rates[str(prompt)] = {"prompt": timings["prompt_per_second"], "new": timings["predicted_per_second"]}
report(load=load, rates=rates)
