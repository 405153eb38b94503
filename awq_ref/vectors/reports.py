"""What a conformance run says: to a person, and to the tools of a CI.

    summary    a table: levels by what became of their cases
    failures   a line for each failed case
    stories    the bugs that such cases are known to catch
    REPORTS    name -> function: junit, tap, json, html

All are functions (hello, outcomes) -> text.
"""

import html
import json
from collections import Counter
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape, quoteattr

from awq_ref.vectors.case import LEVELS
from awq_ref.vectors.files import VERSION
from awq_ref.vectors.flags import FLAGS
from awq_ref.vectors.protocol import Hello
from awq_ref.vectors.runner import FAILED, PASSED, UNSUPPORTED, XFAILED, XPASSED, Outcome

STATUSES = (PASSED, FAILED, XFAILED, XPASSED, UNSUPPORTED)
BAD = (FAILED, XPASSED)
STORIES = 6  # of flags that are told after a run


def _counts(outcomes: Sequence[Outcome]) -> list[tuple[str, str, Counter[str]]]:
    """Return level, what (an op, with its layout if it has one), and how many cases have each status."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes:
        layout = outcome.case.params.get("layout")
        what = f"{outcome.case.op} {layout}" if layout else outcome.case.op
        counts.setdefault((outcome.case.level, what), Counter())[outcome.status] += 1
    order = {level: place for place, level in enumerate(LEVELS)}
    return [(*key, counts[key]) for key in sorted(counts, key=lambda key: (order[key[0]], key[1]))]


def _row(name: str, cells: Sequence[object]) -> str:
    return f"{name:34}" + "".join(f"{cell!s:>13}" for cell in cells)


def summary(hello: Hello, outcomes: Sequence[Outcome]) -> str:
    """Return a table of what became of the cases, by level, operation and layout."""
    lines = [f"{hello.name} {hello.version}, vectors {VERSION}", "", _row("", STATUSES)]
    for level, what, counts in _counts(outcomes):
        lines.append(_row(f"{level} {what}", [counts[status] or "" for status in STATUSES]))
    total = Counter(outcome.status for outcome in outcomes)
    lines += ["", _row(f"{len(outcomes)} cases", [total[status] for status in STATUSES])]
    first = next(
        (level for level in LEVELS if any(o.case.level == level and o.status in BAD for o in outcomes)), None
    )
    if first is not None:
        lines.append(f"The first level with a failure is {first}: look there first, the others stand on it.")
    return "\n".join(lines)


def stories(outcomes: Sequence[Outcome]) -> str:
    """Return what is known of the bugs that the failed cases catch, the most frequent first."""
    flags = Counter(flag for outcome in outcomes if outcome.status in BAD for flag in outcome.case.flags)
    told = [(flag, FLAGS[flag]) for flag, _ in flags.most_common(STORIES) if flag in FLAGS]
    return "\n".join(
        ["What such failures have been:", *(f"  {flag}: {text}" for flag, text in told)] if told else []
    )


def failures(outcomes: Sequence[Outcome]) -> str:
    """Return a line for every failed case: its id, what is wrong, and the bugs that it is known to catch."""
    lines = []
    for outcome in outcomes:
        if outcome.status in BAD:
            flags = f" [{', '.join(outcome.case.flags)}]" if outcome.case.flags else ""
            lines.append(f"{outcome.status.upper()} {outcome.case.id}{flags}: {outcome.message}")
    return "\n".join(lines)


def _junit(hello: Hello, outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    skipped = counts[UNSUPPORTED] + counts[XFAILED]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name={quoteattr(f"awq-ref conform: {hello.name} {hello.version}")} tests="{len(outcomes)}" '
        f'failures="{counts[FAILED] + counts[XPASSED]}" errors="0" skipped="{skipped}">',
    ]
    for outcome in outcomes:
        case = outcome.case
        head = f'  <testcase classname="{case.level}.{case.op}" name={quoteattr(case.id)} time="{outcome.seconds:.4f}"'
        if outcome.status == PASSED:
            lines.append(f"{head}/>")
            continue
        tag = "failure" if outcome.status in BAD else "skipped"
        message = quoteattr(_printable(f"{outcome.status}: {outcome.message}"))
        lines.append(f"{head}><{tag} message={message}>{escape(case.comment)}</{tag}></testcase>")
    return "\n".join([*lines, "</testsuite>"])


def _printable(text: str) -> str:
    """Replace what XML cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _tap(hello: Hello, outcomes: Sequence[Outcome]) -> str:
    lines = ["TAP version 13", f"1..{len(outcomes)}"]
    for number, outcome in enumerate(outcomes, start=1):
        good = outcome.status not in (FAILED, XFAILED, XPASSED)
        note = {UNSUPPORTED: " # SKIP unsupported", XFAILED: " # TODO known to fail"}.get(outcome.status, "")
        lines.append(f"{'ok' if good else 'not ok'} {number} - {outcome.case.id}{note}")
        if outcome.status in BAD:
            lines.append("  # " + _printable(outcome.message))
    return "\n".join(lines)


def _json(hello: Hello, outcomes: Sequence[Outcome]) -> str:
    record = {
        "format": "awq-ref-conformance",
        "vectors": VERSION,
        "backend": {"name": hello.name, "version": hello.version},
        "counts": dict(Counter(outcome.status for outcome in outcomes)),
        "cases": [
            {
                "id": outcome.case.id,
                "status": outcome.status,
                "message": outcome.message,
                "flags": list(outcome.case.flags),
                "seconds": round(outcome.seconds, 6),
            }
            for outcome in outcomes
        ],
    }
    return json.dumps(record, indent=1)


STYLE = (
    "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:2px 10px;text-align:right}"
    "td:first-child{text-align:left}.failed,.xpassed{color:#b00020}.passed{color:#00701a}"
)


def _html(hello: Hello, outcomes: Sequence[Outcome]) -> str:
    title = html.escape(f"{hello.name} {hello.version}: conformance, vectors {VERSION}")
    head = "".join(f"<th>{status}</th>" for status in STATUSES)
    lines = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>',
        f"<h1>{title}</h1><table><tr><th></th>{head}</tr>",
    ]
    for level, what, counts in _counts(outcomes):
        cells = "".join(f'<td class="{status}">{counts[status] or ""}</td>' for status in STATUSES)
        lines.append(f"<tr><td>{level} {html.escape(what)}</td>{cells}</tr>")
    lines.append("</table><h2>Failures</h2><ul>")
    for outcome in outcomes:
        if outcome.status in BAD:
            lines.append(f"<li><b>{html.escape(outcome.case.id)}</b>: {html.escape(outcome.message)}</li>")
    return "\n".join([*lines, "</ul></html>"])


REPORTS: dict[str, Callable[[Hello, Sequence[Outcome]], str]] = {
    "junit": _junit,
    "tap": _tap,
    "json": _json,
    "html": _html,
}
