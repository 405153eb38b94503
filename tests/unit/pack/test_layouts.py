"""The table of layouts: names, shapes and dtypes of tensors, reasons, and what a damaged file is told."""

from dataclasses import replace

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
KERNEL = QuantSpec(bits=4, group_size=64)
MARLIN = QuantSpec(bits=4, group_size=128, symmetric=True)
ENGINE = QuantSpec(bits=4, group_size=32, symmetric=True, scale_dtype="float32")
BLOCKS = QuantSpec(bits=4, group_size=64, symmetric=True)
BYTES = QuantSpec(bits=8, group_size=64, symmetric=True)
# layout: a spec that it holds, and in_features; gptq fills words of 32 bits with outputs too
FITTING = {
    "gemm": (SPEC, 12), "gemv": (KERNEL, 128), "gemv_fast": (KERNEL, 128), "llm-awq": (KERNEL, 128),
    "gptq": (SPEC, 16), "gptq_v2": (SPEC, 16), "pack-quantized": (SPEC, 12), "mlx": (KERNEL, 128),
    "llm-awq-v1": (KERNEL, 128), "marlin": (MARLIN, 256), "qm_cuda": (MARLIN, 256), "matmulnbits": (KERNEL, 128),
    "qm_arm": (ENGINE, 96), "qm_x86": (ENGINE, 128), "qm_metal": (ENGINE, 96),
    "q4_0": (BLOCKS, 128), "q4_1": (KERNEL, 128), "q8_0": (BYTES, 128),
}  # fmt: skip
STORES_ZEROS = ("gemm", "gemv", "gptq", "gptq_v2", "pack-quantized")


def linear_of(spec: QuantSpec, out_features: int = OUT, in_features: int = IN) -> QuantizedLinear:
    rng = np.random.default_rng(7)
    codes = rng.integers(0, spec.qmax + 1, (out_features, in_features), dtype=np.uint8)
    shape = (out_features, in_features // spec.group_size)
    zeros = rng.integers(0, spec.qmax + 1, shape, dtype=np.uint8)
    if spec.symmetric:
        zeros[:] = spec.symmetric_zero_point
    scales = rng.uniform(0.5, 2, zeros.shape).astype(spec.scale_dtype)
    return QuantizedLinear(codes, scales, zeros, spec, np.ones(out_features, dtype=np.float32))


def fitting(layout: str, **changes) -> QuantizedLinear:
    """A linear that a layout holds."""
    spec, in_features = FITTING[layout]
    out_features = 64 if layout == "marlin" else OUT
    return linear_of(replace(spec, **changes), out_features, in_features)


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


@pytest.mark.parametrize("layout", ["qm_arm", "qm_x86", "qm_metal", "qm_cuda"])
def test_a_scale_may_be_negative(layout):
    linear = fitting(layout)
    signed = replace(linear, scales=-linear.scales)
    back = unpack_linear(pack_linear(signed, layout), signed.spec, layout)
    assert (back.scales < 0).all()
    assert_same_bits(back.scales, signed.scales)


def test_bits_that_a_layout_does_not_have_are_an_error():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    with pytest.raises(FormatError, match="gemm must have 4 bits; got 3"):
        unpack_linear(tensors, THREE, "gemm")


def test_float32_scales_are_read_where_the_spec_says_so():
    tensors = pack_linear(linear_of(SPEC), "gemm")
    tensors["scales"] = tensors["scales"].astype(np.float32)
    linear = unpack_linear(tensors, QuantSpec(group_size=4, scale_dtype="float32"), "gemm")
    assert_same_bits(linear.scales, tensors["scales"].T)
