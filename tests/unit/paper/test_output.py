"""Figures and JSON files."""

import json
import sys
from pathlib import Path

import pytest

from awq_ref.errors import OutputError, RangeError, UnsupportedError
from awq_ref.paper import output
from awq_ref.paper.experiment import Result
from awq_ref.paper.registry import EXPERIMENTS, run_experiment


def test_a_result_is_written_as_json(tmp_path):
    output.save_json(Result("some", [{"a": 1}], {"version": "0"}), tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == {
        "experiment": "some",
        "setup": {"version": "0"},
        "rows": [{"a": 1}],
    }


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figures_are_drawn(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"figure{suffix}"
    output.draw(EXPERIMENTS["example"], run_experiment("example").rows, path)
    assert path.stat().st_size > 1000


def test_the_same_rows_give_the_same_figure(tmp_path):
    pytest.importorskip("matplotlib")
    rows = run_experiment("example").rows
    for name in ("a.png", "b.png"):
        output.draw(EXPERIMENTS["example"], rows, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"awq-ref\[plot\]"):
        output.require_output(Path("figure.png"), None)


def test_without_a_figure_matplotlib_is_not_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # an import of it would fail
    output.require_output(None, Path("r.json"))
    assert run_experiment("example").rows


def test_a_figure_of_another_kind_is_refused():
    with pytest.raises(RangeError, match=r"'\.png', '\.svg', '\.pdf'; got '\.gif'"):
        output.require_output(Path("figure.gif"), None)


def test_a_missing_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(OutputError, match="its folder must exist"):
        output.require_output(None, tmp_path / "none" / "r.json")
