"""Every family from a tiny float checkpoint to a quantized one and back."""

import numpy as np
import pytest
from helpers.tiny_checkpoint import write_tiny_family, write_weights

import awq_ref
from awq_ref.checkpoint import Checkpoint
from awq_ref.errors import MissingTensorError
from awq_ref.model import FAMILIES, ModelConfig, model_linear_shapes
from awq_ref.pipeline import compare_models, describe_model
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.stored import read_quantized_linear
from awq_ref.quantize import dequantize_linear

IDS = np.random.default_rng(5).integers(0, 250, (4, 32))
MORE = np.random.default_rng(6).integers(
    0, 250, (9, 32)
)  # more tokens than the widest layer has channels: 256
# As in test_quantize_model: 8 bits with groups of 8 leave 0.33 % of noise per linear, some ten linears add up in
# squares to 1 %; twice that, and twice again for the loud channels, beside which a group's others are rounded coarsely.
EIGHT_BIT_ERROR = 0.04
FIXED = {
    "olmo2": {"self_attn.qkv", "mlp.gate_up"},
    "starcoder2": {"mlp.down"},
    "opt_post_norm": {"self_attn.qkv", "mlp.up"},
    **dict.fromkeys(("gpt_neox", "gpt_neox_sequential", "phi", "gpt2", "bloom", "mpt"), {"mlp.down"}),
    "mpt_clipped": {"self_attn.o", "mlp.down"},
    **dict.fromkeys(("falcon", "falcon_two_norms", "falcon_sequential"), {"mlp.down"}),
}  # family -> sites without a producer
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        write_tiny_family(root / family, family)
    return root


def config_of(folder):
    return ModelConfig.from_json(Checkpoint.open(folder).config)


def quantize(source, target, **options):
    return awq_ref.quantize_model(
        source, target, **{"group_size": 8, "bits": 8, "calibration": IDS, "shown": False} | options
    )


def distance(one, other):
    ours, wanted = (awq_ref.load_model(folder).logits(IDS) for folder in (one, other))
    assert np.isfinite(ours).all()
    return np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)


@EVERY_FAMILY
@pytest.mark.parametrize("recipe", ["rtn", "awq", "best"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_at_eight_bits_the_quantized_model_is_nearly_the_float_one(tmp_path, family, recipe, dtype):
    """A fold that lost a factor, a norm that was divided wrongly or rows out of order would be far off."""
    write_tiny_family(tmp_path / "model", family, torch_dtype=dtype)
    report = quantize(tmp_path / "model", tmp_path / "out", recipe=recipe, calibration=MORE)
    # A token between two experts may change to the other one: a few of them double the error.
    routed = FAMILIES[family].experts is not None
    assert distance(tmp_path / "out", tmp_path / "model") < EIGHT_BIT_ERROR * (2 if routed else 1)
    if recipe == "awq":
        # Rows of v that o's scales divide round their float16 scales otherwise: at 8 bits that shows where nothing is
        # gained. Sites with scales of their own always had the choice of rounding to nearest.
        scaled = [site for _, site in report.sites() if site.alpha > 0]
        assert scaled
        assert all(site.loss_clipped <= site.loss_rtn for site in scaled)


@EVERY_FAMILY
def test_four_bits_with_groups_of_sixteen(sources, tmp_path, family):
    report = quantize(sources / family, tmp_path / "out", bits=4, group_size=16, recipe="awq")
    assert [site.site for layer, site in report.sites() if layer == 0] == [
        g.site for g in layer_plan(config_of(sources / family), 0)
    ]
    assert 0.0 < distance(tmp_path / "out", sources / family) < 0.5
    text = awq_ref.load_model(tmp_path / "out").generate(IDS[0, :5], max_new_tokens=8)
    assert len(text) <= 8


@EVERY_FAMILY
def test_sites_that_nothing_can_scale_are_left_alone(sources, tmp_path, family):
    report = quantize(sources / family, tmp_path / "out", recipe="awq", bits=3)
    fixed = {group.site for group in layer_plan(config_of(sources / family), 0) if group.fixed}
    assert fixed == FIXED.get(family, set())
    for _, site in report.sites():
        if site.site in fixed:
            assert (site.alphas, site.alpha) == ((0.0,), 0.0)
            assert (site.channel_scales == 1.0).all()
            assert site.loss_clipped < site.loss_rtn  # clipped all the same


def test_rows_that_were_divided_are_clipped_as_they_are_stored(sources, tmp_path):
    """v_proj of OLMo 2 is clipped at a site that nothing scales, and produces one that is scaled."""
    report = quantize(sources / "olmo2", tmp_path / "out", recipe="awq", bits=3)
    checkpoint = Checkpoint.open(tmp_path / "out")
    config, quantization = (
        ModelConfig.from_json(checkpoint.config),
        awq_ref.load_model(tmp_path / "out").quantization,
    )
    sites = {site.site: site for layer, site in report.sites() if layer == 0}
    rows = (
        sites["self_attn.o"].channel_scales.reshape(4, 16)[::2].reshape(-1)
    )  # one per row of v: heads 0 and 2
    assert (rows != 1.0).any()
    clip = sites["self_attn.qkv"].clips["self_attn.v_proj"]  # (rows, groups)
    name = "model.layers.0.self_attn.v_proj"
    stored = dequantize_linear(read_quantized_linear(checkpoint, config, name, quantization))
    largest = np.abs(stored).reshape(*clip.shape, -1).max(axis=2)
    # The grid of a clipped group reaches its limits up to half a step of the zero point, 1/14 of the range of 3 bits,
    # and the range is at most twice the limit.
    assert (largest <= clip * (1 + 1 / 7) * 1.01).all()
    divided = Checkpoint.open(sources / "olmo2").read(f"{name}.weight") / rows[:, None]
    assert (clip < np.abs(divided).reshape(*clip.shape, -1).max(axis=2) * 0.99).any()


@pytest.mark.parametrize(
    "family", ["olmo2", "gemma2", "phi3", "granite", "stablelm", "starcoder2", "cohere", "mixtral"]
)
@pytest.mark.parametrize("recipe", ["llm-awq", "autoawq", "gptq"])
def test_the_recipes_of_others(sources, tmp_path, family, recipe):
    quantize(sources / family, tmp_path / "out", recipe=recipe, layout="pack-quantized")
    # Twice the error: these recipes do not compensate for the rounding of the stored norm.
    assert distance(tmp_path / "out", sources / family) < 2 * EIGHT_BIT_ERROR


@EVERY_FAMILY
def test_saved_statistics_give_the_same_bytes(sources, tmp_path, family):
    quantize(sources / family, tmp_path / "direct")
    statistics = awq_ref.calibrate(sources / family, calibration=IDS, shown=False)
    quantize(sources / family, tmp_path / "again", calibration=None, statistics=statistics)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("direct", "again"))
    assert first == second


@EVERY_FAMILY
@pytest.mark.parametrize("told", [True, False])
def test_the_errors_of_every_linear_are_small_and_known(sources, tmp_path, family, told):
    report = quantize(sources / family, tmp_path / "out", bits=8)
    found = compare_models(
        sources / family, tmp_path / "out", report=report if told else None, calibration=IDS, shown=False
    )
    config = config_of(sources / family)
    names = [config.family.layer_prefix.format(layer=row.layer) + row.linear for row in found.rows]
    assert names == list(model_linear_shapes(config))
    # A scale that is not undone would leave an error of its own size. 8 bits leave 0.33 %; an estimate of a scale
    # between two linears is off by as much again.
    assert max(row.errors.weight_error for row in found.rows) < 0.02
    kinds = {"norm": "norm", "linear": "report" if told else "estimate", "none": "-"}
    for row in found.rows:
        group = next(g for g in layer_plan(config, row.layer) if row.linear in g.consumers)
        assert row.columns_from == kinds[group.producer_kind]


@pytest.mark.parametrize(
    "family", ["gemma2", "phi3", "mistral", "stablelm", "cohere", "gpt2", "falcon", "qwen3_moe"]
)
def test_outliers_grow_without_a_change_of_the_function(sources, tmp_path, family):
    write_tiny_family(tmp_path / "model", family, torch_dtype="float32")
    grow_outliers(tmp_path / "model", tmp_path / "grown", factor=32.0)
    assert distance(tmp_path / "grown", tmp_path / "model") < 1e-5


def test_norms_that_took_no_scales_keep_their_bytes(sources, tmp_path):
    quantize(sources / "gemma", tmp_path / "out", recipe="rtn")
    before, after = (Checkpoint.open(folder) for folder in (sources / "gemma", tmp_path / "out"))
    for name in (name for name in after.names if "norm" in name):
        np.testing.assert_array_equal(before.raw(name), after.raw(name))


def test_windows_are_told(sources):
    assert "window 3 in 1 of 2 layers" in describe_model(sources / "gemma2")
    assert "window" not in describe_model(sources / "llama")
    assert "qkv_proj" in describe_model(sources / "phi3", tensors=True)


@pytest.mark.parametrize(
    ("family", "kib"), [("llama", 2048), ("gemma2", 1024 + 128.5), ("mistral", 2 * 128.5)]
)
def test_the_memory_of_the_cache_counts_windows(tmp_path, family, kib):
    """2 layers of 2 heads of 16: a KiB holds 4 columns of a layer. A context of 4096, a window of 3 and a page: 514."""
    write_tiny_family(tmp_path / "model", family, max_position_embeddings=4096)
    quantize(tmp_path / "model", tmp_path / "out", recipe="rtn")
    said = f"{kib:.2f} KiB" if kib < 1024 else f"{kib / 1024:.2f} MiB"
    assert describe_model(tmp_path / "out").count(f" {said} |") == 6  # one for every residency and head


@EVERY_FAMILY
def test_a_tensor_that_is_missing_is_named(tmp_path, family):
    tensors = write_tiny_family(tmp_path / "model", family)
    gone = next(name for name in reversed(tensors) if ".1." in name)
    rest = {name: values for name, values in tensors.items() if name != gone}
    write_weights(tmp_path / "model", rest, dtype="float16")
    with pytest.raises(MissingTensorError, match=gone):
        awq_ref.load_model(tmp_path / "model")
