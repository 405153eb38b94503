"""The figures of roofline and memory can be drawn from their rows (matplotlib is an extra)."""

import pytest

from awq_ref.paper import roofline
from awq_ref.paper.machine import Machine
from awq_ref.paper.output import draw
from awq_ref.paper.registry import experiment_named, run_experiment

pytest.importorskip("matplotlib")
PNG = b"\x89PNG"


def test_memory_of_one_and_of_many_models(tmp_path):
    for shapes in (("llama-2-7b",), ()):
        path = tmp_path / f"{len(shapes)}.png"
        draw(experiment_named("memory"), run_experiment("memory", shapes=shapes, bits=(3, 4)).rows, path)
        assert path.read_bytes().startswith(PNG)


def test_roofline(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure_machine", lambda: Machine(2e10, 5e10))
    monkeypatch.setattr(roofline, "median_seconds", lambda calls: [0.01] * len(calls))
    rows = run_experiment("roofline", shapes=("qwen2.5-0.5b", "tinyllama-1.1b"), contexts=(1, 1024)).rows
    draw(experiment_named("roofline"), rows, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(PNG)
