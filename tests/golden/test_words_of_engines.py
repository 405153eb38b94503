"""Words of the layouts that no checkpoint folder holds, as literals, against the package and against the oracle.

They are worked out from the published packers: AutoAWQ's marlin, TinyChatEngine's quantize_methods.py, the description
of onnxruntime's MatMulNBits. TinyChatEngine's rule for the codes themselves is written out here.
"""

import numpy as np
import pytest

from awq_ref.pack import pack_linear, unpack_linear
from awq_ref.spec import QuantizedLinear, QuantSpec
from awq_ref.vectors.oracle_bits import Linear, pack

ENGINE = QuantSpec(group_size=32, symmetric=True, scale_dtype="float32")
SIXTEEN = list(range(16))


def both(codes, layout, spec, zeros=None, scales=None):
    """The tensors of a linear that the package packs, after the oracle was seen to give the same."""
    codes = np.array(codes, dtype=np.uint8)
    groups = 1 if spec.group_size == -1 else codes.shape[1] // spec.group_size
    zeros = (
        np.full((len(codes), groups), 8, dtype=np.uint8) if zeros is None else np.array(zeros, dtype=np.uint8)
    )
    scales = np.ones(zeros.shape, dtype=spec.scale_dtype) if scales is None else scales
    linear = QuantizedLinear(codes, scales, zeros, spec)
    tensors = pack_linear(linear, layout)
    nested = Linear(
        codes.tolist(), scales.tolist(), zeros.tolist(), None, spec.bits, spec.group_size, spec.scale_dtype,
        symmetric=spec.symmetric,
    )  # fmt: skip
    for name, (dtype, rows) in pack(nested, layout).items():
        np.testing.assert_array_equal(tensors[name], np.array(rows, dtype=dtype))
    np.testing.assert_array_equal(unpack_linear(tensors, spec, layout).int_weight, codes)
    return tensors


def words(array):
    return [f"{word:08x}" for word in array.view(np.uint32).ravel()]


def engine_codes():
    """One block by TinyChatEngine's rule: d = v / -8 for the largest v, floor(clip(w / d + 8.5, 0, 15))."""
    x = np.linspace(-1, 1, 32)
    x[5] = -1.6
    d = x[np.argmax(np.abs(x))] / -8
    assert d == 0.2
    return np.floor(np.clip(x / d + 8.5, 0, 15)).astype(np.uint8)


def test_the_engines_rule_gives_code_0_to_the_largest_weight_whatever_its_sign():
    assert "".join(f"{q:x}" for q in engine_codes()) == "334440556667778888999aaabbbcccdd"
    assert engine_codes()[5] == 0
    w = np.array([2, -1, 0.5, 0])
    d = 2 / -8
    codes = np.floor(np.clip(w / d + 8.5, 0, 15))
    assert codes.tolist() == [0, 12, 6, 8]
    assert ((codes - 8) * d).tolist() == w.tolist()  # with the negative scale


@pytest.mark.parametrize(
    "layout, expected",
    [
        ("qm_arm", "83839494 94a0a5a5 b6b6b6c7 c7c7d8d8"),
        ("qm_metal", "43035454 76768687 98a8a9a9 cbcbdbdc"),
    ],
)
def test_bytes_of_a_block(layout, expected):
    tensors = both(engine_codes()[None], layout, ENGINE)
    assert tensors["weight_int4"].tobytes().hex() == expected.replace(" ", "")
    assert tensors["zero_point_int4"].tolist() == [8.0]


def test_bytes_of_two_blocks_on_x86():
    tensors = both(np.concatenate([engine_codes(), SIXTEEN, SIXTEEN])[None], "qm_x86", ENGINE)
    assert tensors["weight_int4"][0, :8].tobytes().hex() == "0313243444506575"


def test_words_on_cuda():
    spec = QuantSpec(group_size=128, symmetric=True)
    tensors = both(
        np.tile(engine_codes(), 4)[None], "qm_cuda", spec, scales=np.array([[-0.5]], dtype=np.float16)
    )
    assert words(tensors["weight_int4"])[:4] == ["55044433", "88777666", "aaa99988", "ddcccbbb"]
    assert words(tensors["zero_point_int4"]) == ["88888888"]  # behind the only group too
    assert tensors["scaling_factor_int4"].tolist() == [[-0.5] + [0.0] * 7]


def test_llm_awq_v1_is_in_sequence():
    codes = [[0, 1, 2, 3, 4, 5, 6, 7] * 16, [15, 14, 13, 12, 11, 10, 9, 8] * 16] * 4
    tensors = both(codes, "llm-awq-v1", QuantSpec(group_size=128), zeros=[[5]] * 8)
    assert words(tensors["qweight"][:2])[::16] == ["76543210", "89abcdef"]
    assert words(tensors["qzeros"])[0] == "00000005"


# The first 16 of the 1024 places that AutoAWQ's permutation takes, four tiles of 16 x 16 one after the other
MARLIN_PLACES = [0, 128, 8, 136, 16, 144, 24, 152, 256, 384, 264, 392, 272, 400, 280, 408]


def test_marlin_takes_its_places():
    codes = np.zeros((64, 16), dtype=np.uint8)
    for code, place in enumerate(MARLIN_PLACES):
        tile, row, column = place // 256, place % 256 // 16, place % 16
        codes[16 * tile + column, row] = code
    tensors = both(codes, "marlin", QuantSpec(group_size=-1, symmetric=True))
    assert words(tensors["qweight"]) == ["76543210", "fedcba98"] + ["00000000"] * 126


@pytest.mark.parametrize(
    "group_size, first",
    [(128, [0, 8, 16, 24, 32, 40, 48, 56, 1, 9]), (-1, [0, 1, 8, 9, 16, 17, 24, 25, 2, 3])],
)
def test_marlins_scales(group_size, first):
    groups = 2 if group_size == 128 else 1
    scales = np.repeat(np.arange(64, dtype=np.float16)[:, None], groups, axis=1)
    spec = QuantSpec(group_size=group_size, symmetric=True)
    tensors = both(np.zeros((64, 256)), "marlin", spec, scales=scales)
    assert tensors["scales"][0, :10].tolist() == first


def test_bytes_of_matmulnbits():
    codes = [SIXTEEN * 3, SIXTEEN[::-1] * 3]
    tensors = both(codes, "matmulnbits", QuantSpec(group_size=16), zeros=[[1, 2, 3], [15, 0, 8]])
    assert tensors["B"].shape == (2, 3, 8)
    assert tensors["B"][:, 0].tobytes().hex() == "1032547698badcfe" + "efcdab8967452301"
    assert tensors["zero_points"].tobytes().hex() == "2103" + "0f08"  # each output begins a new byte


def test_bytes_of_matmulnbits_at_two_bits():
    tensors = both([[0, 1, 2, 3] * 4], "matmulnbits", QuantSpec(bits=2, group_size=16), zeros=[[2]])
    assert tensors["B"].tobytes().hex() == "e4e4e4e4"
    assert tensors["zero_points"].tolist() == [[2]]
