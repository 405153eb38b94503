"""The layer that is explained: the search is the one that `quantize_model` does."""

import json

import numpy as np
import pytest
from helpers.tiny_checkpoint import write_tiny_family, write_tiny_llama
from helpers.tiny_families import FAMILY_CHANGES

from awq_ref.errors import RangeError, ShapeError, UnsupportedError
from awq_ref.explain.record import layer_record
from awq_ref.explain.subject import open_subject
from awq_ref.model import block_prefix
from awq_ref.pipeline import quantize_model
from awq_ref.pipeline.observation import open_float
from awq_ref.pipeline.plans import layer_plan

SITES = {
    "self_attn.qkv": "self_attn.k_proj",
    "self_attn.o": "self_attn.o_proj",
    "mlp.gate_up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(7).integers(0, 256, (6, 48))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, windows):
    """A model with loud channels, and the report of its quantization."""
    folder = tmp_path_factory.mktemp("explained")
    write_tiny_family(folder / "tiny", "llama")
    report = quantize_model(folder / "tiny", folder / "out", group_size=16, calibration=windows)
    return folder / "tiny", {(layer, site.site): site for layer, site in report.sites()}


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("site", SITES)
def test_the_search_is_that_of_quantize_model(quantized, windows, layer, site):
    model, reports = quantized
    name = f"model.layers.{layer}.{SITES[site]}"
    subject = open_subject(model, name, group_size=16, calibration=windows)
    report = reports[layer, site]
    assert tuple(trial.alpha for trial in subject.trials) == report.alphas
    assert tuple(trial.loss for trial in subject.trials) == report.losses
    chosen = subject.trials[subject.chosen]
    assert chosen.alpha == report.alpha
    np.testing.assert_array_equal(chosen.channel_scales, report.channel_scales)


def test_a_site_that_nothing_scales_has_one_trial(tmp_path, windows):
    write_tiny_family(tmp_path / "tiny", "olmo2")
    name = "model.layers.0.self_attn.q_proj"
    subject = open_subject(tmp_path / "tiny", name, group_size=16, calibration=windows)
    assert [trial.alpha for trial in subject.trials] == [0.0]
    assert (subject.trials[0].channel_scales == 1.0).all()


def test_the_token_is_the_one_that_is_named(tmp_path):
    """What enters the first block's q_proj is the norm of the token's embedding: it can be worked out by hand."""
    tensors = write_tiny_llama(tmp_path / "tiny")
    text = "abcdefgh" * 16  # one token a byte
    name = "model.layers.0.self_attn.q_proj"
    subject = open_subject(tmp_path / "tiny", name, group_size=16, calibration=[text], samples=2, seq_len=32)
    ids = json.loads((tmp_path / "tiny" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    row = tensors["model.embed_tokens.weight"][ids[subject.piece]].astype(np.float64)
    normed = row / np.sqrt((row * row).mean() + 1e-5) * tensors["model.layers.0.input_layernorm.weight"]
    np.testing.assert_allclose(subject.token, normed, rtol=1e-5)  # a mean of 64 squares, float32


def test_an_unknown_layer_is_told_the_nearest(tmp_path):
    write_tiny_llama(tmp_path / "tiny")
    with pytest.raises(RangeError, match=r"model\.layers\.1\.mlp\.down_proj"):
        open_subject(tmp_path / "tiny", "model.layers.1.mlp.downproj")


def test_a_group_that_does_not_divide_is_refused_before_the_work(tmp_path):
    write_tiny_llama(tmp_path / "tiny")
    with pytest.raises(ShapeError, match="mlp.down_proj"):
        open_subject(tmp_path / "tiny", "model.layers.1.mlp.down_proj", group_size=64)


def test_a_quantized_model_is_refused(quantized):
    model, _ = quantized
    with pytest.raises(UnsupportedError, match="float"):
        open_subject(model.parent / "out", "model.layers.0.mlp.down_proj")


@pytest.mark.parametrize("family", FAMILY_CHANGES)
def test_a_layer_of_every_site_of_every_family_is_explained(tmp_path, windows, family):
    write_tiny_family(tmp_path, family)
    _, config = open_float(tmp_path)
    for group in layer_plan(config, 0):
        name = block_prefix(config, 0) + group.consumers[-1]
        subject = open_subject(tmp_path, name, group_size=16, calibration=windows)
        record = layer_record(subject)
        assert record["about"]["shared"] == list(group.consumers)
        assert record["trials"][0]["scales"] == [1.0] * 16
        assert min(trial["loss"] for trial in record["trials"]) == record["trials"][record["chosen"]]["loss"]


def test_an_expert_that_no_token_reached_is_refused(tmp_path):
    write_tiny_family(tmp_path, "mixtral")
    _, config = open_float(tmp_path)
    same = np.zeros((1, 4), dtype=np.int64)  # one token, four times: the same experts each time
    n_experts, refused = config.n_experts(0), 0
    assert n_experts > config.num_experts_per_tok
    for expert in range(n_experts):
        name = f"model.layers.0.block_sparse_moe.experts.{expert}.w2"
        try:
            open_subject(tmp_path, name, group_size=16, calibration=same)
        except RangeError as error:
            assert "none was sent to its expert" in str(error)
            refused += 1
    assert refused == n_experts - config.num_experts_per_tok
