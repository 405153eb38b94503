import json

import pytest

from awq_ref.errors import FormatError
from awq_ref.text import GREEDY, GenerationDefaults, Sampling


def load(folder, **stored):
    (folder / "generation_config.json").write_text(json.dumps(stored), encoding="utf-8")
    return GenerationDefaults.load(folder)


def test_without_a_file_nothing_is_recommended(tmp_path):
    assert GenerationDefaults.load(tmp_path) == GenerationDefaults((), GREEDY)


def test_a_file_that_samples(tmp_path):
    # as published for Qwen2.5-0.5B-Instruct
    settings = {"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    found = load(tmp_path, bos_token_id=151643, eos_token_id=[151645, 151643], **settings)
    assert found.eos_token_ids == (151645, 151643)
    assert found.sampling == Sampling(0.7, top_k=20, top_p=0.8, repetition_penalty=1.1)


def test_what_is_left_out_is_what_transformers_takes(tmp_path):
    assert load(tmp_path, do_sample=True).sampling == Sampling(1.0, top_k=50)
    assert load(tmp_path, do_sample=True, top_k=0, min_p=0.1).sampling == Sampling(1.0, min_p=0.1)
    assert load(tmp_path, do_sample=True, top_k=None, temperature=None).sampling == Sampling(1.0, top_k=50)
    assert load(tmp_path, temperature=0.6, top_p=0.9).sampling == Sampling(0.0, top_p=0.9)
    assert load(tmp_path, eos_token_id=2).eos_token_ids == (2,)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"temperature": "warm"}, "temperature must be a number of type float; got 'warm'"),
        ({"top_k": 1.5}, "top_k must be a number of type int; got 1.5"),
        ({"top_p": True}, "top_p must be a number"),
        ({"do_sample": True, "top_p": 3}, r"sampling: top_p must lie in \(0, 1\]; got 3"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id or a list of them; got '</s>'"),
        ({"eos_token_id": [1, -1]}, "eos_token_id must be a token id or a list"),
    ],
)
def test_values_that_cannot_be_are_named(tmp_path, stored, message):
    with pytest.raises(FormatError, match=f"generation_config.json: {message}"):
        load(tmp_path, **stored)
