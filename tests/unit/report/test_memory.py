"""Bytes from shapes: numbers worked out by hand."""

import pytest

from awq_ref.errors import RangeError, ShapeError
from awq_ref.report.memory import (
    bits_per_weight,
    cached_columns,
    kv_cache_bytes,
    linear_bytes,
    linear_parts,
    weight_bytes,
)
from awq_ref.spec import QuantSpec


@pytest.mark.parametrize(
    "spec, expected",
    [
        (QuantSpec(bits=4, group_size=128), 4 + 20 / 128),
        (QuantSpec(bits=3, group_size=64), 3 + 19 / 64),
        (QuantSpec(bits=2, group_size=32), 2 + 18 / 32),
        (QuantSpec(bits=8, group_size=-1), 8 + 24 / 256),
        (QuantSpec(bits=4, group_size=128, symmetric=True), 4 + 16 / 128),
        (QuantSpec(bits=4, group_size=128, scale_dtype="float32"), 4 + 36 / 128),
    ],
)
def test_bits_per_weight_counts_scales_and_zero_points(spec, expected):
    assert bits_per_weight(spec, 256) == expected


def test_zero_points_that_a_layout_stores_all_the_same():
    assert bits_per_weight(QuantSpec(symmetric=True), 256, zero_point_bits=4) == 4.15625


@pytest.mark.parametrize(
    "bits, residency, expected",
    [
        # 8 x 256 weights in 16 groups: float32 scale, uint8 zero point, their float32 product: 144 bytes
        (4, "packed", 1024 + 144),
        (3, "packed", 768 + 144),
        (4, "codes", 2048 + 144),
        (2, "codes", 2048 + 144),
        (4, "dense", 8192),
    ],
)
def test_bytes_of_one_linear(bits, residency, expected):
    assert linear_bytes(8, 256, spec=QuantSpec(bits=bits), residency=residency) == expected


def test_bytes_of_all_linears():
    found = weight_bytes(iter([(8, 256), (8, 256)]), spec=QuantSpec())
    assert list(found.items()) == [("packed", 2336), ("codes", 4384), ("dense", 16384)]


def test_bytes_of_the_cache():
    sizes = {"n_layers": 6, "n_kv_heads": 4, "head_dim": 32, "capacity": 512}
    assert kv_cache_bytes(**sizes) == 3_145_728  # 2 * 6 * 4 * 32 * 512 * 4
    assert kv_cache_bytes(**sizes, batch=3, itemsize=2) == 4_718_592


def test_bytes_of_the_cache_with_windows():
    sizes = {"n_layers": 3, "n_kv_heads": 4, "head_dim": 32, "capacity": 512, "windows": (100, 0, 1000)}
    assert kv_cache_bytes(**sizes) == 1024 * (100 + 512 + 512)  # 2 * 4 * 32 * 4 = 1024 for a column
    assert kv_cache_bytes(**sizes, page=64) == 1024 * (163 + 512 + 512)
    assert cached_columns(n_layers=3, capacity=50, windows=(100, 0, 1000)) == 150
    assert cached_columns(n_layers=3, capacity=50) == 150


def test_groups_that_do_not_fit():
    with pytest.raises(ShapeError, match="bits_per_weight: group_size must divide in_features"):
        bits_per_weight(QuantSpec(), 100)
    with pytest.raises(ShapeError, match="linear_parts: group_size must divide in_features"):
        linear_bytes(8, 100, spec=QuantSpec(), residency="packed")
    with pytest.raises(ShapeError, match="group_size must divide in_features"):
        weight_bytes([(8, 100)], spec=QuantSpec())


def test_an_unknown_residency():
    with pytest.raises(RangeError, match="residency must be one of 'packed', 'codes', 'dense'; got 'disk'"):
        linear_bytes(8, 128, spec=QuantSpec(), residency="disk")


def test_a_negative_size():
    with pytest.raises(RangeError, match="capacity must lie in"):
        kv_cache_bytes(n_layers=1, n_kv_heads=1, head_dim=1, capacity=-1)


def test_parts_of_one_linear():
    # 8 x 256 weights in 16 groups
    spec = QuantSpec(bits=3)
    assert linear_parts(8, 256, spec=spec, residency="packed") == {
        "codes": 768,
        "scales": 16 * 4,
        "zero_points": 16 * (1 + 4),
    }
    with_offsets = linear_parts(8, 256, spec=spec, residency="codes", offset=True)
    assert with_offsets == {"codes": 2048, "scales": 16 * 4, "zero_points": 16 * (1 + 4 + 4)}
    assert linear_parts(8, 256, spec=spec, residency="dense") == {
        "codes": 8192,
        "scales": 0,
        "zero_points": 0,
    }
