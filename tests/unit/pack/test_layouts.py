"""The table of layouts: names, shapes and dtypes of tensors, reasons, and what a damaged file is told."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.errors import FormatError, RangeError, UnsupportedError
from awq_ref.pack import LAYOUTS, pack_linear, unpack_linear, why_not
from awq_ref.spec import QuantizedLinear, QuantSpec

OUT, IN = 16, 12
SPEC = QuantSpec(bits=4, group_size=4)
THREE = QuantSpec(bits=3, group_size=4)
SYMMETRIC = QuantSpec(bits=4, group_size=4, symmetric=True)


def linear_of(spec: QuantSpec, out_features: int = OUT) -> QuantizedLinear:
    rng = np.random.default_rng(7)
    codes = rng.integers(0, spec.qmax + 1, (out_features, IN), dtype=np.uint8)
    zeros = rng.integers(0, spec.qmax + 1, (out_features, IN // 4), dtype=np.uint8)
    if spec.symmetric:
        zeros[:] = spec.symmetric_zero_point
    scales = rng.uniform(0.5, 2, zeros.shape).astype(spec.scale_dtype)
    return QuantizedLinear(codes, scales, zeros, spec, np.ones(out_features, dtype=np.float32))


def forms(tensors) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (array.dtype.name, array.shape) for name, array in tensors.items()}


def test_the_tensors_of_gemm():
    assert forms(pack_linear(linear_of(SPEC), "gemm")) == {
        "qweight": ("int32", (12, 2)),
        "qzeros": ("int32", (3, 2)),
        "scales": ("float16", (3, 16)),
    }


def test_the_tensors_of_pack_quantized():
    assert forms(pack_linear(linear_of(THREE, 11), "pack-quantized")) == {
        "weight_packed": ("int32", (11, 2)),  # 36 bits
        "weight_scale": ("float16", (11, 3)),
        "weight_zero_point": ("int32", (2, 3)),  # 33 bits
        "weight_shape": ("int64", (2,)),
    }


def test_a_symmetric_linear_stores_no_zero_points_in_pack_quantized():
    tensors = pack_linear(linear_of(SYMMETRIC), "pack-quantized")
    assert list(tensors) == ["weight_packed", "weight_scale", "weight_shape"]
    assert (unpack_linear(tensors, SYMMETRIC, "pack-quantized").zero_point == 8).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spec", [SPEC, SYMMETRIC])
def test_the_names_are_those_that_the_layout_announces(layout, spec):
    assert tuple(pack_linear(linear_of(spec), layout)) == LAYOUTS[layout].tensor_names(spec)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_are_contiguous_and_own_their_data(layout):
    linear = linear_of(SPEC)
    for array in pack_linear(linear, layout).values():
        assert array.flags.c_contiguous
        assert not np.shares_memory(array, linear.scales)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bias_stays_outside(layout):
    assert unpack_linear(pack_linear(linear_of(SPEC), layout), SPEC, layout).bias is None


@pytest.mark.parametrize(
    "layout, out_features, in_features, spec, reason",
    [
        ("gemm", 16, 12, THREE, "gemm holds 4 bits, not 3"),
        ("gemm", 12, 12, SPEC, "gemm packs 8 outputs to a word, which does not divide out_features=12"),
        ("gemm", 16, 10, SPEC, "in_features=10 is no multiple of group_size=4"),
        ("gemm", 16, 12, QuantSpec(group_size=4, scale_dtype="float32"), "gemm stores scales in float16"),
        ("pack-quantized", 16, 10, SPEC, "in_features=10 is no multiple of group_size=4"),
    ],
)
def test_reasons(layout, out_features, in_features, spec, reason):
    assert reason in why_not(layout, out_features, in_features, spec)


@pytest.mark.parametrize("spec", [SPEC, SYMMETRIC, QuantSpec(group_size=-1)])
def test_no_reason(spec):
    assert why_not("gemm", 16, 12, spec) is None


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_pack_quantized_holds_what_gemm_cannot(bits):
    assert why_not("pack-quantized", 7, 12, QuantSpec(bits=bits, group_size=4, scale_dtype="float32")) is None


def test_an_unknown_layout_is_an_error():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    for call in (
        lambda: why_not("gemv", 8, 8, SPEC),
        lambda: pack_linear(linear_of(SPEC), "gemv"),
        lambda: unpack_linear(tensors, SPEC, "gemv"),
    ):
        with pytest.raises(RangeError, match="layout must be one of 'gemm', 'pack-quantized'; got 'gemv'"):
            call()


def test_packing_what_does_not_fit_is_an_error():
    with pytest.raises(UnsupportedError, match="gemm holds 4 bits, not 3.*Try another layout"):
        pack_linear(linear_of(THREE), "gemm")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packing_a_symmetric_linear_with_other_zero_points_is_an_error(layout):
    linear = linear_of(SYMMETRIC)
    linear.zero_point[3, 1] = 7
    with pytest.raises(FormatError, match="symmetric linear must have the zero point 8; got 7 to 8"):
        pack_linear(linear, layout)


# layout, tensor, how it is damaged, what is said
DAMAGE = [
    ("gemm", "qweight", lambda a: a.astype(np.int64), r"qweight must be int32 of shape \(any, any\)"),
    (
        "gemm",
        "qweight",
        lambda a: a[:-1],
        "group_size must divide in_features; got group_size=4, in_features=11",
    ),
    ("gemm", "qzeros", lambda a: a[:-1], r"qzeros must be int32 of shape \(3, 2\); got int32 \(2, 2\)"),
    (
        "gemm",
        "scales",
        lambda a: a.astype(np.float32),
        r"scales must be float16 of shape \(3, 16\); got float32",
    ),
    ("gemm", "scales", lambda a: a.T, r"scales must be float16 of shape \(3, 16\); got float16 \(16, 3\)"),
    ("gemm", "scales", lambda a: a * np.float16(np.nan), r"scales must be finite; got nan at index \(0, 0\)"),
    (
        "pack-quantized",
        "weight_packed",
        lambda a: a[:, 1:],
        r"weight_packed must be int32 of shape \(16, 2\)",
    ),
    (
        "pack-quantized",
        "weight_scale",
        lambda a: a[:, 1:],
        r"weight_scale must be float16 of shape \(16, 3\)",
    ),
    ("pack-quantized", "weight_scale", lambda a: a / np.float16(0), r"weight_scale must be finite; got inf"),
    (
        "pack-quantized",
        "weight_zero_point",
        lambda a: a.T,
        r"weight_zero_point must be int32 of shape \(2, 3\)",
    ),
    ("pack-quantized", "weight_shape", lambda a: a[:1], r"weight_shape must be int64 of shape \(2\)"),
    ("pack-quantized", "weight_shape", lambda a: a * 0, "weight_shape must be positive; got 0, 0"),
    ("pack-quantized", "weight_shape", lambda a: a - 1, "group_size must divide in_features"),
]


@pytest.mark.parametrize("layout, name, damage, message", DAMAGE)
def test_a_damaged_tensor_is_named(layout, name, damage, message):
    tensors = pack_linear(linear_of(SPEC), layout)
    with np.errstate(divide="ignore"):  # the damage itself
        tensors[name] = damage(tensors[name])
    with pytest.raises(FormatError, match=f"{layout}: {message}"):
        unpack_linear(tensors, SPEC, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_and_unknown_tensors_are_named(layout):
    tensors = pack_linear(linear_of(SPEC), layout)
    first = next(iter(tensors))
    tensors["weight_g_idx"] = tensors.pop(first)
    with pytest.raises(FormatError, match=f"missing: {first}; unknown: weight_g_idx"):
        unpack_linear(tensors, SPEC, layout)


def test_zero_points_in_a_symmetric_file_are_an_error():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    with pytest.raises(FormatError, match="qzeros must be 8 everywhere in a symmetric file; got"):
        unpack_linear(tensors, SYMMETRIC, "gemm")


def test_bits_that_a_layout_does_not_have_are_an_error():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    with pytest.raises(FormatError, match="gemm must have 4 bits; got 3"):
        unpack_linear(tensors, THREE, "gemm")


def test_float32_scales_are_read_where_the_spec_says_so():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    tensors["scales"] = tensors["scales"].astype(np.float32)
    linear = unpack_linear(tensors, QuantSpec(group_size=4, scale_dtype="float32"), "gemm")
    assert_same_bits(linear.scales, tensors["scales"].T)
