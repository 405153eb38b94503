"""Options, rows and tables of an experiment."""

from pathlib import Path

import pytest

from awq_ref.errors import RangeError
from awq_ref.paper.experiment import Column, Experiment, Options, changes_of, columns, select, spread


def nothing(*_):
    return [], {}


TAKING = Experiment(
    name="some",
    title="title",
    run=nothing,
    table=columns(Column("a", "a")),
    plot=nothing,
    takes=("model", "outliers", "bits", "recipes", "seeds"),
    defaults=Options(bits=(4, 3), seeds=3),
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": (3, 5)}, "bits"),
        ({"group_size": (0,)}, "group_size"),
        ({"seeds": 0}, "seeds"),
        ({"samples": 0}, "samples"),
        ({"seq_len": 0}, "seq_len"),
        ({"tokens": 1}, "tokens"),
        ({"outliers": 0.5}, "outliers"),
        ({"recipes": ("rtn", "awk")}, "awk"),
    ],
)
def test_an_option_out_of_range_is_refused(changes, message):
    with pytest.raises(RangeError, match=message):
        Options(**changes)


def test_one_group_per_row_is_a_group_size():
    assert Options(group_size=(-1,)).group_size == (-1,)


def test_changes_are_put_on_the_defaults():
    options = TAKING.options(seeds=1)
    assert (options.bits, options.seeds) == ((4, 3), 1)


def test_an_option_that_is_not_taken_is_refused():
    with pytest.raises(
        RangeError, match=r"takes --model, --outliers, --bits, --recipes, --seeds; got --tokens"
    ):
        TAKING.options(tokens=5)


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "awq-ref paper some --bits 4 3 --seeds 3"),
        (
            {"model": Path("m"), "outliers": 8.0, "recipes": ("rtn",)},
            "awq-ref paper some --model m --outliers 8 --bits 4 3 --recipes rtn --seeds 3",
        ),
    ],
)
def test_the_command_repeats_the_options(changes, command):
    assert TAKING.command(TAKING.options(**changes)) == command


def test_arguments_become_changes():
    assert changes_of({"bits": [4, 2], "seeds": 2, "plot": None}) == {"bits": (4, 2), "seeds": 2}


def test_a_missing_value_is_a_dash():
    table = columns(Column("name", "name"), Column("x", "x", ".1f"))(
        [{"name": "a", "x": 1.25}, {"name": "b"}]
    )
    assert table.splitlines()[2:] == ["| a    | 1.2 |", "| b    |   - |"]


def test_select_takes_the_rows_that_have_all_values():
    rows = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"b": 2}]
    assert select(rows, a=1, b=2) == [{"a": 1, "b": 2}]


def test_spread_is_the_deviation_of_a_sample():
    assert spread([2.0, 4.0], ".3f") == "3.000 ± 1.414"  # sqrt(((2 - 3)^2 + (4 - 3)^2) / 1)
