"""Laws of packing: P-PACK, P-INPUT, and readers that share no code with the package."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen
from helpers.scalar_oracles_pack import read_code, read_gemm, read_pack_quantized
from helpers.strategies import quantized_linears, specs
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
from awq_ref.spec import QuantizedLinear

GEMM_LINEARS = quantized_linears(spec=specs(bits=(4,), scale_dtype=("float16",)))
# 33 outputs of 3 bits are 99: the column of zero points needs four words, and its codes straddle them
ANY_LINEARS = quantized_linears(spec=specs(group_size=(4, 8, 12, -1)), out_features=(1, 5, 8, 33))
LINEARS = {"gemm": GEMM_LINEARS, "pack-quantized": ANY_LINEARS}


def test_every_layout_is_under_the_laws():
    assert set(LINEARS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_unpack_undoes_pack(layout, data):
    """P-PACK: unpack_linear(pack_linear(linear)) has the bits of linear, for every layout that can hold it."""
    linear = data.draw(LINEARS[layout])
    back = unpack_linear(pack_linear(linear, layout), linear.spec, layout)
    assert back.spec == linear.spec
    for name in ("int_weight", "scales", "zero_point"):
        assert_same_bits(getattr(back, name), getattr(linear, name))


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
    parts = (frozen(array) for array in (linear.int_weight, linear.scales, linear.zero_point))
    tensors = pack_linear(QuantizedLinear(*parts, linear.spec), layout)
    back = unpack_linear({name: frozen(array) for name, array in tensors.items()}, linear.spec, layout)
    assert back.int_weight.flags.writeable
    assert back.scales.flags.writeable
