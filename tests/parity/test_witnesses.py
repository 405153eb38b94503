"""Code of other projects, run as backends, confirms the golden vectors: the table of PROVENANCE.md."""

import pytest
from helpers.witnesses import importable, records, run_witness


@pytest.mark.filterwarnings("ignore")  # of the libraries' own
@pytest.mark.parametrize("name", importable())
def test_a_witness_confirms_what_the_table_says(name):
    record = run_witness(name)
    assert record["failed"] == {}
    kept = records()[name]
    assert record["passed"] == kept["passed"]
    assert record["known failures"] == kept["known failures"]


def test_the_parity_environment_has_two_of_them():
    assert {"compressed_tensors", "transformers"} <= set(importable())
