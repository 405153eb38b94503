"""Scales and clips of one block on Gram matrices, against the published procedure on stored tokens.

python benchmarks/search_vs_published.py [--windows N] [--sites SITE ...] [--quick]

The block is Qwen2.5-0.5B's in size (hidden 896, intermediate 4864, 14 heads on 2), of random weights with a few large
channels in its norms; 128 windows of 512 tokens. Site after site, both in one run:

- ours: `StatisticsAccumulator` over all tokens, then `search_block` by the recipe `awq`: 11 alphas and 2 between
  them, 10 clip ratios for every layer, each row's clips kept only where the whole row gains;
- published (llm-awq's steps, in plain NumPy, float32): for each of 20 alphas round the layers, run the site's module
  on all tokens and compare its output; then 10 clip ratios per row and group on 512 tokens, q and k left out. Its
  products by group go through BLAS here, which is faster than the published sum of elementwise products.

Seconds: statistics, search, both together; the published search; the ratio to both together. The published time is
proportional to the tokens, of ours only the statistics are: the ratio grows with the tokens.

Losses, measured afterwards on all tokens and without any Gram matrix: `layers`, the mean squared error of the outputs
of the layers that read the site, and `module`, of the output of the module that the published search judges by; each
ours divided by the published one's, of the scales alone and of scales and clips.
"""

import argparse
import math
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
from gram_vs_module import Bench, timed

from awq_ref.calibration import SiteStatistics, StatisticsAccumulator, clip_token_stride
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import ModuleObjective, ScaleGroup, plan_for, query_head_tie, recipe_named, search_block
from awq_ref.search.candidates import candidate_llm_awq
from awq_ref.search.channel_scales import pool
from awq_ref.spec import QuantSpec

SIZES = {"hidden": 896, "inner": 4864, "heads": 14, "kv_heads": 2, "seq": 512}
BATCH_WINDOWS = 4  # 2048 tokens at a time, as `quantize` has them
SPEC = QuantSpec(bits=4, group_size=128)
ALPHAS = tuple(i / 20 for i in range(20))
RATIOS = tuple(1.0 - i / 20 for i in range(10))
UNCLIPPED = ("q_", "k_")
Array = np.ndarray
Weights = dict[str, Array]


def gather(inputs: Iterable[Array], in_features: int) -> SiteStatistics:
    sums = StatisticsAccumulator(in_features)
    for x in inputs:
        sums.add(x)
    return sums.finish()


def search_ours(
    bench: Bench, group: ScaleGroup, statistics: SiteStatistics, tie: Array
) -> tuple[Weights, Weights]:
    """Return the layers as rounded, in the original's terms: with scales alone, with scales and clips."""
    hidden = bench.config.hidden_size
    found = search_block(
        bench.weights,
        {group.producer: np.ones(hidden, dtype=np.float32)} if group.producer_kind == "norm" else {},
        {group.site: statistics},
        plan=[group],
        recipe=recipe_named("awq"),
        spec=SPEC,
        pseudo_quantize=pseudo_quantize,
        norm_dtype="float32",
        ties={group.site: tie} if group.tied else {},
    )
    scaled, clipped = {}, {}
    for name in group.consumers:
        fold, weight = found.folds[name], bench.weights[name]
        columns = np.float32(1.0) if fold.columns is None else fold.columns
        scaled[name] = pseudo_quantize(fold.scale(weight), spec=SPEC) / columns
        clipped[name] = pseudo_quantize(fold.apply(weight), spec=SPEC) / columns
    return scaled, clipped


def published_clip(weight: Array, x: Array) -> Array:
    """Return llm-awq's clips (out_features, n_groups): tokens x (n, in_features) at the site, scales divided out."""
    n_groups, size = weight.shape[1] // SPEC.group_size, SPEC.group_size
    spec = QuantSpec(bits=SPEC.bits, group_size=size)
    groups = weight.reshape(len(weight), n_groups, size)
    tokens = np.ascontiguousarray(x.reshape(len(x), n_groups, size).transpose(1, 2, 0))  # (n_groups, size, n)
    largest = np.abs(groups).max(axis=2)  # (out_features, n_groups)
    best, least = largest.copy(), np.full(largest.shape, np.inf, dtype=np.float32)
    for first in range(0, len(weight), 256):  # rows, as published
        rows = slice(first, min(first + 256, len(weight)))
        for ratio in RATIOS:
            limit = largest[rows] * np.float32(ratio)
            clipped = np.clip(groups[rows], -limit[:, :, None], limit[:, :, None]).reshape(
                -1, weight.shape[1]
            )
            error = (pseudo_quantize(clipped, spec=spec) - weight[rows]).reshape(-1, n_groups, size)
            moved = np.matmul(error.transpose(1, 0, 2), tokens)  # (n_groups, rows, n)
            loss = np.einsum("grn,grn->rg", moved, moved) / np.float32(len(x))
            better = loss < least[rows]
            best[rows][better], least[rows][better] = limit[better], loss[better]
    return best


def search_published(
    bench: Bench, group: ScaleGroup, objective: ModuleObjective, tie: Array
) -> tuple[Weights, Weights]:
    """As `search_ours`: a module forward for every alpha, then clips on a sample of the tokens."""
    inputs = bench.inputs(group)
    tokens = inputs.reshape(-1, inputs.shape[-1])
    mean = np.abs(tokens).mean(axis=0)
    make = partial(candidate_llm_awq, pool(mean, tie) if group.tied else mean)
    choices = [make(alpha)[tie] if group.tied else make(alpha) for alpha in ALPHAS]
    losses = [objective(scales) for scales in choices]
    scales = choices[int(np.argmin(losses))]
    sample = tokens[:: clip_token_stride(len(tokens))] / scales
    scaled, clipped = {}, {}
    for name in group.consumers:
        weight = bench.weights[name] * scales
        scaled[name] = clipped[name] = pseudo_quantize(weight, spec=SPEC) / scales
        if not any(part in name for part in UNCLIPPED):
            clip = published_clip(weight, sample)
            clipped[name] = pseudo_quantize(weight, spec=SPEC, clip=clip) / scales
    return scaled, clipped


def layers_loss(bench: Bench, group: ScaleGroup, rounded: Mapping[str, Array]) -> float:
    """Mean squared error of an output of the site's layers over all tokens, float32 products, float64 sums."""
    error = np.concatenate([rounded[name] - bench.weights[name] for name in group.consumers])
    inputs = bench.inputs(group)
    total = 0.0
    for x in inputs.reshape(-1, SIZES["seq"], inputs.shape[-1]):
        moved = x @ error.T
        total += float(np.einsum("to,to->o", moved, moved).sum(dtype=np.float64))
    return total / (inputs.size // inputs.shape[-1] * len(error))


def module_loss(bench: Bench, group: ScaleGroup, rounded: Mapping[str, Array]) -> float:
    """Mean squared error of the output of the module that the published search judges by."""
    run = partial(bench.run_layer if group.judged_itself else bench.run, group.judged)
    sums, elements = [], 0
    for output, reference in zip(run(rounded), run({}), strict=True):
        difference = (output - reference).astype(np.float64)
        sums.append(float((difference * difference).sum()))
        elements += output.size
    return math.fsum(sums) / elements


def compare(bench: Bench, group: ScaleGroup) -> tuple[str, float, float]:
    """Return a row of the table, and the seconds of both."""
    config = bench.config
    tie = query_head_tie(
        n_heads=config.num_attention_heads, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim
    )
    stored = bench.inputs(group)
    flat = stored.reshape(-1, stored.shape[-1])
    step = BATCH_WINDOWS * SIZES["seq"]
    batches = [flat[first : first + step] for first in range(0, len(flat), step)]
    statistics, gathering = timed(lambda: gather(batches, flat.shape[1]))
    ours, searching = timed(lambda: search_ours(bench, group, statistics, tie))
    run = partial(bench.run_layer if group.judged_itself else bench.run, group.judged)
    weights = {name: bench.weights[name] for name in group.consumers}
    objective = ModuleObjective(
        weights, run, partial(pseudo_quantize, spec=SPEC)
    )  # the float outputs: not timed
    theirs, published = timed(lambda: search_published(bench, group, objective, tie))
    cells = [
        group.site,
        f"{gathering:.2f}",
        f"{searching:.2f}",
        f"{gathering + searching:.2f}",
        f"{published:.1f}",
        f"{published / (gathering + searching):.1f}",
    ]
    for loss in (layers_loss, module_loss):
        cells += [
            f"{loss(bench, group, a) / loss(bench, group, b):.4f}" for a, b in zip(ours, theirs, strict=True)
        ]
    return "| " + " | ".join(cells) + " |", gathering + searching, published


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=128, help="of 512 tokens; 128 take about ten minutes")
    parser.add_argument("--sites", nargs="+", help="these alone, such as mlp.down")
    parser.add_argument("--quick", action="store_true", help="one window: does it run?")
    arguments = parser.parse_args()
    windows = 1 if arguments.quick else arguments.windows
    bench = Bench({**SIZES, "windows": windows})
    print(f"hidden 896, intermediate 4864, INT4, groups of 128; {windows} windows of 512 tokens\n")
    heads = ("site", "statistics s", "search s", "both s", "published s", "ratio")
    print(f"| {' | '.join(heads)} | layers: scales | clips | module: scales | clips |")
    print("|:---|" + "---:|" * 9)
    ours = published = 0.0
    for group in plan_for("llama"):
        if arguments.sites and group.site not in arguments.sites:
            continue
        row, a, b = compare(bench, group)
        print(row, flush=True)
        ours, published = ours + a, published + b
    print(f"| all | | | {ours:.2f} | {published:.1f} | {published / ours:.1f} | | | | |")


if __name__ == "__main__":
    main()
