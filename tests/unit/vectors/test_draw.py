"""Drawings of layouts, and the reports of a run."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from awq_ref.errors import RangeError
from awq_ref.vectors import REPORTS, Outcome, draw_layout, failures, stories, summary
from awq_ref.vectors.addresses import PLACES
from awq_ref.vectors.case import Case, exact
from awq_ref.vectors.protocol import Hello


def test_gemm_is_drawn_nibble_by_nibble():
    text = draw_layout("gemm", rows=8, columns=2)
    assert "qweight, 2 x 1 words of 32 bits" in text
    line = next(line for line in text.splitlines() if line.startswith("  [1,0]"))
    assert [field.strip() for field in line.split("]", 1)[1].split("|")] == [
        f"q[{o},1]" for o in (7, 5, 3, 1, 6, 4, 2, 0)
    ]


def test_codes_that_straddle_words_are_drawn_with_their_bits():
    text = draw_layout("pack-quantized", rows=1, columns=16, bits=3)
    first, second = (next(x for x in text.splitlines() if x.startswith(f"  [0,{c}]")) for c in (0, 1))
    assert "q[0,10]:2" in first
    assert "q[0,10]:1" in second


def test_padding_and_offsets_are_said():
    text = draw_layout("gemv_fast", rows=4, columns=64, group_size=32)
    assert "words of 16 bits" in text
    assert "scales, 32 x 4 [group, output], groups 2 to 31 are padding, 0; qzeros likewise" in text
    assert "stored less 1" in draw_layout("gptq", rows=8, columns=8)
    assert "more words" in draw_layout("gemm", rows=256, columns=64)


@pytest.mark.parametrize("layout", PLACES)
def test_every_layout_is_drawn(layout):
    assert draw_layout(layout, rows=8, columns=64).startswith(layout)


@pytest.mark.parametrize(
    "layout, options, message",
    [
        ("gemms", {}, "layout"),
        ("gemm", {"rows": 0}, "rows"),
        ("gemm", {"bits": 3}, "must have 4 bits"),
        ("gptq", {"bits": 5}, "bits"),
        ("gemm", {"group_size": 5}, "must divide"),
    ],
)
def test_what_cannot_be_drawn(layout, options, message):
    with pytest.raises(RangeError, match=message):
        draw_layout(layout, **{"rows": 8, "columns": 32, **options})


def outcome(name, status, message="", layout="gemm"):
    case = Case(
        f"L0/pack/{name}", {"layout": layout}, {}, {"y": exact([1], "uint8")}, "c <&>", "s", ("Basic",)
    )
    return Outcome(case, status, message, 0.25)


HELLO = Hello("mine <1>", "2")
OUTCOMES = [
    outcome("a", "passed"),
    outcome("b", "failed", 'expected 1, got "2" \x00'),
    outcome("c", "unsupported"),
    outcome("d", "xfailed", "known"),
    outcome("e", "xpassed", "remove"),
]


def test_the_table_counts_by_level_and_layout():
    row = next(line for line in summary(HELLO, OUTCOMES).splitlines() if line.startswith("L0 pack gemm"))
    assert row.split()[3:] == ["1", "1", "1", "1", "1"]
    assert "The first level with a failure is L0" in summary(HELLO, OUTCOMES)
    assert "first level" not in summary(HELLO, OUTCOMES[:1])


def test_failures_name_the_case_and_what_it_catches():
    assert failures(OUTCOMES).splitlines() == [
        'FAILED L0/pack/b [Basic]: expected 1, got "2" \x00',
        "XPASSED L0/pack/e [Basic]: remove",
    ]


def test_the_stories_of_failed_cases_are_told():
    assert stories(OUTCOMES).splitlines()[1].startswith("  Basic: The plain case")
    assert stories(OUTCOMES[:1]) == ""


def test_junit_is_xml_that_counts():
    suite = ElementTree.fromstring(REPORTS["junit"](HELLO, OUTCOMES))
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped")} == {
        "tests": "5",
        "failures": "2",
        "skipped": "2",
    }
    assert [case.get("name") for case in suite if case.find("failure") is not None] == [
        "L0/pack/b",
        "L0/pack/e",
    ]


def test_tap_numbers_every_case():
    lines = REPORTS["tap"](HELLO, OUTCOMES).splitlines()
    assert lines[:3] == ["TAP version 13", "1..5", "ok 1 - L0/pack/a"]
    assert lines[3] == "not ok 2 - L0/pack/b"
    assert "ok 3 - L0/pack/c # SKIP unsupported" in lines
    assert "not ok 4 - L0/pack/d # TODO known to fail" in lines


def test_json_and_html():
    record = json.loads(REPORTS["json"](HELLO, OUTCOMES))
    assert record["counts"]["failed"] == 1
    assert record["cases"][1]["message"].startswith("expected 1")
    page = REPORTS["html"](HELLO, OUTCOMES)
    assert "mine &lt;1&gt; 2" in page
    assert "<b>L0/pack/b</b>" in page
    assert np.all([status in page for status in ("passed", "unsupported")])
