"""The page: the record as JSON in one HTML file with its style and its script.

layer_page      record -> HTML
explain_layer   float checkpoint and name of a linear -> an HTML file
"""

import html
import inspect
import json
import secrets
from importlib import resources
from pathlib import Path
from typing import Any

from awq_ref.calibration import SiteStatistics
from awq_ref.checkpoint import write_text
from awq_ref.checkpoint.disk import writing
from awq_ref.checkpoint.writer import require_new
from awq_ref.errors import OutputError
from awq_ref.explain.record import layer_record
from awq_ref.explain.subject import WHO, open_subject
from awq_ref.matmul.reference import packed_matmul_reference
from awq_ref.pipeline.texts import Calibration
from awq_ref.quantize import dequantize, grid_of_range, group_range, quantize
from awq_ref.search import candidate, gram_row_losses, scale_consumer

# The function whose docstring says an equation. They stand at the end of the page, in this order.
EQUATIONS: dict[str, Any] = {
    "AWQ-1": group_range,
    "AWQ-2": grid_of_range,
    "AWQ-3": quantize,
    "AWQ-4": dequantize,
    "AWQ-5": SiteStatistics,
    "AWQ-6": candidate,
    "AWQ-7": gram_row_losses,
    "AWQ-8": scale_consumer,
    "AWQ-10": packed_matmul_reference,
}

SCRIPTS = ("drawings.js", "page.js")


def _embedded(record: dict[str, Any]) -> str:
    """Return JSON that can stand within a script element: nothing in it ends the element, or is markup."""
    text = json.dumps(
        record, separators=(",", ":"), allow_nan=False
    )  # ASCII: separators of lines are escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _said(function: Any) -> str:
    """Return what a docstring says between its summary and its source: the equation and its symbols."""
    lines = (inspect.getdoc(function) or "").splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith("Equation")]
    if not at:
        return lines[0] if lines else ""
    ends = (i for i, line in enumerate(lines) if i > at[0] and (not line or line.startswith("Source")))
    end = next(ends, len(lines))
    return "\n".join(lines[at[0] : end])


def _equations(docs: str | None) -> str:
    """Return the list of equations; each leads to its page where it is known where the documentation is."""
    parts = []
    for name, function in EQUATIONS.items():
        anchor, path = name.lower(), f"{function.__module__}.{function.__qualname__}"
        link = f"{docs.rstrip('/')}/equations.html#{anchor}" if docs else ""
        more = f'<p><a href="{html.escape(link)}" target="_top">derivation and tests</a></p>' if docs else ""
        parts.append(
            f'<dt id="{anchor}">[{name}] <code>{path}</code></dt>\n'
            f'<dd><pre tabindex="0">{html.escape(_said(function))}</pre>{more}</dd>'
        )
    return "\n".join(parts)


def layer_page(record: dict[str, Any], *, docs: str | None = None) -> str:
    """Return one HTML file that shows a record.

    Parameters
    ----------
    record : dict
        Of `layer_record`.
    docs : str, optional
        Where the built documentation is, for links from the equations.

    Returns
    -------
    text : str
        HTML that loads nothing: style, script and numbers are in it.
    """
    folder = resources.files(__package__)
    parts = {
        "TITLE": html.escape(f"{record['about']['layer']}, step by step"),
        "EQUATIONS": _equations(docs),
        "STYLE": folder.joinpath("page.css").read_text(encoding="utf-8"),
        "SCRIPT": "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS),
        "NUMBERS": _embedded(record),
    }
    text = folder.joinpath("page.html").read_text(encoding="utf-8")
    for name, part in parts.items():  # the numbers last: nothing that stands in them is replaced
        text = text.replace(f"@@{name}@@", part)
    return text


def explain_layer(
    source: str | Path,
    out: str | Path,
    *,
    layer: str,
    row: int | None = None,
    group_size: int = 32,
    calibration: Calibration = None,
    samples: int = 8,
    seq_len: int = 512,
    docs: str | None = None,
) -> dict[str, Any]:
    """Write one HTML file in which one steps through a layer of a float model; return its numbers.

    Parameters
    ----------
    source, layer, group_size, calibration, samples, seq_len
        As `open_subject`.
    out : str or Path
        Must not exist. It is written under a hidden name beside it and renamed when it is complete.
    row : int, optional
        As `layer_record`.
    docs : str, optional
        As `layer_page`.

    Returns
    -------
    record : dict

    Raises
    ------
    OutputError
        If out exists, its folder does not, or it cannot be written.
    CorpusError, FormatError, HubError, MissingTensorError, RangeError, ShapeError, UnsupportedError
        As `open_subject` and `layer_record`.
    """
    path = Path(out).absolute()
    require_new(path)
    if not path.parent.is_dir():
        raise OutputError(f"{WHO}: the folder of {path} must exist; it does not. Make it first.")
    subject = open_subject(
        source, layer, group_size=group_size, calibration=calibration, samples=samples, seq_len=seq_len
    )
    record = layer_record(subject, row=row)
    hidden = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        write_text(hidden, layer_page(record, docs=docs))
        with writing(path):
            require_new(path)
            hidden.rename(path)
    finally:
        hidden.unlink(missing_ok=True)
    return record
