"""Embedding and head as they stay in memory."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.tiny_checkpoint import write_tiny_family, write_tiny_llama

import awq_ref
from awq_ref.errors import RangeError
from awq_ref.matmul import Int8Linear
from awq_ref.pipeline import describe_model
from awq_ref.pipeline.tables import table_bytes
from awq_ref.report.tables import format_bytes

IDS = np.array([[5, 2, 9, 4]])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_an_int8_head_stands_beside_the_stored_rows(tmp_path, dtype, tied):
    tensors = write_tiny_llama(tmp_path / "m", torch_dtype=dtype, tie_word_embeddings=tied)
    plain, model = (awq_ref.load_model(tmp_path / "m", head=head) for head in ("float", "int8"))
    stored = awq_ref.pipeline.reading.open_model(tmp_path / "m")[0].info("model.embed_tokens.weight").dtype
    table = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}[stored]
    assert model.decoder.embed_tokens.dtype == table
    assert plain.decoder.embed_tokens.dtype == (np.float32 if tied else table)
    assert_same_bits(model.decoder.embed(IDS), plain.decoder.embed(IDS))
    assert_same_bits(plain.decoder.embed(IDS)[0], tensors["model.embed_tokens.weight"][IDS[0]])
    head = model.decoder.lm_head
    assert isinstance(head, Int8Linear)
    weight = tensors["model.embed_tokens.weight" if tied else "lm_head.weight"]
    steps = np.abs(weight).max(axis=1) / np.float32(127)
    assert_same_bits(head.steps, steps)
    # Half a step and the rounding of a quotient of at most 127.
    assert (np.abs(head.codes * steps[:, None] - weight) <= steps[:, None] * (0.5 + 127 * 2.0**-22)).all()
    for made, name in ((plain, "float"), (model, "int8")):
        held = made.resident_bytes()
        assert held["embeddings"] + held["head"] == table_bytes(made.config, stored, name)
    assert "head: int8" in model.residency_note
    assert "head" not in plain.residency_note


def test_logits_move_by_no_more_than_the_steps(tmp_path):
    write_tiny_llama(tmp_path / "m")
    plain, model = (awq_ref.load_model(tmp_path / "m", head=head) for head in ("float", "int8"))
    hidden = plain.hidden(IDS)
    # |y - y'| <= sum_i |w_i - w'_i| |x_i| <= step / 2 * |x|_1, and roundings far below a hundredth of that.
    bound = 0.51 * model.decoder.lm_head.steps * np.abs(hidden).sum(axis=-1, keepdims=True)
    assert (np.abs(plain.head(hidden) - model.head(hidden)) <= bound).all()


@pytest.mark.parametrize("family", ["phi", "opt"])
def test_heads_with_a_bias_or_behind_a_projection(tmp_path, family):
    write_tiny_family(tmp_path / "m", family)
    plain, model = (awq_ref.load_model(tmp_path / "m", head=head) for head in ("float", "int8"))
    expected = plain.logits(IDS)
    assert np.abs(model.logits(IDS) - expected).max() <= 0.05 * np.abs(expected).max()
    if plain.decoder.lm_head.bias is not None:
        assert_same_bits(model.decoder.lm_head.bias, plain.decoder.lm_head.bias)


def test_another_word_is_refused(tmp_path):
    write_tiny_llama(tmp_path / "m")
    with pytest.raises(RangeError, match="load_model: head must be one of 'float', 'int8'; got 'int4'"):
        awq_ref.load_model(tmp_path / "m", head="int4")


def test_inspect_counts_both_heads(tmp_path):
    changes = {
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_attention_heads": 8,
    }  # groups of 128 divide them
    write_tiny_llama(tmp_path / "m", torch_dtype="bfloat16", tie_word_embeddings=True, **changes)
    config = awq_ref.load_model(tmp_path / "m").config
    rows, width = config.vocab_size, config.hidden_size
    norm = 4 * width  # the last one stands outside the blocks too
    lines = describe_model(tmp_path / "m").splitlines()
    for head, size in (("float", 4 * rows * width), ("int8", (2 + 1) * rows * width + 4 * rows)):
        (line,) = (line for line in lines if line.startswith("| packed") and f" {head} " in line)
        assert format_bytes(size + norm) in line
