"""Experiment `roofline`: what memory and arithmetic allow when a model generates text, and what is reached.

    bound_rows     what a machine could reach with W16A16, W8A16, W4A16
    measured_rows  what this package's products of one linear reach on this machine

Source: Lin et al. 2023, arXiv:2306.00978, section 4.1 and figure 3; docs/paper/roofline.md.
"""

import platform
from functools import partial
from typing import Any

import numpy as np

from awq_ref.matmul import RESIDENCIES, DenseLinear, PackedLinear, to_operator
from awq_ref.model import ModelConfig, block_linear_shapes
from awq_ref.paper.experiment import Column, Experiment, Options, Row, Rows, Setup, columns, select
from awq_ref.paper.machine import Machine, blas_threads, measure_machine, median_seconds
from awq_ref.paper.shapes import chosen_configs
from awq_ref.paper.work import decode_step, linear_work
from awq_ref.pipeline.fit import require_group_sizes
from awq_ref.pipeline.observation import located
from awq_ref.report.progress import progress
from awq_ref.report.tables import format_table
from awq_ref.spec import QuantizedLinear, QuantSpec
from awq_ref.threads import default_threads

STORED = {"W16A16": 16, "W8A16": 8, "W4A16": 4}
HERE = "this machine"
PAPER = "RTX 4090, the paper's"
PAPER_MACHINE = Machine(read_bandwidth=1e12, flops=165e12)  # its numbers, section 4.1
LINEAR = "self_attn.o_proj"  # the linear that is measured
TOKENS = (1, 4, 16, 64)
DENSE = "W32A32, dense"


def bound_rows(name: str, config: ModelConfig, machines: dict[str, Machine], options: Options) -> Rows:
    """Return a row per machine, context, batch and way of storing: what could be reached."""
    jobs = [
        (where, context, batch)
        for where in machines
        for context in options.contexts
        for batch in options.batches
    ]
    rows: Rows = []
    for where, context, batch in jobs:
        machine = machines[where]
        for stored, bits in STORED.items():
            work = decode_step(
                config, bits=bits, group_size=options.group_size[0], batch=batch, context=context
            )
            rows.append(
                {
                    "kind": "bound",
                    "machine": where,
                    "what": name,
                    "stored": stored,
                    "tokens": batch,
                    "context": context,
                    "intensity": work.intensity,
                    "gflops": machine.attainable(work.intensity) / 1e9,
                    "limit": machine.limit(work.intensity),
                    "tokens_per_s": batch * machine.attainable(work.intensity) / work.flops,
                }
            )
    return rows


def random_linear(out_features: int, in_features: int, spec: QuantSpec) -> QuantizedLinear:
    """Return a layer of random codes: the time of a product does not depend on them."""
    rng = np.random.default_rng(0)
    group_size = in_features if spec.group_size == -1 else spec.group_size
    grid = (out_features, in_features // group_size)
    codes = rng.integers(0, spec.qmax + 1, (out_features, in_features), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.01, grid).astype(spec.scale_dtype)
    return QuantizedLinear(codes, scales, rng.integers(0, spec.qmax + 1, grid, dtype=np.uint8), spec)


def _measured_row(
    operator: PackedLinear | DenseLinear, name: str, machine: Machine, tokens: int, seconds: float
) -> Row:
    """Place one timed product under the roof."""
    out_features, in_features = operator.out_features, operator.in_features
    bits = 8.0 * operator.resident_bytes / (out_features * in_features)
    work = linear_work(out_features, in_features, tokens=tokens, weight_bits=bits, itemsize=4)
    return {
        "kind": "measured",
        "machine": HERE,
        "what": f"{out_features} x {in_features}",
        "stored": name,
        "tokens": tokens,
        "intensity": work.intensity,
        "gflops": work.flops / seconds / 1e9,
        "limit": machine.limit(work.intensity),
        "share_of_roof": work.flops / seconds / machine.attainable(work.intensity),
        "microseconds": seconds * 1e6,
    }


def measured_rows(config: ModelConfig, machine: Machine, spec: QuantSpec) -> Rows:
    """Return a row per residency and number of tokens: what this package's products of one linear reach."""
    linear = random_linear(*block_linear_shapes(config)[LINEAR], spec)
    operators = [to_operator(linear, residency) for residency in reversed(RESIDENCIES)]  # dense comes first
    names = [DENSE, *(f"W{spec.bits}A32, {operator.residency}" for operator in operators[1:])]
    rows: Rows = []
    for tokens in progress(TOKENS, total=len(TOKENS), label="roofline", unit="size"):
        x = np.ones((tokens, linear.in_features), dtype=np.float32)
        seconds = median_seconds([partial(operator, x) for operator in operators])
        found = [
            _measured_row(operator, name, machine, tokens, time)
            for operator, name, time in zip(operators, names, seconds, strict=True)
        ]
        rows += [row | {"times_dense": seconds[0] * 1e6 / row["microseconds"]} for row in found]
    return sorted(rows, key=lambda row: names.index(row["stored"]))


def run(options: Options) -> tuple[Rows, Setup]:
    """Measure the machine, compute the bounds of each configuration, measure the products of the first."""
    configs = chosen_configs(options)
    spec = QuantSpec(bits=options.bits[0], group_size=options.group_size[0])
    for name, config in configs.items():
        with located(name):
            require_group_sizes(config, spec.group_size)
    machine = measure_machine()
    rows: Rows = []
    for name, config in configs.items():
        rows += bound_rows(name, config, {HERE: machine, PAPER: PAPER_MACHINE}, options)
    rows += measured_rows(next(iter(configs.values())), machine, spec)
    roof = {"read_bandwidth": machine.read_bandwidth, "flops": machine.flops}
    threads = {"blas": blas_threads(), "packed": default_threads()}
    return [row | roof for row in rows], {"processor": platform.machine(), "threads": threads, **roof}


def here(rows: Rows) -> Machine:
    """Return the machine that rows were measured on."""
    return Machine(rows[0]["read_bandwidth"], rows[0]["flops"])


def bound_groups(rows: Rows) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Return the bounds by (machine, model, context, batch): the rows of the three ways of storing, by name."""
    groups: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in select(rows, kind="bound"):
        key = tuple(row[name] for name in ("machine", "what", "context", "tokens"))
        groups.setdefault(key, {})[row["stored"]] = row
    return groups


def gain(group: dict[str, Row], stored: str) -> float:
    """Return how many times faster than W16A16 a way of storing could be."""
    return float(group[stored]["tokens_per_s"] / group["W16A16"]["tokens_per_s"])


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.2f}"


def _bound_table(rows: Rows) -> str:
    headers = ["machine", "model", "context", "batch", *(f"{name} FLOP/byte" for name in STORED)]
    headers += [*(f"{name} tokens/s" for name in STORED), "W4A16 / W16A16"]
    lines = []
    for key, group in bound_groups(rows).items():
        intensities = [f"{group[name]['intensity']:.2f}" for name in STORED]
        rates = [_rate(group[name]["tokens_per_s"]) for name in STORED]
        lines.append([*map(str, key), *intensities, *rates, f"{gain(group, 'W4A16'):.2f}"])
    return format_table(headers, lines, left=2)


MEASURED_TABLE = columns(
    Column("linear", "what"),
    Column("stored", "stored"),
    Column("tokens", "tokens"),
    Column("FLOP/byte", "intensity", ".2f"),
    Column("limit", "limit"),
    Column("GFLOP/s", "gflops", ".1f"),
    Column("of the roof", "share_of_roof", ".0%"),
    Column("microseconds", "microseconds", ".0f"),
    Column("times dense's speed", "times_dense", ".2f"),
    left=2,
)


def table(rows: Rows) -> str:
    """Return the machine's two numbers, what could be reached, and what was measured."""
    machine = here(rows)
    said = (
        f"This machine reads {machine.read_bandwidth / 1e9:.1f} GB/s and multiplies {machine.flops / 1e9:.0f} GFLOP/s: "
        f"below {machine.ridge:.1f} FLOP/byte memory is the limit. At most:"
    )
    parts = [
        said,
        _bound_table(rows),
        "Measured here, one linear:",
        MEASURED_TABLE(select(rows, kind="measured")),
    ]
    return "\n\n".join(parts)


def _series(rows: Rows) -> dict[str, Rows]:
    """Return rows by how the weights are stored."""
    return {name: select(rows, stored=name) for name in dict.fromkeys(row["stored"] for row in rows)}


def _round_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between two numbers; the powers alone if these are far apart."""
    steps = (1, 2, 5) if high / low < 500 else (1,)
    return [
        step * 10.0**power for power in range(-4, 8) for step in steps if low <= step * 10.0**power <= high
    ]


def _draw_roof(axes: Any, rows: Rows) -> None:
    """Draw this machine's roof, where the decoder stands on it at batch 1, and the measured products below it."""
    machine, mine = here(rows), select(rows, machine=HERE)
    places = [*(row["intensity"] for row in mine), machine.ridge]
    line = np.geomspace(min(places) / 1.5, max(places) * 1.5, 200)
    roof = [machine.attainable(float(x)) / 1e9 for x in line]
    axes.loglog(line, roof, color="0.3", lw=1.5)
    first = select(mine, kind="bound")
    for i, (stored, group) in enumerate(_series(select(first, what=first[0]["what"])).items()):
        axes.plot(
            group[0]["intensity"], group[0]["gflops"], "^", color=f"C{i}", ms=7, label=f"{stored}, bound"
        )
    for i, (stored, group) in enumerate(_series(select(rows, kind="measured")).items()):
        xs, ys = [row["intensity"] for row in group], [row["gflops"] for row in group]
        axes.plot(xs, ys, "o:", ms=4, color=f"C{3 + i}", label=f"{stored}, measured")
    low = min(row["gflops"] for row in mine) / 1.5
    axes.set(xlabel="FLOP/byte", ylabel="GFLOP/s", ylim=(low, max(roof) * 1.5), title="This machine's roof")
    for name, ends in (("x", axes.get_xlim()), ("y", axes.get_ylim())):
        ticks = _round_ticks(*ends)
        axes.set(**{f"{name}ticks": ticks, f"{name}ticklabels": [f"{tick:g}" for tick in ticks]})
    axes.minorticks_off()


def _draw_gains(axes: Any, rows: Rows) -> None:
    """Draw, against the batch, how many times faster than W16A16 the others could be, on both machines."""
    groups = bound_groups(rows)
    _, model, context, _ = next(iter(groups))
    for where, style in ((HERE, "-"), (PAPER, "--")):
        found = {key[3]: group for key, group in groups.items() if key[:3] == (where, model, context)}
        for i, stored in enumerate(("W8A16", "W4A16"), start=1):
            gains = [gain(group, stored) for group in found.values()]
            axes.plot(
                list(found), gains, f"^{style}", color=f"C{i}", ms=4, label=f"{stored}, {where.split(',')[0]}"
            )
    batches = sorted({key[3] for key in groups})
    axes.set_xscale("log")
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set(xlabel="batch", ylabel="times W16A16", ylim=(0.9, 4.1), title=f"{model}, context {context}")
    axes.legend(loc="upper right", fontsize=6.5)


def plot(figure: Any, rows: Rows) -> None:
    """Draw the roofline of this machine, and what few bits could gain against the batch, for the first model."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_roof(left, rows)
    _draw_gains(right, rows)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)


EXPERIMENT = Experiment(
    name="roofline",
    title="generation is bound by memory: what 4-bit weights allow on this machine, and what is reached",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "shapes", "bits", "group_size", "contexts", "batches"),
    defaults=Options(bits=(4,), shapes=("llama-2-7b",), contexts=(1024,), batches=(1, 4, 16, 64)),
)
