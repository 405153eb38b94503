"""What a damaged or misdescribed file of a layout is told: the tensor, what it must be, what it is."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.fitting_linears import (
    SPEC,
    THREE,
    fitting,
    linear_of,
)

from awq_ref.errors import FormatError
from awq_ref.pack import LAYOUTS, pack_linear, unpack_linear
from awq_ref.spec import QuantSpec

STORES_ZEROS = ("gemm", "gemv", "gptq", "gptq_v2", "pack-quantized")

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
    ("gemv", "qzeros", lambda a: a[:, :1], r"qzeros must be int32 of shape \(16, 2\)"),
    ("gemv", "scales", lambda a: a[:, :2], r"scales must be float16 of shape \(16, 16\)"),
    ("gemv", "qweight", lambda a: a[:, :3], "group_size must divide in_features; got group_size=64"),
    ("gemv_fast", "qweight", lambda a: a.astype(np.int32), r"qweight must be int16 of shape \(any, any\)"),
    ("gemv_fast", "qzeros", lambda a: a * np.float16(np.nan), "qzeros must be finite; got nan"),
    ("llm-awq", "scaled_zeros", lambda a: a[:2], r"scaled_zeros must be float16 of shape \(16, 16\)"),
    ("gptq", "qweight", lambda a: a[:, :-1], r"qweight must hold whole words of 4-bit codes; got \(2, 15\)"),
    ("gptq", "qzeros", lambda a: a[:-1], r"qzeros must be int32 of shape \(4, 2\)"),
    ("gptq", "g_idx", lambda a: a[:-1], r"g_idx must be int32 of shape \(16\)"),
    ("gptq_v2", "scales", lambda a: a * np.float16(np.nan), "scales must be finite"),
    ("mlx", "weight", lambda a: a.view(np.int32), r"weight must be uint32 of shape \(any, any\)"),
    ("mlx", "biases", lambda a: a[:, 1:], r"biases must be float16 of shape \(16, 2\)"),
    ("mlx", "biases", lambda a: a * np.float16(np.nan), "biases must be finite"),
    ("llm-awq-v1", "qzeros", lambda a: a[:, :1], r"qzeros must be int32 of shape \(16, 2\)"),
    ("marlin", "qweight", lambda a: a[:, :-2], "marlin needs a multiple of 64, not out_features=63"),
    ("marlin", "qweight", lambda a: a[:, 1:], "marlin needs a multiple of 64"),
    ("marlin", "scales", lambda a: a[:1], r"scales must be float16 of shape \(2, 64\)"),
    ("qm_arm", "weight_int4", lambda a: a.view(np.int8), r"weight_int4 must be uint8 of shape \(any, any\)"),
    ("qm_arm", "weight_int4", lambda a: a[:, 1:], "group_size must divide in_features"),
    ("qm_x86", "scaling_factor_int4", lambda a: a / np.float32(0), "scaling_factor_int4 must be finite"),
    ("qm_metal", "zero_point_int4", lambda a: a * 0, "zero_point_int4 must be 8; got 0.0"),
    ("qm_metal", "zero_point_int4", lambda a: a[:0], r"zero_point_int4 must be float32 of shape \(1\)"),
    (
        "qm_cuda",
        "zero_point_int4",
        lambda a: a * 0,
        "zero_point_int4 must be 8 everywhere in a symmetric file",
    ),
    (
        "qm_cuda",
        "scaling_factor_int4",
        lambda a: a[:, :2],
        r"scaling_factor_int4 must be float16 of shape \(16, 8\)",
    ),
    ("matmulnbits", "B", lambda a: a.reshape(16, -1), r"B must be uint8 of shape \(any, any, any\)"),
    ("matmulnbits", "B", lambda a: a.reshape(16, 4, -1), r"B must be uint8 of shape \(16, 2, 32\)"),
    ("matmulnbits", "zero_points", lambda a: a.T, r"zero_points must be uint8 of shape \(16, 1\)"),
]


@pytest.mark.parametrize("layout, name, damage, message", DAMAGE)
def test_a_damaged_tensor_is_named(layout, name, damage, message):
    linear = fitting(layout)
    tensors = pack_linear(linear, layout)
    with np.errstate(divide="ignore"):  # the damage itself
        tensors[name] = damage(tensors[name])
    with pytest.raises(FormatError, match=f"{layout}: {message}"):
        unpack_linear(tensors, linear.spec, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_and_unknown_tensors_are_named(layout):
    linear = fitting(layout)
    tensors = pack_linear(linear, layout)
    first = next(iter(tensors))
    tensors["weight_of_another"] = tensors.pop(first)
    with pytest.raises(FormatError, match=f"missing: {first}; unknown: weight_of_another"):
        unpack_linear(tensors, linear.spec, layout)


@pytest.mark.parametrize("layout", [name for name in STORES_ZEROS if name != "pack-quantized"])
def test_zero_points_in_a_symmetric_file_are_an_error(layout):
    linear = fitting(layout)
    with pytest.raises(FormatError, match="qzeros must be 8 everywhere in a symmetric file; got"):
        unpack_linear(pack_linear(linear, layout), replace(linear.spec, symmetric=True), layout)


@pytest.mark.parametrize("layout", ["gemv_fast", "llm-awq"])
def test_a_layout_of_offsets_is_never_symmetric(layout):
    linear = fitting(layout)
    with pytest.raises(FormatError, match="zero_point must be true"):
        unpack_linear(pack_linear(linear, layout), replace(linear.spec, symmetric=True), layout)


def test_groups_that_no_kernel_has_are_the_configurations_fault():
    tensors = pack_linear(fitting("gemv"), "gemv")
    with pytest.raises(FormatError, match="gemv has groups of 32, 64, and 128 or more, not of 16.*version"):
        unpack_linear(tensors, QuantSpec(group_size=16), "gemv")


@pytest.mark.parametrize("index", [[0] * 15 + [4], [-1] * 16])
def test_an_index_of_groups_that_are_not_there(index):
    tensors = pack_linear(fitting("gptq"), "gptq")
    tensors["g_idx"] = np.array(index, dtype=np.int32)
    with pytest.raises(FormatError, match="gptq: g_idx must hold groups from 0 to 3; got"):
        unpack_linear(tensors, SPEC, "gptq")


def test_groups_of_different_sizes_become_the_largest_size_that_fits_them_all():
    linear = fitting("gptq")
    tensors = pack_linear(linear, "gptq")
    tensors["g_idx"] = np.array([1] * 6 + [0] * 2 + [2] * 4 + [3] * 4, dtype=np.int32)
    back = unpack_linear(tensors, SPEC, "gptq")
    assert (back.spec.group_size, back.n_groups) == (2, 8)
    assert back.input_order.tolist() == [6, 7, 0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15]
    assert_same_bits(back.scales, linear.scales[:, [0, 1, 1, 1, 2, 2, 3, 3]])


@pytest.mark.parametrize("layout", [name for name, row in LAYOUTS.items() if row.symmetric_alone])
def test_what_stores_no_zero_points_is_read_as_symmetric_alone(layout):
    linear = fitting(layout)
    tensors = pack_linear(linear, layout)
    with pytest.raises(
        FormatError, match=f"{layout} stores no zero points; the spec must say symmetric=True"
    ):
        unpack_linear(tensors, replace(linear.spec, symmetric=False), layout)


def test_bits_that_a_layout_does_not_have_are_an_error():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    with pytest.raises(FormatError, match="gemm must have 4 bits; got 3"):
        unpack_linear(tensors, THREE, "gemm")


def test_float32_scales_are_read_where_the_spec_says_so():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    tensors["scales"] = tensors["scales"].astype(np.float32)
    linear = unpack_linear(tensors, QuantSpec(group_size=4, scale_dtype="float32"), "gemm")
    assert_same_bits(linear.scales, tensors["scales"].T)
