"""convert --layout gguf: one file, its weights the folder's bit for bit; or refused, and nothing is written."""

import json

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.command_line import assert_nothing_written, assert_refused, run
from helpers.gguf_reader import read_gguf
from helpers.stored_checkpoints import FORMATS, write_stored
from helpers.tiny_checkpoint import edit_json, write_tiny_family, write_tiny_llama

from awq_ref.checkpoint import demo_model_path
from awq_ref.errors import UnsupportedError
from awq_ref.pipeline import convert_to_gguf, load_model, quantize_model

HEADS, HEAD_DIM = 4, 16  # of the tiny Llama


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory):
    """The embedded model in 4 bits, groups of 32, and the file made of it by the command line."""
    root = tmp_path_factory.mktemp("gguf")
    quantize_model(demo_model_path(), root / "int4", recipe="rtn", group_size=32, symmetric=True)
    report = convert_to_gguf(root / "int4", root / "model.gguf")
    assert report.kinds == {"F16": 1, "F32": 13, "q4_0": 42}
    assert report.rounded == {}
    return root / "int4", root / "model.gguf"


def test_metadata(symmetric):
    metadata, _ = read_gguf(symmetric[1])
    wanted = {
        "general.architecture": "llama",
        "general.file_type": 2,
        "llama.block_count": 6,
        "llama.embedding_length": 256,
        "llama.feed_forward_length": 768,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 4,
        "llama.context_length": 512,
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 4096,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert {key: metadata[key] for key in wanted} == wanted
    assert metadata["llama.attention.layer_norm_rms_epsilon"] == np.float32(1e-5)
    stored = json.loads((demo_model_path() / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert metadata["tokenizer.ggml.tokens"] == sorted(stored["vocab"], key=stored["vocab"].__getitem__)
    assert metadata["tokenizer.ggml.merges"] == [" ".join(pair) for pair in stored["merges"]]
    assert metadata["tokenizer.ggml.token_type"] == [3] + [1] * 4095


def q4_0_weight(shape, data):
    """Dequantize by the definition of the block: (q - 8) d."""
    blocks = np.frombuffer(data, dtype=np.uint8).reshape(shape[1], shape[0] // 32, 18)
    scale = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
    codes = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1).astype(np.float32)
    return ((codes - 8) * scale).reshape(shape[1], shape[0])


def test_every_weight_is_the_folders(symmetric):
    folder, path = symmetric
    _, tensors = read_gguf(path)
    block = load_model(folder, residency="dense").decoder.blocks[3]
    for ours, theirs in (("self_attn.v_proj", "attn_v"), ("mlp.down_proj", "ffn_down")):
        shape, kind, data = tensors[f"blk.3.{theirs}.weight"]
        assert kind == 2
        assert_same_bits(q4_0_weight(shape, data), block.linears[ours].weight)
    shape, _, data = tensors["blk.3.attn_q.weight"]
    q, ours = q4_0_weight(shape, data), block.linears["self_attn.q_proj"].weight
    for head in range(8):  # rope of llama.cpp turns rows 2i and 2i + 1, ours i and i + 16
        for i in range(16):
            assert_same_bits(q[32 * head + 2 * i], ours[32 * head + i])
            assert_same_bits(q[32 * head + 2 * i + 1], ours[32 * head + 16 + i])


def test_the_command_says_what_it_wrote(symmetric, tmp_path, capsys):
    folder, path = symmetric
    code = run(capsys, "convert", folder, tmp_path / "model.gguf", "--layout", "gguf")[0]
    assert code == 0
    assert (tmp_path / "model.gguf").read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


def test_the_report_says_that_the_pattern_has_no_name(symmetric, tmp_path):
    report = convert_to_gguf(symmetric[0], tmp_path / "a.gguf", dequantized=True)
    assert report.kinds == {"F32": 56}
    assert "no name for this pattern" in report.text()


def test_what_rounds_is_refused_unless_it_is_allowed(tmp_path, capsys):
    quantize_model(demo_model_path(), tmp_path / "int4", recipe="rtn", group_size=128)
    out = tmp_path / "model.gguf"
    command = ["convert", tmp_path / "int4", out, "--layout", "gguf"]
    assert_refused(run(capsys, *command), "model.layers.0.self_attn.q_proj", "q4_1", "--allow-rounding")
    assert_nothing_written(out)
    report = convert_to_gguf(tmp_path / "int4", out, allow_rounding=True)
    assert len(report.rounded) == 42
    assert max(report.rounded.values()) <= 2 * 2.0**-11  # z d is at most a range, 2 max |w|
    assert "42 linears rounded" in report.text()


def test_a_file_that_exists_is_left_as_it_is(tmp_path, capsys):
    write_tiny_llama(tmp_path / "model")
    out = tmp_path / "model.gguf"
    out.write_text("mine", encoding="utf-8")
    assert_refused(run(capsys, "convert", tmp_path / "model", out, "--layout", "gguf"), "exists already")
    assert out.read_text(encoding="utf-8") == "mine"


def test_eight_bits_become_q8_0_and_offsets_q4_1(tmp_path):
    quantize_model(
        demo_model_path(),
        tmp_path / "int8",
        recipe="rtn",
        bits=8,
        group_size=64,
        symmetric=True,
        layout="gptq",
    )
    assert convert_to_gguf(tmp_path / "int8", tmp_path / "a.gguf").kinds["q8_0"] == 42
    write_stored(tmp_path / "fast", FORMATS["gemv_fast"])
    report = convert_to_gguf(tmp_path / "fast", tmp_path / "b.gguf")
    assert "q4_1" in report.kinds
    assert report.rounded == {}


def test_a_linear_without_blocks_is_refused(tmp_path):
    write_stored(tmp_path / "three", FORMATS["gptq 3 bits"])
    with pytest.raises(UnsupportedError, match=r"model\.layers\.0.*3"):
        convert_to_gguf(tmp_path / "three", tmp_path / "a.gguf", allow_rounding=True)
    assert_nothing_written(tmp_path / "a.gguf")


def test_a_float_folder_keeps_its_floats(tmp_path):
    weights = write_tiny_llama(tmp_path / "model", tie_word_embeddings=False)
    report = convert_to_gguf(tmp_path / "model", tmp_path / "a.gguf")
    assert report.notes == ()
    metadata, tensors = read_gguf(tmp_path / "a.gguf")
    assert metadata["tokenizer.ggml.pre"] == "gpt-2"
    shape, kind, data = tensors["output.weight"]
    assert (shape, kind) == ((64, 264), 1)
    assert data == weights["lm_head.weight"].astype("<f2").tobytes()


@pytest.mark.parametrize(
    "family, changes, words",
    [
        ("gemma2", {}, ["model_type must be one of llama, mistral, qwen2, qwen3; got gemma2"]),
        ("qwen3", {"attention_bias": True}, ["qwen3 must have no attention_bias"]),
        ("llama", {"hidden_act": "gelu"}, ["llama must have hidden_act silu"]),
        (
            "llama",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            ["rope_type one of default, linear, llama3"],
        ),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(tmp_path, capsys, family, changes, words):
    write_tiny_family(tmp_path / "model", family, **changes)
    out = tmp_path / "model.gguf"
    assert_refused(run(capsys, "convert", tmp_path / "model", out, "--layout", "gguf"), *words)
    assert_nothing_written(out)


def test_a_window_ends_the_context(tmp_path):
    write_tiny_family(tmp_path / "model", "mistral", sliding_window=48)
    convert_to_gguf(tmp_path / "model", tmp_path / "a.gguf")
    assert read_gguf(tmp_path / "a.gguf")[0]["llama.context_length"] == 48


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "the model is WordLevel"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "the pre-tokenizer has no ByteLevel"),
        ({"normalizer": {"type": "Lowercase"}}, "the normalizer Lowercase has no place"),
    ],
)
def test_a_tokenizer_that_has_no_place_is_refused(tmp_path, capsys, changes, words):
    write_tiny_llama(tmp_path / "model")
    edit_json(tmp_path / "model" / "tokenizer.json", **changes)
    out = tmp_path / "model.gguf"
    assert_refused(
        run(capsys, "convert", tmp_path / "model", out, "--layout", "gguf"), words, "byte-level BPE"
    )
    assert_nothing_written(out)
