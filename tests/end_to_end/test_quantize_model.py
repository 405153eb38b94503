"""A tiny float checkpoint through the whole job, read back by loops that share nothing with the package."""

import dataclasses
import json
import math

import numpy as np
import pytest
from helpers.scalar_oracles_pack import read_gemm
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref
from awq_ref import cli
from awq_ref.checkpoint import TensorFile
from awq_ref.errors import CalibrationWarning, OutputError, UnsupportedError
from awq_ref.pipeline import ModelStatistics

GROUP = 16
# 8 bits, groups of 8 normal weights (range about 2.9 deviations): 2.9 / (sqrt(12) * 255) = 0.33 % of noise per linear,
# some ten linears add up in squares: 1 %. Twice that.
EIGHT_BIT_ERROR = 0.02
IDS = np.random.default_rng(5).integers(0, 250, (4, 32))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "tiny"
    write_tiny_llama(folder)
    return folder


def quantize(source, target, **options):
    return awq_ref.quantize_model(
        source, target, **{"group_size": GROUP, "calibration": IDS, "shown": False} | options
    )


def scalar_rtn(row: list[float]) -> tuple[float, int, list[int]]:
    """Asymmetric INT4 of one group, range widened to 0, scale rounded to float16: [AWQ-1] to [AWQ-3] in Python floats.

    float32 steps are mimicked where they decide a tie: the range, the quotient.
    """
    low, high = min(0.0, *row), max(0.0, *row)
    exact = np.float32(max(np.float32(high) - np.float32(low), np.float32(1e-5))) / np.float32(15)
    scale = float(np.float16(exact))
    zero = min(15, max(0, -round(float(np.float32(low) / np.float32(scale)))))
    codes = [min(15, max(0, round(float(np.float32(w) / np.float32(scale))) + zero)) for w in row]
    return scale, zero, codes


def test_rtn_integers_on_disk_equal_a_scalar_loop(source, tmp_path):
    tensors = write_tiny_llama(tmp_path / "again")  # the same seed: the same weights
    report = quantize(source, tmp_path / "out", recipe="rtn")
    assert report.layout == "gemm"
    file = TensorFile(tmp_path / "out" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    codes, zeros, scales = read_gemm(
        {end: file.read(f"{name}.{end}") for end in ("qweight", "qzeros", "scales")}
    )
    for row, weights in enumerate(tensors[f"{name}.weight"].tolist()):
        for group in range(len(weights) // GROUP):
            part = slice(group * GROUP, (group + 1) * GROUP)
            found = (scales[row][group], zeros[row][group], codes[row][part])
            assert found == scalar_rtn(weights[part])


def test_the_config_is_what_other_readers_expect(source, tmp_path):
    quantize(source, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    wanted = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    assert config["quantization_config"].items() >= wanted.items()
    assert config["awq_ref"]["recipe"] == "awq"
    assert config["awq_ref"]["calibration"]["windows"] == 4
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("recipe", ["rtn", "awq", "llm-awq"])
@pytest.mark.parametrize("bits", [4, 8])
def test_more_bits_come_nearer_to_the_float_model(source, tmp_path, recipe, bits):
    quantize(source, tmp_path / "out", recipe=recipe, bits=bits)
    wanted = awq_ref.load_model(source).logits(IDS)
    logits = awq_ref.load_model(tmp_path / "out").logits(IDS)
    error = np.linalg.norm(logits - wanted) / np.linalg.norm(wanted)
    # Uniform rounding at b bits leaves about 1 / (sqrt(12) * 2**b / range-in-deviations): with groups of 16 normal
    # weights the range is about 3.5 deviations, so 3.5 / (sqrt(12) * (2**b - 1)) per linear, and some ten linears add
    # up in squares. Twice that is a bound that a wrong nibble or a lost scale exceeds by far.
    assert error < 2 * math.sqrt(10) * 3.5 / (math.sqrt(12) * (2**bits - 1))


@pytest.mark.parametrize(
    ("bits", "group", "symmetric"), [(2, 32, False), (3, 16, True), (4, -1, False), (8, 32, True)]
)
def test_residencies_and_layouts_agree(source, tmp_path, bits, group, symmetric):
    quantize(source, tmp_path / "out", bits=bits, group_size=group, symmetric=symmetric)
    logits = {
        r: awq_ref.load_model(tmp_path / "out", residency=r).logits(IDS) for r in ("packed", "codes", "dense")
    }
    scale = np.abs(logits["dense"]).max()
    for residency in ("packed", "codes"):
        # Only float32 rounding differs: 14 linears of at most 96 terms; 96 * 14 * 2**-24 is below 1e-4.
        assert np.abs(logits[residency] - logits["dense"]).max() < 1e-4 * scale


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_fold_alone_changes_nothing(tmp_path, dtype):
    """At 8 bits with tiny groups rounding is small; a fold that lost a factor would be off by orders of magnitude."""
    write_tiny_llama(tmp_path / "model", torch_dtype=dtype, tie_word_embeddings=False)
    awq, rtn = (
        quantize(tmp_path / "model", tmp_path / r, recipe=r, bits=8, group_size=8) for r in ("awq", "rtn")
    )
    assert any(site.alpha > 0 for _, site in awq.sites())
    assert list(rtn.sites()) == []
    wanted = awq_ref.load_model(tmp_path / "model").logits(IDS)
    for recipe in ("awq", "rtn"):
        logits = awq_ref.load_model(tmp_path / recipe).logits(IDS)
        assert np.linalg.norm(logits - wanted) < EIGHT_BIT_ERROR * np.linalg.norm(wanted)


def test_no_site_loses_to_round_to_nearest(source, tmp_path):
    report = quantize(source, tmp_path / "out", bits=3)
    sites = [site for _, site in report.sites()]
    assert len(sites) == 2 * 4
    for site in sites:
        assert site.loss_scaled <= site.loss_rtn
        assert site.loss_clipped <= site.loss_scaled
        assert site.losses[site.alphas.index(site.alpha)] == min(site.losses)


def test_saved_statistics_give_the_same_bytes_as_calibration(source, tmp_path):
    quantize(source, tmp_path / "direct")
    awq_ref.calibrate(source, calibration=IDS, shown=False).save(tmp_path / "statistics")
    statistics = ModelStatistics.load(tmp_path / "statistics")
    quantize(source, tmp_path / "again", calibration=None, statistics=statistics)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "direct" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pytest.raises(UnsupportedError, match="llm-awq judges on the tokens"):
        quantize(source, tmp_path / "no", recipe="llm-awq", statistics=statistics)


def test_shards_hold_the_same_tensors(source, tmp_path):
    quantize(source, tmp_path / "one")
    quantize(source, tmp_path / "many", max_shard_bytes=20_000)
    assert len(list((tmp_path / "many").glob("model-*-of-*.safetensors"))) > 2
    one, many = (awq_ref.load_model(tmp_path / name).logits(IDS) for name in ("one", "many"))
    np.testing.assert_array_equal(one, many)


def test_biases_follow_the_fold(tmp_path):
    from awq_ref.checkpoint import Checkpoint, ShardWriter, copy_side_files, new_folder, write_json

    plain = tmp_path / "plain"
    write_tiny_llama(plain, torch_dtype="float32")
    checkpoint, rng = Checkpoint.open(plain), np.random.default_rng(1)
    with new_folder(tmp_path / "biased") as folder, ShardWriter(folder) as writer:
        for name in checkpoint.names:
            weight = checkpoint.read(name)
            writer.add(name, weight)
            if "_proj" in name:
                writer.add(
                    name.replace("weight", "bias"), rng.standard_normal(len(weight)).astype(np.float32)
                )
        copy_side_files(plain, folder)
        write_json(folder / "config.json", checkpoint.config | {"attention_bias": True, "mlp_bias": True})
    quantize(tmp_path / "biased", tmp_path / "out", bits=8, group_size=8)
    wanted = awq_ref.load_model(tmp_path / "biased").logits(IDS)
    logits = awq_ref.load_model(tmp_path / "out").logits(IDS)
    assert np.linalg.norm(logits - wanted) < EIGHT_BIT_ERROR * np.linalg.norm(wanted)


def test_a_quantized_model_is_not_quantized_again(source, tmp_path):
    quantize(source, tmp_path / "out")
    with pytest.raises(UnsupportedError, match="quantized already"):
        quantize(tmp_path / "out", tmp_path / "twice")
    with pytest.raises(OutputError, match="exists"):
        quantize(source, tmp_path / "out")


def test_the_report_of_a_run_survives_saving(source, tmp_path):
    report = quantize(source, tmp_path / "out")
    report.save(tmp_path / "report")
    back = awq_ref.QuantizationReport.load(tmp_path / "report")
    assert dataclasses.replace(back, layers=()) == dataclasses.replace(report, layers=())
    for (layer, site), (other_layer, other) in zip(report.sites(), back.sites(), strict=True):
        assert (layer, site.site, site.losses) == (other_layer, other.site, other.losses)
        np.testing.assert_array_equal(site.channel_scales, other.channel_scales)


@pytest.mark.parametrize("recipe", ["gptq", "gptq-r", "awq+gptq", "best"])
@pytest.mark.parametrize("bits", [2, 4])
def test_feedback_lowers_the_loss_that_the_report_states(source, tmp_path, recipe, bits):
    report = quantize(source, tmp_path / "out", recipe=recipe, bits=bits)
    sites = [site for _, site in report.sites()]
    assert all(site.damping == 0.01 for site in sites)
    rounded = sum(site.loss_rounded for site in sites)
    assert 0.0 < rounded < sum(site.loss_rtn for site in sites)
    logits = awq_ref.load_model(tmp_path / "out").logits(IDS)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_the_stated_loss_is_that_of_the_integers_in_the_file(source, tmp_path):
    """The o site of the first block, which `gptq` does not scale: read back and compared on the tokens' Gram."""
    statistics = awq_ref.calibrate(source, calibration=IDS, shown=False)
    report = quantize(source, tmp_path / "out", recipe="gptq", calibration=None, statistics=statistics)
    name = "model.layers.0.self_attn.o_proj"
    float_weight = dense(awq_ref.load_model(source, residency="dense"), 0, "self_attn.o_proj")
    stored = dense(awq_ref.load_model(tmp_path / "out", residency="dense"), 0, "self_attn.o_proj")
    error = stored.astype(np.float64) - float_weight
    gram = statistics.sites["0.self_attn.o"].gram.astype(np.float64)
    expected = np.einsum("ri,ij,rj->", error, gram, error) / len(error)
    site = next(site for layer, site in report.sites() if layer == 0 and site.site == "self_attn.o")
    # Both sums are of the same products; float32 in ours: two sums of n terms, gamma_2n of the absolute sum.
    n = error.shape[1]
    size = np.einsum("ri,ij,rj->", np.abs(error), np.abs(gram), np.abs(error)) / len(error)
    assert abs(site.loss_rounded - expected) <= 4 * n * 2.0**-24 * size, name


def dense(model, layer, name):
    return model.decoder.blocks[layer].linears[name].weight


def test_fewer_tokens_than_channels_is_a_warning(source, tmp_path):
    with pytest.warns(CalibrationWarning, match=r"saw 16 tokens, fewer than the \d+ channels"):
        quantize(source, tmp_path / "out", recipe="gptq", calibration=IDS[:1, :16])
    assert (tmp_path / "out" / "config.json").exists()


def test_the_command_line_says_a_warning_in_one_line(source, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a few words, and no more than that " * 4, encoding="utf-8")
    options = ["--recipe", "gptq", "--group-size", "16", "--seq-len", "8", "--samples", "1"]
    assert (
        cli.main(["quantize", str(source), str(tmp_path / "out"), "--calibration", str(text), *options]) == 0
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert lines
    assert all(line.startswith("awq-ref: warning: calibration saw 8 tokens") for line in lines)
