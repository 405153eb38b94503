"""Which linears of a block become parts of one, and that the model stays what it was."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits
from helpers.tiny_checkpoint import write_tiny_family
from helpers.tiny_families import FAMILY_CHANGES

import awq_ref
from awq_ref.matmul import DenseLinear
from awq_ref.model import Decoder, JoinedPart, ModelConfig, linears_of_one_input
from awq_ref.pipeline.load import read_block
from awq_ref.pipeline.operators import block_operators
from awq_ref.pipeline.reading import open_model
from awq_ref.pipeline.stored import open_quantization
from awq_ref.quantize import dequantize_linear, quantize_linear
from awq_ref.spec import QuantSpec

IDS = np.array([[5, 2, 9, 4, 1, 7, 3]])


def stored(rng, rows, **changes):
    linear = quantize_linear(rng.standard_normal((rows, 64), dtype=np.float32), spec=QuantSpec(group_size=32))
    return replace(linear, bias=rng.standard_normal(rows).astype(np.float32), **changes)


@pytest.mark.parametrize("residency", ["packed", "codes", "dense"])
def test_the_joined_integers_are_those_of_the_parts(rng, residency):
    linears = {name: stored(rng, rows) for name, rows in (("q", 8), ("k", 4), ("v", 4), ("o", 8))}
    made = block_operators(linears, [("q", "k", "v")], residency)
    assert list(made) == list(linears)
    assert not isinstance(made["o"], JoinedPart)
    whole = made["q"].whole
    assert [(made[n].whole is whole, made[n].residency) for n in "qkv"] == [(True, residency)] * 3
    if residency == "dense":
        assert_same_bits(whole.weight, np.concatenate([dequantize_linear(linears[n]) for n in "qkv"]))
    else:
        assert_same_bits(whole.int_weight(), np.concatenate([linears[n].int_weight for n in "qkv"]))
    assert_same_bits(whole.bias, np.concatenate([linears[n].bias for n in "qkv"]))


def test_what_shares_no_grid_stays_apart(rng):
    one = stored(rng, 4)
    other_spec = quantize_linear(
        rng.standard_normal((4, 64), dtype=np.float32), spec=QuantSpec(bits=8, group_size=32)
    )
    ordered = replace(one, input_order=np.arange(64, dtype=np.int64)[::-1].copy())
    floats = DenseLinear(rng.standard_normal((4, 64), dtype=np.float32), one.bias)
    for other in (replace(other_spec, bias=one.bias), ordered, floats, replace(one, bias=None)):
        made = block_operators({"a": one, "b": other}, [("a", "b")], "packed")
        assert not any(isinstance(linear, JoinedPart) for linear in made.values())


def test_dense_ones_go_together_whatever_they_were(rng):
    one = stored(rng, 4)
    ordered = replace(one, input_order=np.arange(64, dtype=np.int64)[::-1].copy())
    made = block_operators({"a": one, "b": ordered}, [("a", "b")], "dense")
    assert_same_bits(made["b"].weight, dequantize_linear(ordered))
    assert made["a"].whole is made["b"].whole


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("family", FAMILY_CHANGES)
def test_a_model_that_runs_is_the_one_whose_linears_are_apart(tmp_path, family, quantized):
    folder = tmp_path / "float"
    write_tiny_family(folder, family)
    if quantized:
        awq_ref.quantize_model(folder, tmp_path / "int4", recipe="rtn", group_size=-1, shown=False)
        folder = tmp_path / "int4"
    model = awq_ref.load_model(folder)
    checkpoint, config = open_model(folder)
    quantization = open_quantization(checkpoint)
    apart = [
        read_block(checkpoint, config, n, quantization=quantization) for n in range(config.num_hidden_layers)
    ]
    decoder = model.decoder
    names = [name for names in linears_of_one_input(config) for name in names]
    joined = [isinstance(decoder.blocks[0].linears[name], JoinedPart) for name in names]
    assert all(joined)
    assert not any(isinstance(linear, JoinedPart) for block in apart for linear in block.linears.values())
    other: Decoder = replace(decoder, blocks=apart)
    logits, expected = decoder.logits(IDS), other.logits(IDS)
    # The same weights; a sum of n <= 128 numbers, in another order, in each of a few layers: see P-CACHE's bound.
    assert_close(logits, expected, atol=1e-4 * float(np.abs(expected).max()))
    assert model.resident_bytes() == other.resident_bytes()


def test_which_linears_read_one_input():
    llama = ModelConfig(8, 8, 1, 1, 1, 8, 99, max_position_embeddings=6)
    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    assert linears_of_one_input(llama) == [qkv, ("mlp.gate_proj", "mlp.up_proj")]
    assert linears_of_one_input(replace(llama, model_type="opt")) == [qkv]
