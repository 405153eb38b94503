"""The keys of GPTQ, MLX, llm-awq and float8 checkpoints, and which modules a configuration names."""

import pytest

from awq_ref.checkpoint import Float8Config, QuantizationConfig, output_config, read_quantization_config
from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.spec import QuantSpec

GPTQ = {
    "quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True, "sym": True, "lm_head": False,
    "checkpoint_format": "gptq", "pack_dtype": "int32", "damp_percent": 0.05, "true_sequential": True,
    "meta": {"quantizer": ["gptqmodel:4.0.0"]},
}  # fmt: skip
MLX = {"quant_method": "mlx", "group_size": 64, "bits": 4}
FP8 = {
    "quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head"],
}  # fmt: skip
FLOAT_WEIGHTS = {
    "num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False, "group_size": None,
}  # fmt: skip
DYNAMIC = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}


def float_quantized(activations=DYNAMIC, **changes):
    group = {"targets": ["Linear"], "weights": FLOAT_WEIGHTS | changes, "input_activations": activations}
    return {
        "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["re:.*gate$"],
        "config_groups": {"group_0": group},
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes, spec, layout, ignored",
    [
        ({}, QuantSpec(symmetric=True), "gptq", ("lm_head",)),
        ({"checkpoint_format": "gptq_v2"}, QuantSpec(symmetric=True), "gptq_v2", ("lm_head",)),
        ({"checkpoint_format": None, "format": "GPTQ"}, QuantSpec(symmetric=True), "gptq", ("lm_head",)),
        ({"sym": False, "bits": 3, "group_size": -1}, QuantSpec(3, -1), "gptq", ("lm_head",)),
        ({"lm_head": True}, QuantSpec(symmetric=True), "gptq", ()),
        ({"dynamic": {}}, QuantSpec(symmetric=True), "gptq", ("lm_head",)),
    ],
)
def test_gptq(changes, spec, layout, ignored):
    assert read_quantization_config(GPTQ | changes) == QuantizationConfig(spec, layout, ignored)


def test_the_keys_of_autogptqs_own_file():
    config = {
        "quant_method": "gptq",
        "bits": 8,
        "group_size": 32,
        "desc_act": False,
        "model_name_or_path": None,
    }
    assert read_quantization_config(config) == QuantizationConfig(QuantSpec(8, 32), "gptq", ("lm_head",))


@pytest.mark.parametrize("version", ["gemv", "gemv_fast", "GEMM"])
def test_the_backend_of_llm_awq_is_a_layout(version):
    config = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": version}
    assert read_quantization_config(config | {"backend": "llm-awq"}).layout == "llm-awq"
    assert read_quantization_config(config | {"backend": "autoawq"}).layout == version.lower()


def test_mlx_with_modules_that_differ():
    others = {
        "model.embed_tokens": {"group_size": 32, "bits": 8},
        "lm_head": False,
        "model.layers.0.mlp.up_proj": {"bits": 3},
        "model.layers.0.mlp.gate_proj": True,
    }
    found = read_quantization_config(MLX | {"mode": "affine"} | others)
    assert (found.spec, found.layout) == (QuantSpec(4, 64), "mlx")
    assert found.spec_of("model.embed_tokens") == QuantSpec(8, 32)
    assert found.spec_of("model.layers.0.mlp.up_proj") == QuantSpec(3, 64)
    assert found.spec_of("model.layers.1.mlp.up_proj") == QuantSpec(4, 64)
    assert [found.must_be_float(name) for name in ("lm_head", "model.embed_tokens", "other")] == [
        True,
        False,
        False,
    ]


def test_mlx_is_written_twice():
    config = output_config({"quantization": "old"}, QuantSpec(4, 64), "mlx", ignored=["lm_head"], record={})
    said = {"group_size": 64, "bits": 4, "mode": "affine", "lm_head": False}
    assert config["quantization"] == config["quantization_config"] == said
    assert "quantization" not in output_config(config, QuantSpec(), "gemm", record={})


@pytest.mark.parametrize(
    "config, expected",
    [
        (FP8, Float8Config((128, 128), "weight_scale_inv", ("lm_head",))),
        ({"quant_method": "fp8"}, Float8Config((0, 0), "weight_scale")),
        (float_quantized(), Float8Config((1, 0), "weight_scale", ("re:.*gate$",))),
        (float_quantized(None, strategy="tensor"), Float8Config((0, 0), "weight_scale", ("re:.*gate$",))),
        (
            float_quantized(strategy="block", block_structure=[128, 64]),
            Float8Config((128, 64), "weight_scale", ("re:.*gate$",)),
        ),
    ],
)
def test_float8(config, expected):
    assert read_quantization_config(config) == expected


@pytest.mark.parametrize(
    "config, match",
    [
        (GPTQ | {"bits": None}, "bits must be of type int; got None"),
        (GPTQ | {"sym": "yes"}, "sym must be of type bool; got 'yes'"),
        (GPTQ | {"desc_act": 1}, "desc_act must be true or false; got 1"),
        (GPTQ | {"format": "gptq_v2"}, "checkpoint_format and format must say the same"),
        (MLX | {"bits": 5}, r"cannot be read\. QuantSpec: bits must be one of 2, 3, 4, 8; got 5"),
        (MLX | {"lm_head": 4}, "lm_head must be true, false, or an object with bits and group_size; got 4"),
        ({"quant_method": "mlx", "bits": 4}, "has no group_size"),
        (FP8 | {"weight_block_size": 128}, "weight_block_size must be two positive numbers; got 128"),
        (FP8 | {"weight_block_size": [128, 0]}, "weight_block_size must be two positive numbers"),
        (FP8 | {"modules_to_not_convert": "lm_head"}, "must be a list of module names"),
        (float_quantized(strategy="block"), "block_structure must be two numbers; got None"),
    ],
)
def test_a_config_that_is_wrong(config, match):
    with pytest.raises(FormatError, match=match):
        read_quantization_config(config)


@pytest.mark.parametrize(
    "config, match",
    [
        (
            GPTQ | {"checkpoint_format": "marlin"},
            "the GPTQ format 'marlin' is not supported; awq_ref reads gptq and",
        ),
        (GPTQ | {"is_marlin_format": True}, "the marlin format"),
        (GPTQ | {"dynamic": {"+:.*up_proj": {"bits": 8}}}, "`dynamic`, bits that differ by module"),
        (GPTQ | {"pack_dtype": "int64"}, "pack_dtype 'int64'"),
        (MLX | {"mode": "mxfp4"}, "the MLX mode 'mxfp4'"),
        (MLX | {"lm_head": {"mode": "nvfp4", "bits": 4, "group_size": 16}}, "the MLX mode 'nvfp4'"),
        (FP8 | {"fmt": "e5m2"}, "the float8 format 'e5m2'"),
        (FP8 | {"activation_scheme": "static"}, "the activation_scheme 'static'"),
        (float_quantized(DYNAMIC | {"dynamic": False}), "static quantization of activations"),
        (float_quantized(num_bits=4), "4-bit weights of type 'float'"),
        (float_quantized(type="int"), "8-bit weights of type 'int'"),
        (float_quantized(strategy="group"), "the strategy 'group'"),
    ],
)
def test_a_config_of_another_kind(config, match):
    with pytest.raises(UnsupportedError, match=match):
        read_quantization_config(config)


@pytest.mark.parametrize(
    "pattern, module, named",
    [
        ("lm_head", "lm_head", True),
        ("lm_head", "model.lm_head_2", False),
        ("mlp.up_proj", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.11.mlp.up_proj", False),
        ("gate", "model.layers.1.mlp.gate_proj", False),
        ("re:.*up_proj$", "model.layers.1.mlp.up_proj", True),
        ("re:up_proj", "model.layers.1.mlp.up_proj", False),
        ("re:model[.]layers[.](0|1)[.]mlp", "model.layers.1.mlp.up_proj", True),
    ],
)
def test_which_modules_a_configuration_names(pattern, module, named):
    config = QuantizationConfig(QuantSpec(), "gemm", ("other", pattern))
    assert config.must_be_float(module) is named
    assert Float8Config((0, 0), "weight_scale", (pattern,)).must_be_float(module) is named
