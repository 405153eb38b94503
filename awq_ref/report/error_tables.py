"""The errors of all linears of a model: a record that can be printed and written as JSON.

LinearRow     one layer's errors, and where its scales are known from
ErrorReport   all of them: tables, JSON
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from awq_ref.report.errors import LinearErrors
from awq_ref.report.tables import format_table
from awq_ref.spec import QuantSpec

SHOWN_CHANNELS = 3  # of a row of the table
SAVED_CHANNELS = 16  # of a row of the JSON


@dataclass(frozen=True)
class LinearRow:
    """One linear layer.

    columns_from, rows_from : how the scales on columns and rows are known: "norm" (ratio of the norms' weights),
        "report", "recipe" (it scales nothing), "estimate" (least squares), "-" (there are none)
    """

    layer: int
    linear: str
    errors: LinearErrors
    columns_from: str
    rows_from: str

    @property
    def name(self) -> str:
        return f"{self.layer} {self.linear}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_json(row: LinearRow) -> dict[str, Any]:
    """Return a flat object of numbers; an infinity, which JSON does not have, becomes null."""
    found = row.errors
    top = found.top_channels(SAVED_CHANNELS)
    return {
        "layer": row.layer,
        "linear": row.linear,
        "columns_from": row.columns_from,
        "rows_from": row.rows_from,
        "weight_error": _finite(found.weight_error),
        "output_error": _finite(found.output_error),
        "sqnr_db": _finite(found.sqnr_db),
        **{f"eq2_{name}": value for name, value in asdict(found.rounded).items()},
        **{f"eq3_{name}": value for name, value in asdict(found.scaled).items()},
        "delta_ratio": found.delta_ratio,
        "inverse_scale": found.inverse_scale,
        "inverse_scale_salient": found.inverse_scale_salient,
        "top_1_percent_share": found.top_share(),
        "salient_1_percent_share": found.salient_share(),
        "top_channels": [
            {"channel": i, "share": share, "act_mean_abs": float(found.act_mean_abs[i])} for i, share in top
        ],
    }


Column = tuple[str, Callable[[LinearRow], str]]


def _channels(row: LinearRow) -> str:
    top = row.errors.top_channels(SHOWN_CHANNELS)
    return ", ".join(f"{channel} ({share:.1%})" for channel, share in top)


def _scales_from(row: LinearRow) -> str:
    known = dict.fromkeys(word for word in (row.columns_from, row.rows_from) if word != "-")
    return ", ".join(known) or "-"


ERROR_COLUMNS: tuple[Column, ...] = (
    ("linear", lambda r: r.name),
    ("weight error", lambda r: f"{r.errors.weight_error:.4f}"),
    ("output error", lambda r: f"{r.errors.output_error:.3e}"),
    ("SQNR, dB", lambda r: f"{r.errors.sqnr_db:.2f}"),
    ("top 1 %", lambda r: f"{r.errors.top_share():.1%}"),
    ("salient 1 %", lambda r: f"{r.errors.salient_share():.1%}"),
    ("channels with most of it", _channels),
    ("scales from", _scales_from),
)
TERM_COLUMNS: tuple[Column, ...] = (
    ("linear", lambda r: r.name),
    ("delta", lambda r: f"{r.errors.rounded.delta:.3e}"),
    ("RoundErr", lambda r: f"{r.errors.rounded.round_error:.3f}"),
    ("mean abs x", lambda r: f"{r.errors.rounded.act_mean_abs:.3e}"),
    ("Err, eq. 2", lambda r: f"{r.errors.rounded.error:.3e}"),
    ("delta'/delta", lambda r: f"{r.errors.delta_ratio:.3f}"),
    ("RoundErr'", lambda r: f"{r.errors.scaled.round_error:.3f}"),
    ("1/s", lambda r: f"{r.errors.inverse_scale:.3f}"),
    ("1/s, salient", lambda r: f"{r.errors.inverse_scale_salient:.3f}"),
    ("Err, eq. 3", lambda r: f"{r.errors.scaled.error:.3e}"),
)


def _table(columns: Sequence[Column], rows: Sequence[LinearRow]) -> str:
    return format_table(
        [header for header, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
    )


@dataclass(frozen=True)
class ErrorReport:
    """What quantization did to every linear of a model.

    model, quantized : names of the two folders
    spec             : the grid of the quantized model
    calibration      : fingerprint of the tokens that the errors were measured on
    rows             : one per quantized linear, in the order of the data
    notes            : what a reader must know about these numbers
    """

    model: str
    quantized: str
    spec: QuantSpec
    calibration: dict[str, Any]
    rows: tuple[LinearRow, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return what `awq-ref inspect --errors` prints: two tables and the notes."""
        parts = [
            _table(ERROR_COLUMNS, self.rows),
            "The terms of the paper's equations 2 (rounding to nearest) and 3 (what is stored), means over the layer:",
            _table(TERM_COLUMNS, self.rows),
            "\n".join(f"- {note}" for note in self.notes),
        ]
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; `rows` is a list of flat objects."""
        return {
            "model": self.model,
            "quantized": self.quantized,
            "spec": asdict(self.spec),
            "calibration": self.calibration,
            "notes": list(self.notes),
            "rows": [_as_json(row) for row in self.rows],
        }
