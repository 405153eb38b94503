"""`awq-ref bench` on a tiny checkpoint: processes of its own, the JSON, what is refused. No time is judged."""

import json

import pytest
from helpers.command_line import assert_refused, run

from awq_ref.bench import run as bench

LIMITS = {
    "read_bandwidth": 1e10, "sgemm_flops": 1e11, "sgemv_flops": 5e9, "interpreter": 5 * 10**7, "linear": "8 x 8",
    "passes": {
        "mask": 1e-11, "cast": 1e-10, "gemv": 5e-11, "dense": 5e-11, "weight_bytes": 0.52, "bandwidth": {"1": 1e10},
    },
    "whole": [{"threads": 1, "packed_ns": 0.3, "dense_ns": 0.4}],
}  # fmt: skip


@pytest.fixture
def small_limits(monkeypatch):
    """The machine's limits are given: measuring them takes longer than all else, and half a gigabyte."""
    start = bench._in_a_process
    monkeypatch.setattr(
        bench, "_in_a_process", lambda given, n: LIMITS if "limits" in given else start(given, n)
    )


def test_a_tiny_model(capsys, small_limits, model, tmp_path):
    path = tmp_path / "found.json"
    options = ("--model", model, "--prompt", 12, "--new", 4, "--threads", 1, "--json", path)
    code, _ = run(capsys, "bench", *options, "--residency", "packed", "dense")
    assert code == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [row["residency"] for row in found["runs"]] == ["packed", "dense"]
    for row in found["runs"]:
        parts = dict(row["bytes_per_token"])
        assert parts.pop("total") == sum(parts.values())
        watched = row["watched"]
        everything = sum(operation["seconds"] for operation in watched["operations"])
        assert everything == pytest.approx(sum(watched["layers"]) + watched["outside"])
        assert sum(operation["share"] for operation in watched["operations"]) == pytest.approx(1.0)
        assert everything <= watched["seconds"]
        assert row["memory"]["weights"] > 0
    packed, dense = (row["bytes_per_token"]["linears"] for row in found["runs"])
    assert packed < dense / 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shape", "gpt-5"), ("--shape", "llama-7b")),
        (("--threads", 0), ("--threads",)),
        (("--shape", "qwen2.5-0.5b", "--new", 1), ("--new",)),
        (("--model", "nowhere/at/all"), ("nowhere",)),
        (("--json", "no/such/folder/found.json"), ("folder must exist",)),
        (("--plot", "roof.doc"), (".png",)),
    ],
)
def test_what_cannot_be_measured(capsys, options, words):
    assert_refused(run(capsys, "bench", *options), *words)
