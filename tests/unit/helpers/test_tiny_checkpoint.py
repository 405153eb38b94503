"""The helper's files are what other readers expect."""

import json

import numpy as np
import pytest
import tokenizers
from helpers.assertions import assert_same_bits
from helpers.tiny_checkpoint import edit_json, to_bfloat16_bits, write_safetensors, write_tiny_llama
from safetensors.numpy import load_file


def test_bfloat16_rounds_to_nearest_even():
    # 1 + 2**-8 lies in the middle of 1 and 1 + 2**-7: even is 1. 1 + 3 * 2**-8: even is 1 + 4 * 2**-8.
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, -2.0, 1.0 + 2**-8 + 2**-20], dtype=np.float32)
    assert_same_bits(to_bfloat16_bits(values), [0x3F80, 0x3F80, 0x3F82, 0xC000, 0x3F81])


def test_the_safetensors_package_reads_the_file(tmp_path):
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7], dtype=np.int32)
    write_safetensors(tmp_path / "a.safetensors", {"a": ("F32", first), "b": ("I32", second)})
    found = load_file(tmp_path / "a.safetensors")
    assert set(found) == {"a", "b"}
    assert_same_bits(found["a"], first)
    assert_same_bits(found["b"], second)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weights_are_returned_as_stored(tmp_path, dtype):
    tensors = write_tiny_llama(tmp_path, torch_dtype=dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert set(stored) == set(tensors)
    for name, values in tensors.items():
        assert stored[name].dtype == dtype
        assert_same_bits(stored[name].astype(np.float32), values)


def test_shards_hold_every_tensor_once(tmp_path):
    tensors = write_tiny_llama(tmp_path, shards=3, tie_word_embeddings=False)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"]) == set(tensors)
    assert "lm_head.weight" in tensors
    for file in set(index["weight_map"].values()):
        names = {name for name, where in index["weight_map"].items() if where == file}
        assert set(load_file(tmp_path / file)) == names


def test_the_tokenizer_has_one_token_per_byte(tmp_path):
    write_tiny_llama(tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "naïve → 3\n"
    ids = tokenizer.encode(text).ids
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_to_id("<|endoftext|>") == 256


def test_edit_json_changes_adds_and_removes(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": 2}', encoding="utf-8")
    edit_json(path, a=3, b=None, c=[4])
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 3, "c": [4]}
