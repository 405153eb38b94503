"""What the pages of layouts do not say by hand: drawings, ids of vectors, the matrix of conversions.

    PAGES         the pages that have generated parts
    generated     a page's text -> the same with every generated part made anew
    conversions   the matrix: what becomes of each kind of linear on the way from each layout to each other

A part stands between `<!-- generated: WHAT ARGUMENTS -->` and `<!-- end -->`; tools/write_layouts.py writes them, a
test compares them. Whether a conversion is exact is measured, linear by linear, by what `awq-ref convert` does.
"""

import re
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from helpers.source import ROOT

from awq_ref.errors import UnsupportedError
from awq_ref.pack import LAYOUTS, pack_linear, unpack_linear
from awq_ref.pipeline.refit import ASYMMETRIC, refit
from awq_ref.spec import QuantizedLinear, QuantSpec
from awq_ref.vectors import draw_layout, read_cases

PAGES = (ROOT / "docs" / "layouts.md", ROOT / "docs" / "layouts_of_others.md")
PART = re.compile(r"(<!-- generated: (\w+) ?([^>]*?) -->\n)(.*?)(<!-- end -->)", flags=re.DOTALL)
OUT, IN = 64, 256
EXACT, ROUNDS = "=", "~"


@dataclass(frozen=True)
class Kind:
    """A kind of linear: its words in the matrix, its spec, and whether its groups are of any inputs."""

    name: str
    spec: QuantSpec
    scattered: bool = False


KINDS = (
    Kind("groups of 32", QuantSpec(group_size=32)),
    Kind("groups of 128", QuantSpec(group_size=128)),
    Kind("whole rows", QuantSpec(group_size=-1)),
    Kind("groups of 32, symmetric", QuantSpec(group_size=32, symmetric=True)),
    Kind("groups of 128, symmetric", QuantSpec(group_size=128, symmetric=True)),
    Kind("groups of 32, float32 scales", QuantSpec(group_size=32, scale_dtype="float32")),
    Kind("the same, symmetric", QuantSpec(group_size=32, symmetric=True, scale_dtype="float32")),
    Kind("3 bits, groups of 32", QuantSpec(bits=3, group_size=32)),
    Kind("8 bits, groups of 32", QuantSpec(bits=8, group_size=32)),
    Kind("8 bits, groups of 32, symmetric", QuantSpec(bits=8, group_size=32, symmetric=True)),
    Kind("groups of any 32 inputs", QuantSpec(group_size=32), scattered=True),
)


def _linear(kind: Kind) -> QuantizedLinear:
    """A linear of random integers, with every zero point of the width and scales of full precision."""
    rng, spec = np.random.default_rng(5), kind.spec
    codes = rng.integers(0, spec.qmax + 1, (OUT, IN), dtype=np.uint8)
    shape = (OUT, 1 if spec.group_size == -1 else IN // spec.group_size)
    zeros = rng.integers(0, spec.qmax + 1, shape, dtype=np.uint8)
    if spec.symmetric:
        zeros[:] = spec.symmetric_zero_point
    scales = rng.uniform(0.01, 0.02, shape).astype(spec.scale_dtype)
    order = rng.permutation(IN).astype(np.int64) if kind.scattered else None
    return QuantizedLinear(codes, scales, zeros, spec, input_order=order)


def _stored(kind: Kind, layout: str) -> QuantizedLinear | None:
    """A linear of a kind as a file of a layout gives it, or None if the layout has no such linear."""
    linear = _linear(kind)
    if layout in ASYMMETRIC:
        linear = replace(linear, spec=replace(linear.spec, symmetric=False))
    if LAYOUTS[layout].why_not(OUT, IN, linear.spec) or LAYOUTS[layout].no_place_for(linear):
        return None
    return unpack_linear(pack_linear(linear, layout), linear.spec, layout)


def _verdict(linear: QuantizedLinear, layout: str) -> str:
    """EXACT, ROUNDS, or the reason of a refusal, in words that do not name the layout."""
    try:
        return EXACT if refit(linear, layout).is_exact else ROUNDS
    except UnsupportedError as error:
        reason = re.sub(r"^\w+: |the layout must be able to hold the linear; ", "", str(error))
        reason = re.sub(r"\. (Try|Choose|Keep|Quantize) .*", "", reason)
        return reason.replace(f"{layout} ", "it ").replace("convert: ", "")


@cache
def verdicts() -> dict[tuple[str, str], dict[str, str]]:
    """Return (kind, source) -> target -> verdict, for every source that has such linears."""
    found = {}
    for kind in KINDS:
        for source in LAYOUTS:
            linear = _stored(kind, source)
            if linear is not None:
                found[kind.name, source] = {target: _verdict(linear, target) for target in LAYOUTS}
    return found


def _alike(columns: dict[str, tuple[str, ...]]) -> list[tuple[str, tuple[str, ...]]]:
    """Put together what has the same entries, in order."""
    together: dict[tuple[str, ...], list[str]] = {}
    for name, entries in columns.items():
        together.setdefault(entries, []).append(name)
    return [(", ".join(names), entries) for entries, names in together.items()]


def conversions() -> str:
    """Return the matrix and the reasons, as Markdown."""
    found = verdicts()
    reasons = list(
        dict.fromkeys(v for row in found.values() for v in row.values() if v not in (EXACT, ROUNDS))
    )
    signs = {EXACT: EXACT, ROUNDS: ROUNDS} | {reason: str(n) for n, reason in enumerate(reasons, 1)}
    targets = _alike({target: tuple(signs[row[target]] for row in found.values()) for target in LAYOUTS})
    lines = [
        "| linears with | from | " + " | ".join(names.replace("_", "\\_") for names, _ in targets) + " |",
        "|---|---|" + ":-:|" * len(targets),
    ]
    places = {key: k for k, key in enumerate(found)}
    for kind in KINDS:
        rows = {
            source: tuple(entries[k] for _, entries in targets)
            for (name, source), k in places.items()
            if name == kind.name
        }
        for sources, entries in _alike(rows):
            lines.append(f"| {kind.name} | {sources} | " + " | ".join(entries) + " |")
    listed = [f"{n}. {reason}" for n, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *listed, ""])


def _drawing(layout: str, rows: str, columns: str, group_size: str) -> str:
    sizes = {"rows": int(rows), "columns": int(columns), "group_size": int(group_size)}
    command = f"awq-ref explain-layout {layout} --rows {rows} --cols {columns} --group-size {group_size}"
    return f"```text\n$ {command}\n{draw_layout(layout, **sizes)}\n```\n"


def _cases(*layouts: str) -> str:
    ids = [case.id for case in read_cases() if case.params.get("layout") in layouts]
    return f"Vectors: {', '.join(f'`{name}`' for name in ids)}.\n" if ids else ""


MAKERS = {"conversions": conversions, "drawing": _drawing, "vectors": _cases}


def generated(page: str) -> str:
    """Return a page with all its generated parts made anew."""
    return PART.sub(lambda m: m[1] + MAKERS[m[2]](*m[3].split()) + m[5], page)
