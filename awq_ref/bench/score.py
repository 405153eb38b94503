"""What was measured, beside what the machine allows: rates, bytes, shares.

score    a job's measurements -> one row of the result
"""

import statistics
from typing import Any

from awq_ref.bench.job import Job
from awq_ref.bench.predict import token_flops
from awq_ref.model import ModelConfig
from awq_ref.paper.machine import Machine
from awq_ref.report.memory import kv_cache_bytes

FLOAT = 4


def _read_bytes(job: Job, config: ModelConfig, found: dict[str, Any]) -> dict[str, int]:
    """Return the bytes that one new token reads, by part, from the operators that are there."""
    cache = kv_cache_bytes(
        n_layers=job.layers, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
        capacity=job.prompt + job.new // 2, windows=config.windows[: job.layers],
    )  # fmt: skip
    weights = found["weights"]
    return {
        "linears": weights["linears"],
        "head": found["head_bytes"],
        "norms": weights["norms"],
        "embedding": FLOAT * config.embedding_width,
        "cache": cache,
    }


def _phase(seconds: float, tokens: int, flops: float, moved: float, machine: Machine) -> dict[str, Any]:
    """One phase beside the limit: the larger of the times that its bytes and its operations take at the least."""
    least = max(moved / machine.read_bandwidth, flops / machine.flops)
    return {
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "bytes_per_s": moved / seconds,
        "flops_per_s": flops / seconds,
        "intensity": flops / moved,
        "limit": machine.limit(flops / moved),
        "limit_tokens_per_s": tokens / least,
        "share_of_limit": least / seconds,
    }


def _scaled(phase: dict[str, Any], in_layers: float, times: float) -> None:
    """Turn the rates of some layers into those of all: what the layers took, as often as there are more of them."""
    longer = 1.0 + in_layers * (times - 1.0)
    for name in ("tokens_per_s", "limit_tokens_per_s"):
        phase[name] /= longer
    phase["scaled_by"] = longer


def score(
    job: Job, config: ModelConfig, limits: dict[str, Any], found: dict[str, Any], predicted: dict[str, Any]
) -> dict[str, Any]:
    """Return one row of the result: rates and shares of prefill and decode, bytes, memory, where the time goes.

    Parameters
    ----------
    job : Job
        With the number of layers that were measured.
    config : ModelConfig
        Of the whole model; rates of fewer layers are scaled up to it and the row says so.
    limits, found, predicted : dict
        Of `measure_limits` and `run_job`; the memory that was promised.
    """
    machine = Machine(limits["read_bandwidth"], limits["sgemm_flops"])
    moved, spec_bytes = _read_bytes(job, config, found), sum(predicted["weights"].values())
    steps, prefills, watched = found["step_seconds"], found["prefill_seconds"], found["watched"]
    layers, context = job.layers, job.prompt + job.new // 2
    flops = token_flops(config, tokens=1, before=context, layers=layers)
    decode = _phase(statistics.median(steps), 1, flops, sum(moved.values()), machine)
    low, _, high = statistics.quantiles(steps, n=4)
    decode["quartiles_tokens_per_s"] = [1 / high, 1 / low]
    flops = token_flops(config, tokens=job.prompt, before=0, layers=layers)
    weights = sum(moved[part] for part in ("linears", "head", "norms"))
    prefill = _phase(statistics.median(prefills), job.prompt, flops, weights, machine)
    scaled = layers < config.num_hidden_layers
    if scaled:
        times, head = config.num_hidden_layers / layers, 2.0 * config.vocab_size * config.embedding_width
        _scaled(decode, sum(watched["layers"]) / watched["seconds"], times)
        _scaled(prefill, 1.0 - head / flops, times)
    return {
        "residency": job.residency,
        "head": job.head,
        "layers": layers,
        "of_layers": config.num_hidden_layers,
        "scaled": scaled,
        "prefill": prefill,
        "decode": decode,
        "bytes_per_token": moved | {"total": sum(moved.values())},
        "memory": {
            "predicted_weights": spec_bytes,
            "weights": sum(found["weights"].values()),
            "resident": found["resident"],
            "predicted_peak": predicted["peak"],
            "peak": found["peak"],
        },
        "load_seconds": found["load_seconds"],
        "watched": watched,
    }
