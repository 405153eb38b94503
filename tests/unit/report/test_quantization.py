"""The report of a quantization: what is saved comes back."""

import dataclasses

import numpy as np
import pytest

from awq_ref.errors import FormatError
from awq_ref.report.quantization import LayerReport, QuantizationReport
from awq_ref.search import SiteReport
from awq_ref.spec import QuantSpec


def a_report() -> QuantizationReport:
    site = SiteReport(
        site="mlp.down",
        linears=("mlp.down_proj",),
        alphas=(0.0, 0.5),
        losses=(4.0, 3.0),
        alpha=0.5,
        channel_scales=np.array([0.5, 2.0], dtype=np.float32),
        loss_rtn=4.0,
        loss_scaled=3.0,
        clips={"mlp.down_proj": np.array([[0.25], [1.5]], dtype=np.float32)},
        loss_clipped=2.0,
    )
    unclipped = dataclasses.replace(site, site="self_attn.qkv", clips={}, loss_rtn=0.0)
    fed_back = dataclasses.replace(site, loss_rounded=1.5, damping=0.01)
    layers = (LayerReport(0, (site, unclipped)), LayerReport(10, (fed_back,)))
    spec = QuantSpec(bits=3, group_size=64)
    return QuantizationReport("awq", spec, "pack-quantized", {"windows": 4}, layers, 3.25, 1.5)


def assert_same(first: object, second: object) -> None:
    if isinstance(first, np.ndarray):
        assert isinstance(second, np.ndarray)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif dataclasses.is_dataclass(first):
        assert type(first) is type(second)
        for item in dataclasses.fields(first):
            assert_same(getattr(first, item.name), getattr(second, item.name))
    elif isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, tuple):
        assert isinstance(second, tuple)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def test_save_and_load_give_the_same_report(tmp_path):
    report = a_report()
    report.save(tmp_path / "report.safetensors")
    assert_same(QuantizationReport.load(tmp_path / "report.safetensors"), report)
    assert [path.name for path in tmp_path.iterdir()] == ["report.safetensors"]


def test_a_report_without_sites_survives_too(tmp_path):
    report = dataclasses.replace(a_report(), layers=(LayerReport(0, ()),), recipe="rtn")
    report.save(tmp_path / "r")
    assert_same(QuantizationReport.load(tmp_path / "r"), report)


def test_the_table_has_a_row_per_site_with_ratios():
    lines = a_report().table().splitlines()
    assert len(lines) == 2 + 3
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "0 mlp.down",
        "0.50",
        "4.000e+00",
        "0.750",
        "0.500",
        "-",
    ]
    assert lines[4].split("|")[6].strip() == "0.375"
    assert lines[3].split("|")[4].strip() == "-"


@pytest.mark.parametrize("contents", [b"", b"not a report", b"\x02\0\0\0\0\0\0\0{}"])
def test_something_else_is_refused(tmp_path, contents):
    (tmp_path / "r").write_bytes(contents)
    with pytest.raises(FormatError, match=r"QuantizationReport\.load"):
        QuantizationReport.load(tmp_path / "r")
    with pytest.raises(FormatError, match="must be a saved report"):
        QuantizationReport.load(tmp_path / "absent")
