"""The table of layouts: names, shapes and dtypes of tensors, and the reasons of what it cannot hold."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.fitting_linears import (
    ENGINE,
    KERNEL,
    MARLIN,
    SPEC,
    SYMMETRIC,
    THREE,
    fitting,
    linear_of,
)

from awq_ref.errors import FormatError, RangeError, UnsupportedError
from awq_ref.pack import LAYOUTS, pack_linear, unpack_linear, why_not
from awq_ref.spec import QuantSpec


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
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_names_are_those_that_the_layout_announces(layout, symmetric):
    row = LAYOUTS[layout]
    linear = fitting(layout, symmetric=symmetric or row.symmetric_alone)
    written = set(pack_linear(linear, layout))
    assert set(row.tensor_names(linear.spec)) <= written
    assert written <= {*row.tensor_names(linear.spec), *row.optional}
    assert row.scales in written


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_are_contiguous_and_own_their_data(layout):
    linear = fitting(layout)
    for array in pack_linear(linear, layout).values():
        assert array.flags.c_contiguous
        assert not np.shares_memory(array, linear.scales)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bias_stays_outside(layout):
    linear = fitting(layout)
    assert unpack_linear(pack_linear(linear, layout), linear.spec, layout).bias is None


@pytest.mark.parametrize(
    "layout, out_features, in_features, spec, reason",
    [
        ("gemm", 16, 12, THREE, "gemm holds 4 bits, not 3"),
        ("gemm", 12, 12, SPEC, "gemm packs 8 outputs to a word, which does not divide out_features=12"),
        ("gemm", 16, 10, SPEC, "in_features=10 is no multiple of group_size=4"),
        ("gemm", 16, 12, QuantSpec(group_size=4, scale_dtype="float32"), "gemm stores scales in float16"),
        ("pack-quantized", 16, 10, SPEC, "in_features=10 is no multiple of group_size=4"),
        ("gemv", 16, 192, QuantSpec(group_size=96), "gemv has groups of 32, 64, and 128 or more, not of 96"),
        ("gemv", 12, 128, KERNEL, "gemv needs multiples of 8, not out_features=12"),
        ("gemv", 16, 128, replace(KERNEL, scale_dtype="float32"), "gemv stores scales in float16"),
        ("gemv_fast", 16, 96, QuantSpec(group_size=32), "gemv_fast packs 64 inputs together"),
        ("llm-awq", 16, 128, replace(KERNEL, scale_dtype="float32"), "llm-awq stores scales in float16"),
        ("gptq", 16, 12, SPEC, "gptq fills words of 32 bits, which in_features=12 codes of 4 bits do not"),
        ("gptq_v2", 12, 16, SPEC, "gptq_v2 fills words of 32 bits, which out_features=12 codes"),
        ("gptq", 16, 16, QuantSpec(group_size=4, scale_dtype="float32"), "gptq stores scales in float16"),
        ("mlx", 16, 12, SPEC, "mlx has groups of 32, 64, 128, not of 4"),
        ("llm-awq-v1", 16, 192, QuantSpec(group_size=96), "llm-awq-v1 has groups of 32, 64, and 128 or more"),
        ("marlin", 64, 128, QuantSpec(), "marlin stores no zero points: it holds symmetric linears alone"),
        (
            "marlin",
            64,
            128,
            replace(MARLIN, group_size=64),
            "marlin has groups of 128, or whole rows, not of 64",
        ),
        ("marlin", 32, 128, MARLIN, "marlin needs a multiple of 64, not out_features=32"),
        (
            "marlin",
            64,
            24,
            replace(MARLIN, group_size=-1),
            "marlin needs a multiple of 16, not in_features=24",
        ),
        ("qm_arm", 1, 32, replace(ENGINE, symmetric=False), "qm_arm stores no zero points"),
        ("qm_arm", 1, 32, replace(ENGINE, scale_dtype="float16"), "qm_arm stores scales in float32"),
        ("qm_metal", 1, 64, replace(ENGINE, group_size=64), "qm_metal has groups of 32, not of 64"),
        ("qm_x86", 2, 96, ENGINE, "qm_x86 packs 64 inputs together, which does not divide in_features=96"),
        ("qm_cuda", 8, 128, replace(MARLIN, group_size=64), "qm_cuda has groups of 128, not of 64"),
        ("qm_cuda", 8, 128, replace(MARLIN, scale_dtype="float32"), "qm_cuda stores scales in float16"),
        ("matmulnbits", 1, 12, SPEC, "matmulnbits has groups of a power of 2 from 16 on, not of 4"),
        ("matmulnbits", 1, 48, QuantSpec(group_size=48), "of a power of 2 from 16 on, not of 48"),
        ("matmulnbits", 1, 48, QuantSpec(group_size=-1), "of a power of 2 from 16 on, not of 48"),
        ("matmulnbits", 1, 32, QuantSpec(bits=3, group_size=32), "matmulnbits holds 2 or 4 or 8 bits, not 3"),
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
        lambda: why_not("bitblas", 8, 8, SPEC),
        lambda: pack_linear(linear_of(SPEC), "bitblas"),
        lambda: unpack_linear(tensors, SPEC, "bitblas"),
    ):
        with pytest.raises(RangeError, match="layout must be one of 'gemm', 'gemv', .*; got 'bitblas'"):
            call()


def test_packing_what_does_not_fit_is_an_error():
    with pytest.raises(UnsupportedError, match="gemm holds 4 bits, not 3.*Try another layout"):
        pack_linear(linear_of(THREE), "gemm")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packing_a_symmetric_linear_with_other_zero_points_is_an_error(layout):
    linear = fitting(layout, symmetric=True)
    linear.zero_point[3, 1] = 7
    with pytest.raises(FormatError, match=r"symmetric linear must have the zero point (8|128); got 7 to \1"):
        pack_linear(linear, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_layout_has_no_place_for_is_an_error(layout):
    plain = fitting(layout)
    offset = replace(plain, offset=plain.scales, zero_point=np.zeros_like(plain.zero_point))
    ordered = replace(plain, input_order=np.arange(plain.in_features)[::-1].copy())
    for field, linear in (("offset", offset), ("input_order", ordered)):
        if field in LAYOUTS[layout].holds:
            assert pack_linear(linear, layout)
            continue
        with pytest.raises(UnsupportedError, match=f"{layout} has no place for the {field}"):
            pack_linear(linear, layout)


def test_a_product_that_overflows_is_located():
    linear = fitting("gemv_fast")
    linear.scales[3, 1], linear.zero_point[3, 1] = 60000, 2
    with pytest.raises(RangeError, match="must fit into float16; got -120000.0 in row 3, group 1"):
        pack_linear(linear, "gemv_fast")


@pytest.mark.parametrize("layout", ["qm_arm", "qm_x86", "qm_metal", "qm_cuda"])
def test_a_scale_may_be_negative(layout):
    linear = fitting(layout)
    signed = replace(linear, scales=-linear.scales)
    back = unpack_linear(pack_linear(signed, layout), signed.spec, layout)
    assert (back.scales < 0).all()
    assert_same_bits(back.scales, signed.scales)
