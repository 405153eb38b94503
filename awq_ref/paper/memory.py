"""Experiment `memory`: what a model takes in memory, from its configuration alone.

    memory_row   one configuration, one form of its weights, one cache -> bytes, part by part

Source: Lin et al. 2023, arXiv:2306.00978, section 4.1; docs/paper/memory.md.
"""

import math
from collections import Counter
from typing import Any

from awq_ref.matmul import fits
from awq_ref.model import PAGE, ModelConfig, block_linear_shapes, model_tensor_shapes
from awq_ref.paper.experiment import Experiment, Options, Row, Rows, Setup
from awq_ref.paper.shapes import chosen_configs
from awq_ref.pipeline.fit import require_group_sizes
from awq_ref.pipeline.observation import located
from awq_ref.report.memory import RESIDENCIES, kv_cache_bytes, linear_parts
from awq_ref.report.tables import format_bytes, format_table
from awq_ref.spec import QuantSpec

# What an engine takes that keeps everything in 16 bits: the number to compare with.
ENGINE = "fp16 engine"
FORMS = (*RESIDENCIES, ENGINE)
PARTS = ("codes", "scales", "zero_points", "outer", "kv_cache")
LABELS = ("weights", "scales", "zero points", "embedding, head, norms", "KV cache")


def _linears(config: ModelConfig, spec: QuantSpec, form: str) -> Counter[str]:
    """Return the bytes of all linears of the blocks, as codes, scales, zero_points."""
    parts: Counter[str] = Counter()
    for out_features, in_features in block_linear_shapes(config).values():
        if form == ENGINE:
            parts["codes"] += 2 * out_features * in_features
            continue
        group_size = in_features if spec.group_size == -1 else spec.group_size
        held = "codes" if form == "packed" and fits(in_features, group_size, spec.bits) else form
        parts.update(linear_parts(out_features, in_features, spec=spec, residency=held))
    return Counter({name: size * config.num_hidden_layers for name, size in parts.items()})


def memory_row(
    name: str, config: ModelConfig, form: str, *, spec: QuantSpec, context: int, batch: int
) -> Row:
    """Return the bytes of one model in memory, part by part.

    Parameters
    ----------
    form : "packed", "codes", "dense" or "fp16 engine"
        How the blocks' linears are held. Embedding, head, norms and cache are float32 beside the first three, which
        is what this package does, and float16 beside the last. A layer with a window keeps it; here, with room
        for a page of new columns beside it.
    spec : QuantSpec
    context, batch : int
        Tokens in the cache, sequences.

    Returns
    -------
    row : dict
        shape, parameters, form, bits, group_size, context, batch; the bytes of `PARTS`, and `total`.
    """
    itemsize = 2 if form == ENGINE else 4
    linears = _linears(config, spec, form)
    in_linears = config.num_hidden_layers * sum(
        out * into for out, into in block_linear_shapes(config).values()
    )
    parameters = sum(math.prod(shape) for shape in model_tensor_shapes(config).values())
    cache = kv_cache_bytes(
        n_layers=config.num_hidden_layers, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
        capacity=context, batch=batch, itemsize=itemsize,
        windows=config.windows, page=1 if form == ENGINE else PAGE,
    )  # fmt: skip
    sizes = {
        "codes": linears["codes"],
        "scales": linears["scales"],
        "zero_points": linears["zero_points"],
        "outer": itemsize * (parameters - in_linears),
        "kv_cache": cache,
    }
    quantized = form in ("packed", "codes")
    return {
        "shape": name,
        "parameters": parameters,
        "form": form,
        "bits": spec.bits if quantized else None,
        "group_size": spec.group_size if quantized else None,
        "context": context,
        "batch": batch,
        **sizes,
        "total": sum(sizes.values()),
    }


def _form_rows(name: str, config: ModelConfig, form: str, options: Options) -> Rows:
    """Return the rows of one form: a grid for each bit width and group size where it is quantized."""
    quantized = form in ("packed", "codes")
    grids = [(bits, group) for bits in options.bits for group in options.group_size]
    return [
        memory_row(
            name, config, form, spec=QuantSpec(bits=bits, group_size=group), context=context, batch=batch
        )
        for bits, group in (grids if quantized else grids[:1])
        for batch in options.batches
        for context in options.contexts
    ]


def run(options: Options) -> tuple[Rows, Setup]:
    """Return a row per configuration, form, grid, batch and context."""
    rows: Rows = []
    for name, config in chosen_configs(options).items():
        for group_size in options.group_size:
            with located(name):
                require_group_sizes(config, group_size)
        for form in FORMS:
            rows += _form_rows(name, config, form, options)
    return rows, {}


def _label(row: Row) -> str:
    return row["form"] if row["bits"] is None else f"{row['form']} INT{row['bits']} g{row['group_size']}"


def _same_weights(rows: Rows) -> dict[tuple[str, str], Rows]:
    """Group the rows that differ in their cache alone: (shape, form) -> rows."""
    groups: dict[tuple[str, str], Rows] = {}
    for row in rows:
        groups.setdefault((row["shape"], _label(row)), []).append(row)
    return groups


def _cache_headers(rows: Rows) -> list[str]:
    return [f"{row['context']} x {row['batch']}" for row in rows]


def _weight_table(groups: dict[tuple[str, str], Rows]) -> str:
    lines = []
    for (shape, label), (first, *_) in groups.items():
        cells = [format_bytes(first[part]) if first[part] else "-" for part in PARTS[:4]]
        whole = format_bytes(first["total"] - first["kv_cache"])
        lines.append([shape, f"{first['parameters'] / 1e9:.2f} B", label, *cells, whole])
    return format_table(["model", "parameters", "linears as", *LABELS[:4], "sum"], lines, left=3)


def _total_table(groups: dict[tuple[str, str], Rows]) -> str:
    lines = [
        [shape, label, *(format_bytes(row["total"]) for row in group)]
        for (shape, label), group in groups.items()
    ]
    return format_table(["model", "linears as", *_cache_headers(next(iter(groups.values())))], lines, left=2)


def _cache_table(groups: dict[tuple[str, str], Rows]) -> str:
    lines: dict[tuple[str, str], list[str]] = {}
    for group in groups.values():
        kind = "float16" if group[0]["form"] == ENGINE else "float32"
        sizes = [format_bytes(row["kv_cache"]) for row in group]
        lines.setdefault((group[0]["shape"], kind), sizes)
    cells = [[*key, *sizes] for key, sizes in lines.items()]
    return format_table(["model", "cache in", *_cache_headers(next(iter(groups.values())))], cells, left=2)


def table(rows: Rows) -> str:
    """Return three tables: weights by part, the cache by context and batch, and both together."""
    groups = _same_weights(rows)
    parts = [
        _weight_table(groups),
        "Key/value cache, tokens of context x sequences:",
        _cache_table(groups),
        "All together:",
        _total_table(groups),
    ]
    return "\n\n".join(parts)


def _bars(axes: Any, rows: Rows) -> None:
    """Draw the stacked bars of one model."""
    bottom = [0.0] * len(rows)
    for part, label, color in zip(PARTS, LABELS, ("C0", "C1", "C3", "C7", "C2"), strict=True):
        heights = [row[part] / 2**30 for row in rows]
        axes.bar(range(len(rows)), heights, bottom=bottom, label=label, color=color, width=0.7)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_xticks(range(len(rows)), [_label(row).replace(" ", "\n") for row in rows], fontsize=7)
    axes.set_title(rows[0]["shape"], fontsize=9)
    axes.set_ylabel("GiB")
    axes.grid(visible=False, axis="x")


def plot(figure: Any, rows: Rows) -> None:
    """Draw a panel per model, a stacked bar per form, with the first cache that was asked for."""
    groups = _same_weights(rows)
    shapes = list(dict.fromkeys(shape for shape, _ in groups))
    columns = min(3, len(shapes) + 1)
    panels = figure.subplots(-(-(len(shapes) + 1) // columns), columns, squeeze=False).flat
    for shape in shapes:
        _bars(next(panels), [group[0] for (name, _), group in groups.items() if name == shape])
    key = next(panels)
    key.axis("off")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    first = rows[0]
    title = f"cache: {first['context']} tokens x {first['batch']}"
    key.legend(handles[::-1], labels[::-1], loc="center", title=title)
    for rest in panels:
        rest.axis("off")


EXPERIMENT = Experiment(
    name="memory",
    title="what a model takes in memory, part by part, from its config.json alone",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "shapes", "bits", "group_size", "contexts", "batches"),
    defaults=Options(bits=(4,), contexts=(4096, 32768), batches=(1, 8)),
)
