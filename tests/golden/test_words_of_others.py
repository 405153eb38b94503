"""Words that other projects' packers wrote, as literals, and what they stand for.

gemv and gemv_fast: autoawq 0.2.9, WQLinear_GEMV.from_linear and WQLinear_GEMVFast.from_linear. gptq: auto-gptq 0.7.1,
qlinear_cuda_old.QuantLinear.pack; gptq_v2, and the borrow of a zero point 0: the conversion of GPTQModel 7.7.0, a 1 in
every field added to or subtracted from whole words. mlx: mlx 0.32.4, mlx.core.quantize of weights on an exact grid. Run
on a CPU, once; nothing of them is needed here.
"""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.pack import pack_linear, unpack_linear
from awq_ref.quantize import dequantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec


def int32(words) -> np.ndarray:
    return np.array(words, dtype=np.uint32).view(np.int32)


# --- AutoAWQ's matrix-vector layouts: 8 outputs, 64 inputs, groups of 32 ---------------------------------------------

CODES = np.zeros((8, 64), dtype=np.uint8)
CODES[0] = np.arange(64) % 16
CODES[1, 0], CODES[2, 8], CODES[3, 63], CODES[4, 33], CODES[7, 7] = 1, 2, 15, 9, 5
CODES[5] = 15
ZEROS = np.array([[1, 15]] + [[7, 8]] * 7, dtype=np.uint8)
SCALES = np.array([[0.1, 0.25]] * 8, dtype=np.float16)
GROUPS_OF_32 = QuantSpec(bits=4, group_size=32)
LINEAR = QuantizedLinear(CODES, SCALES, ZEROS, GROUPS_OF_32)

GEMV_ROWS = [
    [0x76543210, 0xFEDCBA98] * 4,
    [0x1, 0, 0, 0, 0, 0, 0, 0],
    [0, 0x2, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0xF0000000],
    [0, 0, 0, 0, 0x90, 0, 0, 0],
    [0xFFFFFFFF] * 8,
    [0] * 8,
    [0x50000000, 0, 0, 0, 0, 0, 0, 0],
]
ASCENDING = [0x8080, 0x9191, 0xA2A2, 0xB3B3, 0xC4C4, 0xD5D5, 0xE6E6, 0xF7F7]
FAST_ROWS = [
    [*ASCENDING, *ASCENDING, 1, *[0] * 15, 0x20, *[0] * 30, 0xF000],
    [*[0] * 9, 0x9, *[0] * 6, *[0xFFFF] * 16, *[0] * 23, 0x5, *[0] * 8],
]


def test_gemv_words():
    tensors = pack_linear(LINEAR, "gemv")
    assert_same_bits(tensors["qweight"], int32(GEMV_ROWS))
    assert_same_bits(tensors["qzeros"], int32([[0xF1, 0, 0, 0]] + [[0x87, 0, 0, 0]] * 7))
    padded = np.zeros((8, 32), dtype=np.float16)
    padded[:, :2] = SCALES
    assert_same_bits(tensors["scales"], padded)
    assert_same_bits(unpack_linear(tensors, GROUPS_OF_32, "gemv").int_weight, CODES)


@pytest.mark.parametrize(
    "in_features, group_size, words",
    [
        (4096, 128, 4), (11008, 128, 11), (896, 128, 1), (4864, 128, 5),
        (4096, 64, 8), (11008, 64, 22), (2560, 32, 12),
    ],
)  # fmt: skip
def test_gemv_pads_groups_as_autoawq_does(in_features, group_size, words):
    shape = (8, in_features // group_size)
    linear = QuantizedLinear(
        np.zeros((8, in_features), dtype=np.uint8),
        np.ones(shape, dtype=np.float16),
        np.zeros(shape, dtype=np.uint8),
        QuantSpec(group_size=group_size),
    )
    tensors = pack_linear(linear, "gemv")
    assert (tensors["qzeros"].shape, tensors["scales"].shape) == ((8, words), (8, 8 * words))


@pytest.mark.parametrize("layout, zeros", [("gemv_fast", "qzeros"), ("llm-awq", "scaled_zeros")])
def test_gemv_fast_words(layout, zeros):
    tensors = pack_linear(LINEAR, layout)
    assert_same_bits(tensors["qweight"], np.array(FAST_ROWS, dtype=np.uint16).view(np.int16))
    padded = np.zeros((32, 8), dtype=np.float16)
    padded[:2] = SCALES.T
    assert_same_bits(tensors["scales"], padded)
    # 0.1 in float16 is 1638 * 2**-14; times 7 it is 11466 * 2**-14, rounded to 11 bits 11464
    products = np.zeros((32, 8), dtype=np.float16)
    products[0] = [-1638 * 2.0**-14] + [-11464 * 2.0**-14] * 7
    products[1] = [-3.75] + [-2.0] * 7
    assert_same_bits(tensors[zeros], products)
    assert products[:2, :2].view(np.int16).tolist() == [
        [-20890, -18023],
        [-15488, -16384],
    ]  # as printed there


def test_the_stored_product_is_what_is_read():
    linear = unpack_linear(pack_linear(LINEAR, "gemv_fast"), GROUPS_OF_32, "gemv_fast")
    assert not linear.zero_point.any()
    weight = dequantize_linear(linear)
    # row 1, group 0: codes 1 and 0; (0 - 7) * 0.1 would be -11466 * 2**-14
    assert_same_bits(weight[1, :2], [(1638 - 11464) * 2.0**-14, -11464 * 2.0**-14], dtype=np.float32)
    assert dequantize_linear(LINEAR)[1, 1] == -11466 * 2.0**-14


# --- AutoGPTQ: codes (i + o) mod 2**bits, zero points o mod (2**bits - 1) + 1, 32 by 32 ------------------------------

# bits: the first two columns of qweight, and the only row of qzeros
GPTQ_WORDS = {
    2: ([0xE4E4E4E4] * 2, [0x39393939] * 2, [0x24924924, 0x49249249]),
    3: (
        [0x88FAC688, 0xC688FAC6, 0xFAC688FA],
        [0xD11F58D1, 0x58D11F58, 0x1F58D11F],
        [0xD11AC688, 0x6B1A2358, 0x688D6344],
    ),
    4: (
        [0x76543210, 0xFEDCBA98] * 2,
        [0x87654321, 0x0FEDCBA9] * 2,
        [0x76543210, 0x0EDCBA98, 0x87654321, 0x10EDCBA9],
    ),
    8: (
        [0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C, 0x13121110, 0x17161514, 0x1B1A1918, 0x1F1E1D1C],
        [0x04030201, 0x08070605, 0x0C0B0A09, 0x100F0E0D, 0x14131211, 0x18171615, 0x1C1B1A19, 0x201F1E1D],
        [0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C, 0x13121110, 0x17161514, 0x1B1A1918, 0x1F1E1D1C],
    ),
}  # fmt: skip


@pytest.mark.parametrize("bits", GPTQ_WORDS)
def test_gptq_words(bits):
    spec = QuantSpec(bits=bits, group_size=-1)
    outputs, inputs = np.arange(32)[:, None], np.arange(32)[None]
    codes = ((inputs + outputs) % 2**bits).astype(np.uint8)
    zeros = (outputs % (2**bits - 1) + 1).astype(np.uint8)
    linear = QuantizedLinear(codes, np.full((32, 1), 0.5, dtype=np.float16), zeros, spec)
    tensors = pack_linear(linear, "gptq")
    first, second, stored_zeros = GPTQ_WORDS[bits]
    assert_same_bits(tensors["qweight"][:, :2], int32([first, second]).T)
    assert_same_bits(tensors["qzeros"], int32([stored_zeros]))
    assert_same_bits(tensors["g_idx"], np.zeros(32, dtype=np.int32))
    back = unpack_linear(tensors, spec, "gptq")
    assert_same_bits(back.int_weight, codes)
    assert_same_bits(back.zero_point, zeros)


def zero_words(zeros, layout):
    codes = np.zeros((8, 8), dtype=np.uint8)
    zero_point = np.array(zeros, dtype=np.uint8)[:, None]
    linear = QuantizedLinear(codes, np.ones((8, 1), dtype=np.float16), zero_point, QuantSpec(group_size=-1))
    tensors = pack_linear(linear, layout)
    assert_same_bits(unpack_linear(tensors, linear.spec, layout).zero_point, zero_point)
    return hex(tensors["qzeros"].view(np.uint32)[0, 0])


@pytest.mark.parametrize(
    "zeros, first, second",
    [
        ([8] * 8, "0x77777777", "0x88888888"),
        ([0, 5, 0, 0, 0, 0, 0, 0], "0xeeeeef3f", "0x50"),  # each 0 borrows from the field above it
        ([0] * 8, "0xeeeeeeef", "0x0"),
    ],
)
def test_zero_points_of_gptq_v1_are_one_less(zeros, first, second):
    assert (zero_words(zeros, "gptq"), zero_words(zeros, "gptq_v2")) == (first, second)


# --- MLX: weights code / 4 - 2, so that the scale is 0.25 and the bias -2 --------------------------------------------

MLX_WORDS = {
    2: [0xE4E4E4E4, 0xE4E4E4E4],
    3: [0x88FAC688, 0xC688FAC6, 0xFAC688FA],
    4: [0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98],
}


@pytest.mark.parametrize("bits", MLX_WORDS)
def test_mlx_words(bits):
    spec = QuantSpec(bits=bits, group_size=32, scale_dtype="float32")
    codes = (np.arange(32, dtype=np.uint8) % 2**bits)[None]
    scales, biases = np.float32([[0.25]]), np.float32([[-2.0]])
    linear = QuantizedLinear(codes, scales, np.zeros((1, 1), dtype=np.uint8), spec, offset=biases)
    tensors = pack_linear(linear, "mlx")
    assert_same_bits(tensors["weight"], np.array([MLX_WORDS[bits]], dtype=np.uint32))
    assert_same_bits(tensors["biases"], biases)
    back = unpack_linear(tensors, spec, "mlx")
    assert_same_bits(dequantize_linear(back), codes.astype(np.float32) / 4 - 2)


def test_eight_bits_of_mlx_have_a_negative_scale_here():
    # weights (8 i + 7) / 4 - 2: the largest is the larger end, 61.75, so MLX counts down from it
    words = [0xE6EFF7FF, 0xC5CED6DE, 0xA5ADB5BD, 0x848C949C, 0x636B737B, 0x424A525A, 0x2129313A, 0x00081019]
    tensors = {
        "weight": np.array([words], dtype=np.uint32),
        "scales": np.float32([[-0.24311023950576782]]),
        "biases": np.float32([[61.75]]),
    }
    spec = QuantSpec(bits=8, group_size=32, scale_dtype="float32")
    weight = dequantize_linear(unpack_linear(tensors, spec, "mlx"))
    exact = (8 * np.arange(32)[None] + 7) / 4 - 2
    assert np.abs(weight - exact).max() <= 0.24311023950576782 / 2
