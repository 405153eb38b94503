"""The loss curves of the alpha search."""

import pytest

from awq_ref.paper.registry import run_experiment


def test_what_is_chosen_has_the_least_loss_and_is_not_above_round_to_nearest(changes_for):
    rows = run_experiment("alpha", **changes_for("alpha")).rows
    sites = {(row["layer"], row["site"]) for row in rows}
    assert len(sites) == 2 * 4
    for layer, site in sites:
        curve = [row for row in rows if (row["layer"], row["site"]) == (layer, site)]
        (chosen,) = [row for row in curve if row["chosen"]]
        assert chosen["loss"] == min(row["loss"] for row in curve)
        assert chosen["relative"] <= 1.0
        assert curve[0]["alpha"] == 0.0
        assert curve[0]["relative"] == pytest.approx(1.0)
        assert curve[-1]["alpha"] == 1.0
