"""What every experiment must have: options that exist, a page, rows that can be saved, shown and drawn."""

import json
from dataclasses import fields

import pytest
from helpers.source import ROOT

from awq_ref import __version__
from awq_ref.errors import RangeError
from awq_ref.paper.experiment import Options
from awq_ref.paper.output import draw
from awq_ref.paper.registry import EXPERIMENTS, list_experiments, run_experiment

QUICK = [
    name for name in EXPERIMENTS if set(EXPERIMENTS[name].takes) <= {item.name for item in fields(Options)}
]
TIMED = {"quantize_seconds"}  # what may differ from run to run


def timeless(rows):
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RangeError, match=r"'example', 'salient'.*got 'sailent'"):
        run_experiment("sailent")


def test_the_list_names_every_experiment_and_its_command():
    listing = list_experiments()
    for name in EXPERIMENTS:
        assert f"| {name} " in listing
        assert f"awq-ref paper {name}" in listing


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_an_experiment_takes_are_options(name):
    assert set(EXPERIMENTS[name].takes) <= {item.name for item in fields(Options)}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_its_page(name):
    page = (ROOT / "docs" / "paper" / f"{name}.md").read_text(encoding="utf-8")
    assert f"<!-- result: {name}" in page
    assert "<!-- /result -->" in page
    assert f"({name}.md)" in (ROOT / "docs" / "paper" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", QUICK)
def test_a_result_can_be_saved_shown_and_drawn(name, changes_for, few_variants, tmp_path):
    pytest.importorskip("matplotlib")
    result = run_experiment(name, **changes_for(name))
    assert result.rows
    assert json.loads(json.dumps(result.setup))["version"] == __version__
    rows = json.loads(json.dumps(result.rows, allow_nan=False))
    assert rows == result.rows  # nothing is lost on the way: no tuples, no arrays
    table = EXPERIMENTS[name].table(rows)
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) <= 2
    draw(EXPERIMENTS[name], rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [name for name in QUICK if "samples" in EXPERIMENTS[name].takes])
def test_the_same_options_give_the_same_rows(name, changes_for, few_variants):
    first, second = (run_experiment(name, **changes_for(name)) for _ in range(2))
    assert timeless(first.rows) == timeless(second.rows)


def test_the_setup_says_how_to_repeat_it(changes_for, tiny):
    setup = run_experiment("scale-sweep", **changes_for("scale-sweep")).setup
    assert setup["command"].startswith(f"awq-ref paper scale-sweep --model {tiny} --bits 3 --group-size 32")
    assert setup["options"]["samples"] == 3
    assert setup["model"]["name"] == "tiny"
    assert len(setup["model"]["sha256"]) == 64
    assert setup["calibration"]["calibration"]["windows"] == 3
    assert setup["evaluation"]["tokens"] == 96
    assert {"numpy", "python", "seconds"} <= setup.keys()
