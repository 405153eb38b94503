"""How much calibration text, and of which kind."""

import numpy as np
import pytest

from awq_ref.errors import UnsupportedError
from awq_ref.paper import calibration_shift, calibration_size
from awq_ref.paper.calibration_shift import bare_code, documentation
from awq_ref.paper.experiment import select
from awq_ref.paper.registry import run_experiment

SOURCE = '''"""Module words."""
# a comment
class A:
    """Class words."""

    def f(self):
        """Method words."""
        return "kept"  # another


def g():
    """Only words."""
'''


def test_sizes_double_up_to_the_largest():
    assert calibration_size.sizes(192) == [1, 2, 4, 8, 16, 32, 64, 128, 192]
    assert calibration_size.sizes(8) == [1, 2, 4, 8]
    assert calibration_size.sizes(1) == [1]


def test_growing_statistics_are_those_of_all_windows_so_far(tiny_bench):
    windows = tiny_bench.windows(0)
    for found in calibration_size.growing(tiny_bench, windows, name="x"):
        whole = tiny_bench.calibrate(found.windows).statistics
        for name, entry in whole.sites.items():
            part = found.statistics.sites[name]
            assert part.count == entry.count == found.windows.size
            np.testing.assert_allclose(part.abs_sum, entry.abs_sum, rtol=1e-5)
            np.testing.assert_allclose(part.gram_sum, entry.gram_sum, rtol=1e-4, atol=1e-4)
    assert tiny_bench.setup()["calibration"]["x"]["windows"] == 3


def test_calibration_size_has_a_row_per_size_and_seed(changes_for):
    changes = changes_for("calibration-size", recipes=("awq",), seeds=2)
    rows = run_experiment("calibration-size", **changes).rows
    assert [(row["seed"], row["windows"], row["tokens"]) for row in rows[1:]] == [
        (seed, n, 32 * n) for seed in (0, 1) for n in (1, 2, 3)
    ]


def test_a_recipe_that_judges_on_tokens_is_refused(changes_for):
    with pytest.raises(UnsupportedError, match="llm-awq judges on tokens"):
        run_experiment("calibration-size", **changes_for("calibration-size", recipes=("llm-awq",)))


def test_documentation_is_the_docstrings():
    assert set(documentation(SOURCE).split("\n\n")) == {
        "Module words.",
        "Class words.",
        "Method words.",
        "Only words.",
    }


def test_bare_code_has_neither_docstrings_nor_comments():
    assert bare_code(SOURCE).split() == ("class A: def f(self): return 'kept' def g(): pass".split())


def test_calibration_and_evaluation_take_their_own_files(changes_for, monkeypatch):
    asked = []
    inner = calibration_shift.stdlib_texts

    def recorded(split):
        asked.append(split)
        return inner(split)

    monkeypatch.setattr(calibration_shift, "stdlib_texts", recorded)
    result = run_experiment("calibration-shift", **changes_for("calibration-shift", recipes=("rtn", "awq")))
    assert sorted(asked) == ["calibration"] * 2 + ["validation"] * 2
    assert len(select(result.rows, recipe="awq")) == 4
    # what uses no calibration does not care which it was
    rtn = {
        (row["calibrated_on"], row["evaluated_on"]): row["perplexity"]
        for row in select(result.rows, recipe="rtn")
    }
    assert rtn["code", "code"] == rtn["documentation", "code"]
    assert rtn["code", "documentation"] == rtn["documentation", "documentation"]
