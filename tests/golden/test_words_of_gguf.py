"""Bytes of GGUF's blocks, worked by hand from ggml's structs: a float16 d (and m), then the codes."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.errors import FormatError
from awq_ref.pack import pack_linear, unpack_linear, why_not
from awq_ref.quantize import dequantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec

UP = np.arange(32, dtype=np.uint8)[None] % 16  # 0 to 15, twice: byte e is e + 16 e
NIBBLES = "00112233445566778899aabbccddeeff"
SYMMETRIC = QuantSpec(group_size=32, symmetric=True)


def linear_of(codes, scale, zero, spec, offset=None):
    scales = np.full((len(codes), codes.shape[1] // 32), scale, dtype=np.float16)
    zeros = np.full(scales.shape, zero, dtype=np.uint8)
    return QuantizedLinear(
        codes, scales, zeros, spec, offset=None if offset is None else np.full_like(scales, offset)
    )


def bytes_of(linear, name):
    return pack_linear(linear, name)["weight"].tobytes().hex()


def test_q4_0():
    """1.0 is 0x3c00, -0.5 is 0xb800; the low byte stands first."""
    assert bytes_of(linear_of(UP, 1.0, 8, SYMMETRIC), "q4_0") == "003c" + NIBBLES
    assert bytes_of(linear_of(UP, -0.5, 8, SYMMETRIC), "q4_0") == "00b8" + NIBBLES
    codes = np.array([[3] * 16 + [12] * 16], dtype=np.uint8)
    assert bytes_of(linear_of(codes, 1.0, 8, SYMMETRIC), "q4_0") == "003c" + "c3" * 16


def test_q4_1():
    """M = -z d = -7 * 0.5 = -3.5 is 0xc300; of z = 0 it is +0."""
    spec = QuantSpec(group_size=32)
    assert bytes_of(linear_of(UP, 0.5, 7, spec), "q4_1") == "003800c3" + NIBBLES
    assert bytes_of(linear_of(UP, 0.5, 0, spec), "q4_1") == "00380000" + NIBBLES
    assert bytes_of(linear_of(UP, 0.5, 0, spec, offset=2.0), "q4_1") == "00380040" + NIBBLES


def test_q8_0():
    """The codes 128, 129, 0 and 255 are the int8 0, 1, -128 and 127."""
    spec = QuantSpec(bits=8, group_size=32, symmetric=True)
    codes = np.array([[128, 129, 0, 255] * 8], dtype=np.uint8)
    assert bytes_of(linear_of(codes, 2.0, 128, spec), "q8_0") == "0040" + "0001807f" * 8


def test_a_larger_group_repeats_its_scale():
    codes = np.tile(UP, 2)
    spec = QuantSpec(group_size=64, symmetric=True)
    linear = QuantizedLinear(
        codes, np.ones((1, 1), dtype=np.float16), np.full((1, 1), 8, dtype=np.uint8), spec
    )
    assert bytes_of(linear, "q4_0") == 2 * ("003c" + NIBBLES)


def test_blocks_are_read():
    weight = np.frombuffer(bytes.fromhex("003800c3" + NIBBLES), dtype=np.uint8)[None]
    linear = unpack_linear({"weight": weight}, QuantSpec(group_size=32), "q4_1")
    assert_same_bits(linear.int_weight, UP)
    assert_same_bits(dequantize_linear(linear), 0.5 * UP.astype(np.float32) - np.float32(3.5))


@pytest.mark.parametrize(
    "name, group_size, scale_dtype, reason",
    [
        ("q4_0", 48, "float16", "q4_0 has blocks of 32 weights, which groups of 48 are no multiple of"),
        ("q4_1", 16, "float16", "q4_1 has blocks of 32 weights, which groups of 16"),
        ("q4_0", 32, "float32", "q4_0 stores scales in float16, not float32"),
    ],
)
def test_reasons(name, group_size, scale_dtype, reason):
    spec = QuantSpec(group_size=group_size, symmetric=name == "q4_0", scale_dtype=scale_dtype)
    assert reason in why_not(name, 4, 192, spec)


def test_asymmetric_linears_are_not_q4_0():
    assert "stores no zero points" in why_not("q4_0", 4, 64, QuantSpec(group_size=32))


@pytest.mark.parametrize(
    "damage, spec, message",
    [
        (lambda a: a[:, :-1], SYMMETRIC, "rows of weight must be whole blocks of 18 bytes; got 35 bytes"),
        (lambda a: a.view(np.int8), SYMMETRIC, r"weight must be uint8 of shape \(any, any\)"),
        (lambda a: a | np.uint8(0x7F), SYMMETRIC, "scale must be finite; got nan"),
        (lambda a: a, QuantSpec(group_size=16, symmetric=True), "has blocks of 32 weights"),
        (lambda a: a, QuantSpec(group_size=64, symmetric=True), "the 2 blocks of a group must have the same"),
        (lambda a: a, QuantSpec(group_size=32, symmetric=True, scale_dtype="float32"), "scales are float16"),
    ],
)
def test_damage_is_named(damage, spec, message):
    scales = np.array([[1.0, 2.0]], dtype=np.float16)
    linear = QuantizedLinear(np.tile(UP, 2), scales, np.full((1, 2), 8, dtype=np.uint8), SYMMETRIC)
    weight = np.ascontiguousarray(damage(pack_linear(linear, "q4_0")["weight"]))
    with pytest.raises(FormatError, match=f"q4_0: .*{message}"):
        unpack_linear({"weight": weight}, spec, "q4_0")
