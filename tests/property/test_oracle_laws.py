"""The fast paths against the oracles of the golden vectors, on any words and any weights."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from awq_ref.errors import RangeError
from awq_ref.pack import LAYOUTS, pack_linear, unpack_linear
from awq_ref.quantize import dequantize_linear, quantize_linear
from awq_ref.spec import QuantSpec
from awq_ref.vectors.addresses import PLACES, WIDTHS
from awq_ref.vectors.cases_bits import OWN_SHAPES, random_words
from awq_ref.vectors.draws import Draws
from awq_ref.vectors.linears import Shape, draw_linear, tensor_inputs
from awq_ref.vectors.oracle_bits import pack, unpack
from awq_ref.vectors.oracle_quantize import Rule, choose_grid, quantize, weight_of
from awq_ref.vectors.rounding import OutOfFormatError


@st.composite
def stored(draw):
    """A layout, and its tensors with random bits in every word."""
    layout = draw(st.sampled_from(sorted(PLACES)))
    bits = draw(st.sampled_from(LAYOUTS[layout].bits))
    outputs = 32 if bits == 3 else draw(st.sampled_from([8, 16, 24]))
    outputs += outputs % 16 if bits == 2 and layout.startswith("gptq") else 0
    shape = Shape(
        outputs, 64, bits, draw(st.sampled_from([32, 64])), offset=PLACES[layout].offset is not None
    )
    shape = OWN_SHAPES.get(layout, shape)
    draws = Draws(draw(st.text(max_size=4)))
    linear = draw_linear(draws, shape)
    tensors = pack(linear, layout)
    for name, (dtype, rows) in tensors.items():
        if dtype in WIDTHS and (not shape.symmetric or name == PLACES[layout].weight[0]):
            tensors[name] = (dtype, random_words(draws, dtype, rows))
    return layout, shape, tensors


@given(stored())
@settings(max_examples=25)
def test_any_words_mean_what_the_oracle_says_and_come_back(drawn):
    layout, shape, tensors = drawn
    spec = QuantSpec(shape.bits, shape.group_size, shape.symmetric, scale_dtype=shape.scale_dtype)
    linear = unpack_linear(tensor_inputs(tensors), spec, layout)
    sizes = {"outputs": shape.outputs, "inputs": shape.inputs, "bits": shape.bits}
    wanted = unpack(tensors, layout, **sizes, group_size=shape.group_size, symmetric=shape.symmetric)
    np.testing.assert_array_equal(linear.int_weight, wanted.codes)
    if wanted.zeros is not None:
        np.testing.assert_array_equal(linear.zero_point, wanted.zeros)
    again = pack_linear(linear, layout)
    stored_again = tensor_inputs(pack(wanted, layout))
    for name, array in stored_again.items():
        np.testing.assert_array_equal(again[name], array)
        if name in PLACES[layout].weight or layout in ("gptq", "gptq_v2", "gemm", "mlx", "marlin"):
            np.testing.assert_array_equal(array, tensor_inputs(tensors)[name])  # no bit is lost


RULES = st.builds(
    Rule,
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([1, 4, -1]),
    symmetric=st.booleans(),
    range_rule=st.sampled_from(["zero", "minmax"]),
    scale_dtype=st.sampled_from(["float16", "float32"]),
)
# Multiples of a power of 2 give ties, the others everything else.
WEIGHTS = st.one_of(
    st.integers(-40, 40).map(lambda n: n / 16),
    st.floats(-(2.0**20), 2.0**20, width=32),
    st.floats(-(2.0**-16), 2.0**-16, width=32),
)


@given(RULES, st.lists(st.lists(WEIGHTS, min_size=8, max_size=8), min_size=1, max_size=2))
@settings(max_examples=150)
def test_any_weight_is_quantized_as_the_oracle_does(rule, weight):
    spec = QuantSpec(rule.bits, rule.group_size, rule.symmetric, rule.range_rule, rule.scale_dtype)
    array = np.array(weight, dtype=np.float32)
    try:
        scales, zeros = choose_grid(weight, rule)
    except OutOfFormatError:
        try:
            quantize_linear(array, spec=spec)
        except RangeError:
            return
        raise AssertionError("the oracle refuses this weight") from None
    linear = quantize_linear(array, spec=spec)
    np.testing.assert_array_equal(linear.scales, scales)
    np.testing.assert_array_equal(linear.zero_point, zeros)
    codes = quantize(weight, scales, zeros, rule)
    np.testing.assert_array_equal(linear.int_weight, codes)


@given(st.sampled_from([2, 3, 4, 8]), st.booleans(), st.text(max_size=4))
@settings(max_examples=20)
def test_any_linear_is_dequantized_as_the_oracle_does(bits, index, seed):
    drawn = draw_linear(Draws(seed), Shape(2, 32, bits, 8, index=index))
    tensors = tensor_inputs(pack(drawn, "pack-quantized"))
    weight = dequantize_linear(unpack_linear(tensors, QuantSpec(bits, 8), "pack-quantized"))
    wanted = [[float(weight_of(drawn, o, i)[0]) for i in range(32)] for o in range(2)]
    np.testing.assert_array_equal(weight, wanted)  # exact in float32: 9 bits times 11
