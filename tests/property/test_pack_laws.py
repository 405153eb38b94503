"""Laws of packing: P-PACK, P-INPUT, and readers that share no code with the package."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen
from helpers.scalar_oracles_pack import read_code, read_gemm, read_pack_quantized
from helpers.scalar_packers import PACKERS, dequantized, random_integers
from helpers.strategies import quantized_linears, specs, with_offsets, with_orders, with_signs
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.pack import (
    LAYOUTS,
    pack_bitstream,
    pack_linear,
    pack_nibbles,
    unpack_bitstream,
    unpack_linear,
    unpack_nibbles,
    words_for,
)
from awq_ref.quantize import dequantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec

GEMM_LINEARS = quantized_linears(spec=specs(bits=(4,), scale_dtype=("float16",)))
# 33 outputs of 3 bits are 99: the column of zero points needs four words, and its codes straddle them
ANY_LINEARS = quantized_linears(spec=specs(group_size=(4, 8, 12, -1)), out_features=(1, 5, 8, 33))
KERNEL_SPECS = specs(bits=(4,), group_size=(32, 64, 128), scale_dtype=("float16",), symmetric=(False,))
KERNEL_LINEARS = quantized_linears(spec=KERNEL_SPECS, max_groups=9)
OFFSET_LINEARS = with_offsets(KERNEL_LINEARS).filter(lambda linear: linear.in_features % 64 == 0)
GPTQ_LINEARS = quantized_linears(
    spec=specs(group_size=(32, 64, -1), scale_dtype=("float16",)), out_features=(32, 64)
)
MLX_LINEARS = quantized_linears(spec=specs(group_size=(32, 64, 128), symmetric=(False,)))
MARLIN_LINEARS = quantized_linears(
    spec=specs(bits=(4,), group_size=(128,), scale_dtype=("float16",), symmetric=(True,)),
    out_features=(64, 128),
)
QM_LINEARS = quantized_linears(
    spec=specs(bits=(4,), group_size=(32,), scale_dtype=("float32",), symmetric=(True,)), max_groups=6
)
QM_CUDA_LINEARS = quantized_linears(
    spec=specs(bits=(4,), group_size=(128,), scale_dtype=("float16",), symmetric=(True,)), max_groups=9
)
BLOCK_SPECS = {"group_size": (32, 64, 128, -1), "scale_dtype": ("float16",)}
BLOCK_LINEARS = {
    "q4_0": with_signs(quantized_linears(spec=specs(bits=(4,), symmetric=(True,), **BLOCK_SPECS))),
    "q4_1": with_offsets(quantized_linears(spec=specs(bits=(4,), symmetric=(False,), **BLOCK_SPECS))),
    "q8_0": with_signs(quantized_linears(spec=specs(bits=(8,), symmetric=(True,), **BLOCK_SPECS))),
}
LINEARS = {
    "gemm": GEMM_LINEARS,
    "gemv": KERNEL_LINEARS,
    "gemv_fast": OFFSET_LINEARS,
    "llm-awq": OFFSET_LINEARS,
    "gptq": st.one_of(GPTQ_LINEARS, with_orders(GPTQ_LINEARS, sorted_groups=True)),
    "gptq_v2": st.one_of(GPTQ_LINEARS, with_orders(GPTQ_LINEARS, sorted_groups=True)),
    "pack-quantized": st.one_of(ANY_LINEARS, with_orders(ANY_LINEARS, sorted_groups=True)),
    "mlx": with_offsets(MLX_LINEARS),
    "llm-awq-v1": KERNEL_LINEARS,
    "marlin": MARLIN_LINEARS,
    "qm_arm": with_signs(QM_LINEARS),
    "qm_x86": with_signs(QM_LINEARS).filter(lambda linear: linear.in_features % 64 == 0),
    "qm_metal": with_signs(QM_LINEARS),
    "qm_cuda": with_signs(QM_CUDA_LINEARS),
    "matmulnbits": quantized_linears(spec=specs(bits=(2, 4, 8), group_size=(16, 64)), out_features=(1, 5)),
    **BLOCK_LINEARS,
}
FIELDS = ("int_weight", "scales", "zero_point", "offset", "input_order")


def test_every_layout_is_under_the_laws():
    assert set(LINEARS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_unpack_undoes_pack(layout, data):
    """P-PACK: unpack_linear(pack_linear(linear)) has the bits of linear, for every layout that can hold it."""
    linear = data.draw(LINEARS[layout])
    back = unpack_linear(pack_linear(linear, layout), linear.spec, layout)
    assert back.spec == linear.spec
    for name in FIELDS:
        ours, theirs = getattr(back, name), getattr(linear, name)
        assert (ours is None) == (theirs is None), name
        if theirs is not None:
            assert_same_bits(ours, theirs)


# bits, group_size, and inputs of which 64 are neither too few nor too many for a layout's kernel
SIZES = {
    "gptq": [(2, 32), (3, 32), (4, 24), (8, 48)], "gptq_v2": [(2, 32), (3, 64), (4, 128), (8, 24)],
    "pack-quantized": [(2, 16), (3, 32), (8, 4)], "mlx": [(2, 32), (3, 64), (4, 128), (8, 32)],
    "marlin": [(4, 128)], "qm_arm": [(4, 32)], "qm_x86": [(4, 32)], "qm_metal": [(4, 32)], "qm_cuda": [(4, 128)],
    "matmulnbits": [(2, 32), (4, 16), (8, 64)], "q8_0": [(8, 32), (8, 64)],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_what_an_independent_writer_stores_is_read(layout, data):
    """P-PACK: the layout's definition, code by code, from the other side."""
    bits, group_size = data.draw(st.sampled_from(SIZES.get(layout, [(4, 32), (4, 64), (4, 128)])))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scattered = bool(LAYOUTS[layout].optional) and data.draw(st.booleans())
    symmetric = LAYOUTS[layout].symmetric_alone or ("gptq" in layout and data.draw(st.booleans()))
    in_features = 64 * data.draw(st.integers(1, 3)) if group_size in (24, 48) else 3 * max(group_size, 64)
    out_features = 64 if layout == "marlin" else 32
    options = {"bits": bits, "group_size": group_size, "symmetric": symmetric, "scattered": scattered}
    stored = random_integers(rng, out_features, in_features, **options)
    scale_dtype = LAYOUTS[layout].scale_dtypes[0]
    stored = replace(stored, scales=stored.scales.astype(scale_dtype))
    spec = QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric, scale_dtype=scale_dtype)
    linear = unpack_linear(PACKERS[layout](stored), spec, layout)
    assert_same_bits(dequantize_linear(linear), dequantized(stored, layout))


def assert_reader_sees(linear: QuantizedLinear, read) -> None:
    codes, zeros, scales = read
    assert_same_bits(linear.int_weight, codes, dtype=np.uint8)
    assert_same_bits(linear.zero_point, zeros, dtype=np.uint8)
    assert_same_bits(linear.scales, scales, dtype=linear.spec.scale_dtype)


@given(GEMM_LINEARS)
def test_an_independent_reader_of_gemm_sees_the_same_integers(linear):
    """P-PACK: the layout's definition, nibble by nibble."""
    assert_reader_sees(linear, read_gemm(pack_linear(linear, "gemm")))


@given(ANY_LINEARS)
def test_an_independent_reader_of_pack_quantized_sees_the_same_integers(linear):
    """P-PACK: the layout's definition, bit by bit."""
    assert_reader_sees(linear, read_pack_quantized(pack_linear(linear, "pack-quantized"), linear.spec.bits))


@given(st.integers(1, 8), st.integers(0, 70), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_bit_stream_is_its_definition(bits, n_codes, rows, seed):
    """P-PACK: each code sits where the definition says, the rest is zero, and unpacking undoes it."""
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, n_codes), dtype=np.uint8)
    words = pack_bitstream(codes, bits=bits)
    assert words.shape == (rows, words_for(n_codes, bits))
    read = [[read_code(row, i, bits) for i in range(n_codes)] for row in words.tolist()]
    assert_same_bits(codes, np.array(read, dtype=np.uint8).reshape(codes.shape))
    used = [sum(code << (i * bits) for i, code in enumerate(row)) for row in codes.tolist()]
    for row, number in zip(words, used, strict=True):  # no bit beyond the codes
        assert int.from_bytes(row.astype("<i4").tobytes(), "little") == number
    assert_same_bits(unpack_bitstream(words, bits=bits, n_codes=n_codes), codes)


@given(st.permutations(range(8)), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_nibbles_come_back_in_any_order(order, n_words, seed):
    """P-PACK: for every order, not only the ones in use."""
    codes = np.random.default_rng(seed).integers(0, 16, (3, 8 * n_words), dtype=np.uint8)
    words = pack_nibbles(codes, order=tuple(order))
    assert_same_bits(unpack_nibbles(words, order=tuple(order)), codes)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_inputs_are_not_written_to(layout, data):
    """P-INPUT: every array may be read-only, on the way in and on the way out."""
    linear = data.draw(LINEARS[layout])
    arrays = {name: getattr(linear, name) for name in FIELDS}
    parts = {name: frozen(array) for name, array in arrays.items() if array is not None}
    tensors = pack_linear(replace(linear, **parts), layout)
    back = unpack_linear({name: frozen(array) for name, array in tensors.items()}, linear.spec, layout)
    assert back.int_weight.flags.writeable
    assert back.scales.flags.writeable
