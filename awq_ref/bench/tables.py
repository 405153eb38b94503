"""The result of `awq-ref bench` as Markdown.

text_of    a result -> the text that is printed
"""

from typing import Any

from awq_ref.report.tables import format_bytes, format_table

Row = dict[str, Any]

NOISE = 1.05  # a share of the limit that no machine reaches


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.1f}"


def _mebi(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.0f}"


def _name(run: Row) -> str:
    return run["residency"] if run["head"] == "float" else f"{run['residency']}, head {run['head']}"


def _mark(run: Row) -> str:
    return "*" if run["scaled"] else ""


def _limits(result: Row) -> str:
    machine, limits = result["machine"], result["limits"]
    return (
        f"This machine with {machine['threads']} threads reads {_giga(limits['read_bandwidth'])} GB/s; a large float32 "
        f"product (sgemm) makes {_giga(limits['sgemm_flops'])} GFLOP/s, a matrix-vector product (sgemv) "
        f"{_giga(limits['sgemv_flops'])}."
    )


def _speeds(runs: list[Row], phase: str) -> str:
    headers = [
        "residency",
        "tokens/s",
        "quartiles",
        "GB/s",
        "GFLOP/s",
        "limited by",
        "limit, tokens/s",
        "reached",
    ]
    rows = []
    for run in runs:
        found = run[phase]
        ends = found.get("quartiles_tokens_per_s")
        by = run.get("scaled") and found["scaled_by"] or 1.0
        spread = "-" if ends is None else f"{ends[0] / by:.1f} to {ends[1] / by:.1f}"
        rows.append(
            [
                _name(run), f"{found['tokens_per_s']:.1f}{_mark(run)}", spread, _giga(found["bytes_per_s"]),
                _giga(found["flops_per_s"]), found["limit"], f"{found['limit_tokens_per_s']:.1f}{_mark(run)}",
                f"{found['share_of_limit']:.0%}",
            ]
        )  # fmt: skip
    return format_table(headers, rows)


def _bytes(runs: list[Row]) -> str:
    parts = list(runs[0]["bytes_per_token"])
    rows = [[_name(run), *(format_bytes(run["bytes_per_token"][part]) for part in parts)] for run in runs]
    return format_table(["a new token reads", *parts], rows)


def _memory(runs: list[Row]) -> str:
    headers = ["MiB", "weights, predicted", "weights", "resident", "peak, predicted", "peak"]
    keys = ("predicted_weights", "weights", "resident", "predicted_peak", "peak")
    return format_table(headers, [[_name(run), *(_mebi(run["memory"][key]) for key in keys)] for run in runs])


def _where(run: Row) -> str:
    watched = run["watched"]
    rows = [
        [
            row["operation"], str(row["calls"]), f"{row['seconds'] * 1e3:.2f}", f"{row['share']:.0%}",
            _giga(row["bytes_per_s"]),
        ]
        for row in watched["operations"]
    ]  # fmt: skip
    layers = sorted(seconds * 1e3 for seconds in watched["layers"])
    said = (
        f"{_name(run)}: one step, {watched['seconds'] * 1e3:.1f} ms with the clocks on. A layer takes "
        f"{layers[len(layers) // 2]:.2f} ms ({layers[0]:.2f} to {layers[-1]:.2f}), what is outside of all "
        f"{watched['outside'] * 1e3:.2f} ms."
    )
    return said + "\n\n" + format_table(["operation", "calls", "ms", "share", "GB/s"], rows)


def _passes(result: Row) -> str:
    limits, model = result["limits"], result["passes"]
    constants = limits["passes"]
    parts = ", ".join(f"{name} {constants[name] * 1e9:.3f}" for name in ("mask", "cast", "gemv"))
    reads = ", ".join(f"{t} threads {_giga(b)} GB/s" for t, b in constants["bandwidth"].items())
    rows = [
        [str(r["threads"]), r["bus"], f"{r['packed_ns']:.3f}", f"{r['dense_ns']:.3f}", f"{r['ratio']:.2f}"]
        for r in model["rows"]
    ]
    rows += [
        [str(r["threads"]), f"whole, {limits['linear']}", f"{r['packed_ns']:.3f}", f"{r['dense_ns']:.3f}",
         f"{r['dense_ns'] / r['packed_ns']:.2f}"]
        for r in limits["whole"]
    ]  # fmt: skip
    ends = [
        f"if the bandwidth {bus}, {'never' if count is None else f'with {count} threads'}"
        for bus, count in model["crossing"].items()
    ]
    return (
        f"The passes of a packed product, ns for a weight and thread: {parts}; reading: {reads}.\n\n"
        + format_table(
            ["threads", "bandwidth", "packed, ns", "float32, ns", "float32 / packed"], rows, left=2
        )
        + f"\n\nPacked is as fast as float32: {'; '.join(ends)}."
    )


def text_of(result: Row) -> str:
    """Return the text of a result: limits, prefill, decode, bytes, memory, where the time goes, the passes."""
    setup, runs = result["setup"], result["runs"]
    parts = [
        _limits(result),
        f"{setup['model']}, INT{setup['bits']}, groups of {setup['group_size']}. A prompt of {setup['prompt']} tokens:",
        _speeds(runs, "prefill"),
        f"{setup['new']} new tokens, one by one:",
        _speeds(runs, "decode"),
    ]
    cut = [run for run in runs if run["scaled"]]
    if cut:
        layers = ", ".join(f"{_name(run)} {run['layers']} of {run['of_layers']}" for run in cut)
        parts.append(
            f"* measured on fewer layers and scaled to all: {layers}. Bytes and memory are those of the fewer."
        )
    if any(run[phase]["share_of_limit"] > NOISE for run in runs for phase in ("prefill", "decode")):
        parts.append(
            "More than the limit was reached: something else ran while it was measured. Repeat on an idle machine."
        )
    parts += [_bytes(runs), _memory(runs), *map(_where, runs), _passes(result)]
    return "\n\n".join(parts)
