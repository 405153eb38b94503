"""Every recipe at every grid."""

import pytest

from awq_ref.paper.main_table import jobs
from awq_ref.paper.registry import EXPERIMENTS, run_experiment


def test_the_papers_recipes_and_best_are_measured_at_every_grid(options):
    todo = list(jobs(options(bits=(4, 3), group_size=(32, 16))))
    named = ("rtn", "gptq", "gptq-r", "awq", "awq+gptq", "best")
    assert todo == [(0, name, bits, size) for name in named for bits in (4, 3) for size in (32, 16)]


def test_what_uses_no_calibration_is_not_repeated(options):
    todo = list(jobs(options(seeds=3, recipes=("rtn", "awq"))))
    assert [(seed, recipe) for seed, recipe, _, _ in todo] == [(0, "rtn"), (0, "awq"), (1, "awq"), (2, "awq")]


def test_the_rows_say_what_was_measured(changes_for):
    result = run_experiment("main", **changes_for("main", bits=(4, 2), recipes=("rtn", "awq"), seeds=2))
    reference, *rows = result.rows
    assert (reference["recipe"], reference["bits"], reference["kl"]) == (
        "fp16",
        16,
        pytest.approx(0, abs=1e-12),
    )
    assert [(row["recipe"], row["bits"], row["seed"]) for row in rows] == [
        ("rtn", 4, 0),
        ("rtn", 2, 0),
        ("awq", 4, 0),
        ("awq", 2, 0),
        ("awq", 4, 1),
        ("awq", 2, 1),
    ]
    for row in rows:
        assert {"recipe", "bits", "group_size", "seed", "perplexity", "kl"} <= row.keys()
        assert row["kl"] > 0.0
        assert row["perplexity"] > 1.0
    assert rows[0]["kl"] < rows[1]["kl"]  # INT4 is nearer than INT2
    assert set(result.setup["calibration"]) == {"seed 0", "seed 1"}
    first, second = (result.setup["calibration"][name]["sha256"] for name in ("seed 0", "seed 1"))
    assert first != second


def test_the_table_has_mean_and_deviation_of_the_seeds():
    rows = [{"recipe": "fp16", "bits": 16, "group_size": None, "perplexity": 5.0, "kl": 0.0}] + [
        {"recipe": "awq", "bits": 3, "group_size": 128, "seed": seed, "perplexity": value, "kl": 0.25}
        for seed, value in enumerate((6.0, 8.0))
    ]
    assert EXPERIMENTS["main"].table(rows).splitlines() == [
        "| perplexity |     INT3 g128 |",
        "| :--------- | ------------: |",
        "| fp16       |         5.000 |",
        "| awq        | 7.000 ± 1.414 |",
        "",
        "| KL from FP16, nats per token |       INT3 g128 |",
        "| :--------------------------- | --------------: |",
        "| awq                          | 0.2500 ± 0.0000 |",
    ]
