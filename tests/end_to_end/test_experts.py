"""Mixtures of experts: what stays float, which tokens count where, experts that no token reaches."""

import json

import numpy as np
import pytest
from helpers.assertions import assert_close
from helpers.tiny_checkpoint import stored_values, write_tiny_family, write_weights
from safetensors.numpy import load_file, save_file

import awq_ref
from awq_ref.checkpoint import Checkpoint
from awq_ref.errors import CalibrationWarning, ShapeError
from awq_ref.model import ModelConfig
from awq_ref.pack import pack_linear
from awq_ref.pipeline import compare_models, describe_model
from awq_ref.pipeline.stored import read_quantized_linear
from awq_ref.quantize import dequantize_linear, pseudo_quantize, quantize_linear

IDS = np.random.default_rng(5).integers(0, 250, (4, 32))
ROUTER = {"mixtral": "model.layers.0.block_sparse_moe.gate", "qwen3_moe": "model.layers.0.mlp.gate"}
BOTH = pytest.mark.parametrize("family", ROUTER)
LONELY = "model.layers.0.mlp.experts.4.down_proj"


def quantize(source, target, **options):
    return awq_ref.quantize_model(
        source, target, **{"group_size": 8, "bits": 8, "calibration": IDS, "shown": False} | options
    )


def write_lonely(folder):
    """A model of whose five experts the last one is never among the best two."""
    tensors = write_tiny_family(folder, "qwen3_moe")
    direction = tensors["model.layers.0.mlp.gate.weight"][0]
    rows = np.array([[1.0], [0.5], [-1.0], [-0.5], [0.0]], dtype=np.float32) * direction
    tensors["model.layers.0.mlp.gate.weight"] = stored_values(rows, "float16")
    write_weights(folder, tensors, dtype="float16")
    return tensors


@BOTH
@pytest.mark.parametrize("layout", ["gemm", "pack-quantized"])
def test_the_router_takes_the_scales_and_stays_float(tmp_path, family, layout):
    tensors = write_tiny_family(tmp_path / "model", family)
    bits = {"bits": 4, "group_size": 16, "layout": layout}
    report = quantize(tmp_path / "model", tmp_path / "out", recipe="awq", **bits)
    site = next(site for layer, site in report.sites() if (layer, site.site) == (0, "mlp.gate_up"))
    assert (site.channel_scales != 1.0).any()
    checkpoint, name = Checkpoint.open(tmp_path / "out"), f"{ROUTER[family]}.weight"
    assert checkpoint.info(name).dtype == "F32"
    # Exactly the product: gate and up of the experts have the same columns, so the router sees what it saw.
    np.testing.assert_array_equal(checkpoint.read(name), tensors[name] * site.channel_scales)
    norm = "model.layers.0.post_attention_layernorm.weight"
    assert_close(checkpoint.read(norm) * site.channel_scales, tensors[norm], rtol=2.0**-23)
    told = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    ignored = told["modules_to_not_convert" if layout == "gemm" else "ignore"]
    layers = [0, 1] if family == "mixtral" else [0]  # the second of qwen3_moe has no experts
    assert ignored == ["lm_head", *(ROUTER[family].replace("0", str(layer), 1) for layer in layers)]


@BOTH
def test_a_router_that_takes_no_scales_keeps_its_bytes(tmp_path, family):
    write_tiny_family(tmp_path / "model", family)
    quantize(tmp_path / "model", tmp_path / "out", recipe="rtn")
    before, after = (Checkpoint.open(tmp_path / name) for name in ("model", "out"))
    name = f"{ROUTER[family]}.weight"
    assert after.info(name).dtype == "F16"
    np.testing.assert_array_equal(before.raw(name), after.raw(name))


def test_a_down_projection_has_the_statistics_of_its_own_tokens(tmp_path):
    write_tiny_family(tmp_path / "model", "qwen3_moe")
    statistics = awq_ref.calibrate(tmp_path / "model", calibration=IDS, shown=False).of_layer(0)
    counts = [statistics[f"mlp.{expert}.down"].count for expert in range(5)]
    assert sum(counts) == 2 * IDS.size  # each token goes to two experts
    assert len(set(counts)) > 1
    assert statistics["mlp.gate_up"].count == IDS.size


@pytest.mark.parametrize("recipe", ["awq", "gptq", "best", "llm-awq"])
def test_an_expert_that_no_token_reaches_is_rounded_to_nearest(tmp_path, recipe):
    tensors = write_lonely(tmp_path / "model")
    with pytest.warns(CalibrationWarning, match=r"layer 0: no token .* mlp.experts.4.down_proj: these"):
        report = quantize(tmp_path / "model", tmp_path / "out", recipe=recipe)
    sites = [site.site for layer, site in report.sites() if layer == 0]
    assert "mlp.3.down" in sites
    assert "mlp.4.down" not in sites
    model = awq_ref.load_model(tmp_path / "out")
    stored = read_quantized_linear(
        Checkpoint.open(tmp_path / "out"), model.config, LONELY, model.quantization
    )
    nearest = pseudo_quantize(tensors[f"{LONELY}.weight"], spec=report.spec)
    np.testing.assert_array_equal(dequantize_linear(stored), nearest)
    assert np.isfinite(model.logits(IDS)).all()


def test_saved_statistics_leave_the_expert_out_too(tmp_path):
    write_lonely(tmp_path / "model")
    statistics = awq_ref.calibrate(tmp_path / "model", calibration=IDS, shown=False)
    statistics.save(tmp_path / "statistics")
    loaded = type(statistics).load(tmp_path / "statistics")
    assert "0.mlp.3.down" in loaded.sites
    assert "0.mlp.4.down" not in loaded.sites
    with pytest.warns(CalibrationWarning, match="no token"):
        quantize(tmp_path / "model", tmp_path / "out", calibration=None, statistics=loaded)
    assert awq_ref.load_model(tmp_path / "out").is_quantized


@pytest.mark.parametrize("told", [True, False])
def test_errors_of_an_expert_that_no_token_reaches_are_not_listed(tmp_path, told):
    write_lonely(tmp_path / "model")
    with pytest.warns(CalibrationWarning, match="no token"):
        report = quantize(tmp_path / "model", tmp_path / "out", recipe="awq")
    given = report if told else None
    found = compare_models(tmp_path / "model", tmp_path / "out", report=given, calibration=IDS, shown=False)
    assert "mlp.experts.4.down_proj" not in [row.linear for row in found.rows]
    assert "mlp.experts.4.up_proj" in [row.linear for row in found.rows]
    assert max(row.errors.weight_error for row in found.rows) < 0.02
    assert any(note.startswith("1 linears of experts to which no token was sent") for note in found.notes)


def test_a_router_that_others_have_quantized_is_read(tmp_path):
    """AutoAWQ quantizes Qwen3 MoE's, and its config.json does not count them among what is left in float."""
    write_tiny_family(tmp_path / "model", "qwen3_moe")
    quantize(tmp_path / "model", tmp_path / "out", recipe="rtn", layout="pack-quantized")
    file, name = tmp_path / "out" / "model.safetensors", ROUTER["qwen3_moe"]
    told = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    told["quantization_config"]["ignore"].remove(name)
    (tmp_path / "out" / "config.json").write_text(json.dumps(told), encoding="utf-8")
    before = awq_ref.load_model(tmp_path / "out")
    tensors = load_file(file)
    router = tensors.pop(f"{name}.weight").astype(np.float32)
    packed = pack_linear(quantize_linear(router, spec=before.quantization.spec), "pack-quantized")
    save_file(tensors | {f"{name}.{end}": array for end, array in packed.items()}, file)
    model = awq_ref.load_model(tmp_path / "out", residency="dense")
    read = model.decoder.blocks[0].linears["mlp.gate"].weight
    np.testing.assert_array_equal(read, pseudo_quantize(router, spec=before.quantization.spec))


def test_a_group_size_that_fits_no_expert_is_said_once(tmp_path):
    write_tiny_family(tmp_path / "model", "mixtral")
    wanted = r"divide those of block_sparse_moe.experts.0.w2 \(16\). All would fit"
    with pytest.raises(ShapeError, match=wanted):
        quantize(tmp_path / "model", tmp_path / "out", group_size=64)


def test_experts_are_told(tmp_path):
    write_tiny_family(tmp_path / "model", "qwen3_moe")
    text = describe_model(tmp_path / "model")
    assert "5 of width 16 in 1 of 2 layers, 2 for each token" in text
    config = ModelConfig.from_json(Checkpoint.open(tmp_path / "model").config)
    # 264 * 64 of the embedding; norms 2 * (2 * 64 + 2 * 16) + 64; attention 2 * (2 * 64 * 64 + 2 * 32 * 64); a router;
    # 5 experts of 3 * 16 * 64; an MLP of 3 * 32 * 64
    assert f"{16896 + 384 + 24576 + 320 + 15360 + 6144:,}" in text
    assert config.n_experts(1) == 0
