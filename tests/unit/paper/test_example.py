"""The example of the paper's section 3.2, by hand."""

import pytest

from awq_ref.paper.example import error_of
from awq_ref.paper.registry import run_experiment


def test_the_two_rows_are_those_of_the_paper():
    plain, scaled = run_experiment("example").rows
    # 0.24 / 0.1 = 2.4 -> 2 -> 0.2;  0.48 / 0.1 = 4.8 -> 5 -> 0.5 / 2 = 0.25
    assert (plain["code"], scaled["code"]) == (2, 5)
    assert [plain["restored"], scaled["restored"]] == pytest.approx([0.2, 0.25], abs=1e-15)
    assert [plain["error"], scaled["error"]] == pytest.approx([0.04, 0.01], abs=1e-15)


@pytest.mark.parametrize("scale", [1.0, 1.25, 2.0, 4.0])
@pytest.mark.parametrize("weight", [-0.37, 0.05, 0.24, 1.0])
def test_the_error_is_within_its_bound(weight, scale):
    row = error_of(weight, delta=0.1, scale=scale)
    assert row["error"] <= row["bound"] * (1 + 1e-12)
