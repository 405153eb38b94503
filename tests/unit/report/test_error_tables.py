"""The error report: two tables, notes, JSON without infinities."""

import json
import math

import numpy as np

from awq_ref.report.error_tables import SAVED_CHANNELS, ErrorReport, LinearRow
from awq_ref.report.errors import ErrorTerms, LinearErrors
from awq_ref.spec import QuantSpec


def a_row(**changes):
    found = {
        "weight_error": 0.125,
        "output_error": 0.01,
        "contributions": np.array([1.0, 3.0], dtype=np.float64),
        "act_mean_abs": np.array([0.5, 0.25], dtype=np.float32),
        "rounded": ErrorTerms(0.5, 0.25, 2.0, 0.25),
        "scaled": ErrorTerms(0.75, 0.375, 1.0, 0.125),
        "delta_ratio": 1.5,
        "inverse_scale": 1.25,
        "inverse_scale_salient": 0.5,
    }
    return LinearRow(3, "mlp.up_proj", LinearErrors(**found | changes), "norm", "estimate")


def a_report(*rows):
    return ErrorReport("tiny", "tiny-int4", QuantSpec(), {"windows": 4}, rows, ("one note", "another"))


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_text_has_two_tables_and_the_notes():
    errors, said, terms, notes = a_report(a_row()).text().split("\n\n")
    wanted = ["3 mlp.up_proj", "0.1250", "1.000e-02", "20.00", "75.0%", "25.0%", "1 (75.0%), 0 (25.0%)"]
    assert cells(errors.splitlines()[2]) == [*wanted, "norm, estimate"]
    assert "equations 2" in said
    assert cells(terms.splitlines()[2])[1:] == [
        *("5.000e-01", "0.250", "2.000e+00", "2.500e-01"),
        *("1.500", "0.375", "1.250", "0.500", "1.250e-01"),
    ]
    assert notes.splitlines() == ["- one note", "- another"]


def test_json_holds_all_numbers_and_no_infinity():
    whole = a_report(a_row(), a_row(output_error=0.0), a_row(output_error=math.inf)).to_json()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert (whole["model"], whole["spec"]["bits"], whole["notes"]) == ("tiny", 4, ["one note", "another"])
    first, exact, broken = whole["rows"]
    assert (
        first.items() >= {"layer": 3, "linear": "mlp.up_proj", "eq2_delta": 0.5, "eq3_error": 0.125}.items()
    )
    assert first["top_channels"][0] == {"channel": 1, "share": 0.75, "act_mean_abs": 0.25}
    assert (exact["output_error"], exact["sqnr_db"]) == (0.0, None)
    assert (broken["output_error"], broken["sqnr_db"]) == (None, None)


def test_only_the_first_channels_are_saved():
    many = np.ones(100, dtype=np.float64)
    (row,) = a_report(a_row(contributions=many, act_mean_abs=many.astype(np.float32))).to_json()["rows"]
    assert [entry["channel"] for entry in row["top_channels"]] == list(range(SAVED_CHANNELS))
