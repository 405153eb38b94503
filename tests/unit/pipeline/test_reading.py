"""Names of tensors as they are in files, and what is written."""

import json

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.tiny_checkpoint import write_tiny_family, write_weights

import awq_ref
from awq_ref.checkpoint import Checkpoint
from awq_ref.errors import MissingTensorError
from awq_ref.pipeline import describe_model
from awq_ref.pipeline.reading import open_model

IDS = np.random.default_rng(5).integers(0, 250, (3, 24))
WITH_A_PREFIX = ("gpt_neox", "phi", "opt", "gpt2", "falcon", "bloom", "mpt")


def without_prefix(folder, family):
    """The family's checkpoint, as its model without a head is saved."""
    tensors = write_tiny_family(folder, family, torch_dtype="float32")
    _, config = open_model(folder)
    prefix = config.family.base_prefix
    assert prefix
    assert any(name.startswith(prefix) for name in tensors)
    write_weights(folder, {name.removeprefix(prefix): t for name, t in tensors.items()}, dtype="float32")
    return tensors


@pytest.mark.parametrize("family", WITH_A_PREFIX)
def test_names_without_the_prefix_are_the_same_model(tmp_path, family):
    tensors = without_prefix(tmp_path / "bare", family)
    write_tiny_family(tmp_path / "full", family, torch_dtype="float32")
    bare, full = (awq_ref.load_model(tmp_path / name).logits(IDS) for name in ("bare", "full"))
    assert_same_bits(bare, full)
    assert set(open_model(tmp_path / "bare")[0].names) == set(tensors)


def test_a_quantized_model_has_the_full_names(tmp_path):
    for name in ("bare", "full"):
        write_tiny_family(tmp_path / name, "gpt2", torch_dtype="float32")
    without_prefix(tmp_path / "bare", "gpt2")
    for name in ("bare", "full"):
        awq_ref.quantize_model(
            tmp_path / name, tmp_path / f"{name}-int4", group_size=8, calibration=IDS, shown=False
        )
    bare, full = (Checkpoint.open(tmp_path / f"{name}-int4") for name in ("bare", "full"))
    assert bare.names == full.names
    assert "transformer.h.1.attn.c_attn.qweight" in full.names
    assert all(bare.raw(name).tobytes() == full.raw(name).tobytes() for name in full.names)


def test_the_name_in_the_file_is_the_one_in_an_error(tmp_path):
    tensors = without_prefix(tmp_path, "gpt2")
    tensors["transformer.wpe.weight"][3, 5] = np.inf
    write_weights(tmp_path, {n.removeprefix("transformer."): t for n, t in tensors.items()}, dtype="float32")
    with pytest.raises(awq_ref.errors.RangeError, match=r"model.safetensors: wpe.weight .*\(3, 5\)"):
        awq_ref.load_model(tmp_path)
    del tensors["transformer.wpe.weight"]
    write_weights(tmp_path, tensors, dtype="float32")
    with pytest.raises(MissingTensorError, match="transformer.wpe.weight"):
        awq_ref.load_model(tmp_path)


@pytest.mark.parametrize(
    ("family", "ignored"),
    [
        ("gpt_neox", ["lm_head", "embed_out"]),
        ("gpt2", ["lm_head"]),
        ("opt_post_norm", ["lm_head", "model.decoder.project_in", "model.decoder.project_out"]),
    ],
)
def test_what_stays_float_is_named(tmp_path, family, ignored):
    write_tiny_family(tmp_path / "model", family)
    awq_ref.quantize_model(
        tmp_path / "model", tmp_path / "out", group_size=8, recipe="rtn", layout="pack-quantized", shown=False
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["ignore"] == ignored


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("gpt2", "128 tokens, learned positions"),
        ("bloom", "128 tokens, alibi"),
        ("falcon", "128 tokens, rope default"),
    ],
)
def test_inspect_says_what_tells_positions(tmp_path, family, said):
    write_tiny_family(tmp_path / "model", family)
    assert said in describe_model(tmp_path / "model")
