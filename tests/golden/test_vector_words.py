"""Words worked out from other projects' formulas, as literals, against the oracle of level 0.

The words are those of docs/layouts.md: AutoAWQ's gemm, gemv and gemv_fast, GPTQ's v1 and v2, the dense 3-bit stream,
compressed-tensors. (Those packers themselves confirm the vectors: tests/parity/witnesses.)
"""

import pytest

from awq_ref.vectors.oracle_bits import Linear, pack, unpack

UP, DOWN = [0, 1, 2, 3, 4, 5, 6, 7], [15, 14, 13, 12, 11, 10, 9, 8]


def linear_of(codes, zeros, bits=4, group_size=-1):
    return Linear(codes, [[1.0] * len(zeros[0])] * len(codes), zeros, None, bits, group_size)


def hexadecimal(rows, digits=8):
    return [[f"{word % 16**digits:0{digits}x}" for word in row] for row in rows]


def turned(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def test_gemm():
    tensors = pack(linear_of(turned([UP, DOWN, [8] * 8]), [[8]] * 8), "gemm")
    assert hexadecimal(tensors["qweight"][1]) == [["75316420"], ["8ace9bdf"], ["88888888"]]
    assert hexadecimal(tensors["qzeros"][1]) == [["88888888"]]
    assert tensors["qweight"][1][1] == [-1966171169]


def test_gemv_is_in_sequence_and_padded():
    tensors = pack(linear_of([UP * 16, DOWN * 16] * 4, [[5]] * 8), "gemv")
    assert hexadecimal(tensors["qweight"][1][:2]) == [["76543210"] * 16, ["89abcdef"] * 16]
    assert hexadecimal(tensors["qzeros"][1][:1]) == [["00000005"]]
    assert tensors["scales"][1][0] == [1.0] + [0] * 7


def test_gemv_fast():
    codes = [[k % 16 for k in range(64)]] + [[0] * 64 for _ in range(3)]
    codes[1][0], codes[2][8], codes[3][63] = 1, 2, 15
    words = hexadecimal(pack(linear_of(codes, [[0]] * 4, group_size=64), "gemv_fast")["qweight"][1], 4)[0]
    first = ["8080", "9191", "a2a2", "b3b3", "c4c4", "d5d5", "e6e6", "f7f7"]
    assert words[:16] == first * 2
    assert {i: word for i, word in enumerate(words) if i >= 16 and word != "0000"} == {
        16: "0001",
        32: "0020",
        63: "f000",
    }


@pytest.mark.parametrize(
    "zeros, v2, v1", [([8] * 8, "88888888", "77777777"), ([0, 5, 0, 0, 0, 0, 0, 0], "00000050", "eeeeef3f")]
)
def test_gptq_zero_points_borrow(zeros, v2, v1):
    linear = linear_of([UP] * 8, [[z] for z in zeros])
    assert hexadecimal(pack(linear, "gptq_v2")["qzeros"][1]) == [[v2]]
    tensors = pack(linear, "gptq")
    assert hexadecimal(tensors["qzeros"][1]) == [[v1]]
    back = unpack(tensors, "gptq", outputs=8, inputs=8, bits=4, group_size=-1, symmetric=False)
    assert back.zeros == [[z] for z in zeros]


def test_three_bits_are_a_dense_stream():
    tensors = pack(linear_of([[k % 8 for k in range(32)]] * 32, [[0]] * 32, bits=3), "gptq_v2")
    assert [row[0] for row in hexadecimal(tensors["qweight"][1])] == ["88fac688", "c688fac6", "fac688fa"]


def test_pack_quantized_stores_signed_codes_plus_8():
    linear = linear_of([UP, [8, 9, 10, 11, 12, 13, 14, 15]], [[8], [8]])  # -8 to -1, and 0 to 7
    tensors = pack(linear, "pack-quantized")
    assert hexadecimal(tensors["weight_packed"][1]) == [["76543210"], ["fedcba98"]]
    assert hexadecimal(tensors["weight_zero_point"][1]) == [["00000088"]]
    assert tensors["weight_shape"] == ("int64", [2, 8])


def test_offsets_are_rounded_once():
    linear = Linear([[0] * 64] * 8, [[0.0999755859375]] * 8, [[7]] * 8, None, 4, 64)  # float16's 0.1
    assert pack(linear, "llm-awq")["scaled_zeros"][1][0][0] == -11464 * 2.0**-14
