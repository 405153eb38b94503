"""Code of other projects, run as backends, confirms the golden vectors: the table of PROVENANCE.md."""

import importlib
import re

import numpy as np
import pytest
import torch
from helpers.source import ROOT
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


def marlin_is_where_the_page_says(group_size):
    """The functions of docs/layouts_of_others.md against AutoAWQ's own packer."""
    importlib.import_module("parity.witnesses.autoawq_witness")  # makes its modules importable
    theirs = importlib.import_module("awq.modules.linear.marlin")
    page = (ROOT / "docs" / "layouts_of_others.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[:3]:
        exec(block, names)
    outputs, inputs = 128, 256
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (outputs, inputs)).astype(np.uint8)
    scales = torch.from_numpy(
        rng.uniform(0.01, 0.02, (outputs, inputs // group_size)).astype(np.float16)
    ).float()
    linear = torch.nn.Linear(inputs, outputs, bias=False)
    linear.weight.data = (torch.from_numpy(codes).float() - 8) * scales.repeat_interleave(group_size, dim=1)
    packed = theirs.WQLinear_Marlin.from_linear(linear, 4, group_size, scales=scales, zeros=None)
    np.testing.assert_array_equal(packed.qweight.numpy().view(np.uint32), names["marlin"](codes))
    by_group = scales.numpy().T  # (n_groups, outputs)
    if group_size < inputs:
        wanted = by_group.reshape(-1, 8, 8).transpose(0, 2, 1)
    else:
        order = [2 * i + k for i in range(4) for k in (0, 1, 8, 9, 16, 17, 24, 25)]
        wanted = by_group.reshape(-1, 32)[:, order]
    np.testing.assert_array_equal(packed.scales.float().numpy(), wanted.reshape(by_group.shape))


if "autoawq" in importable():  # with `make witnesses`; a skip in this folder is a failure

    @pytest.mark.parametrize("group_size", [128, 256])
    def test_marlin_is_where_the_page_says(group_size):
        marlin_is_where_the_page_says(group_size)
