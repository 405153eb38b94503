"""The quantization_config of every layout, written and read; the keys of AutoAWQ and compressed-tensors."""

import pytest

from awq_ref.checkpoint import (
    CONFIG_FORMATS,
    QuantizationConfig,
    output_config,
    read_quantization_config,
    write_quantization_config,
)
from awq_ref.errors import FormatError, RangeError, UnsupportedError
from awq_ref.pack import FOLDER_LAYOUTS
from awq_ref.spec import BITS, QuantSpec

GEMM = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": ["lm_head"],
}
WEIGHTS = {
    "num_bits": 3,
    "type": "int",
    "symmetric": False,
    "strategy": "group",
    "group_size": 64,
    "actorder": None,
    "observer": "minmax",
    "dynamic": False,
}
PACK_QUANTIZED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "global_compression_ratio": None,
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": WEIGHTS,
            "input_activations": None,
            "output_activations": None,
        }
    },
    "kv_cache_scheme": None,
}


GROUP = PACK_QUANTIZED["config_groups"]["group_0"]


def groups(*entries):
    """PACK_QUANTIZED with other groups."""
    return PACK_QUANTIZED | {"config_groups": {f"group_{i}": entry for i, entry in enumerate(entries)}}


def packed(**changes):
    """PACK_QUANTIZED with other weights."""
    return groups(GROUP | {"weights": WEIGHTS | changes})


def test_gemm_is_written_in_autoawqs_keys():
    assert write_quantization_config(QuantSpec(), "gemm", ignored=["lm_head"]) == GEMM
    assert write_quantization_config(QuantSpec(), "gemm")["modules_to_not_convert"] is None


def test_gemm_says_zero_point_for_symmetric_integers_too_for_it_stores_their_eights():
    assert write_quantization_config(QuantSpec(symmetric=True), "gemm")["zero_point"] is True


def test_pack_quantized_is_written_in_compressed_tensors_keys():
    spec = QuantSpec(bits=3, group_size=64)
    assert write_quantization_config(spec, "pack-quantized", ignored=("lm_head",)) == PACK_QUANTIZED


def test_one_group_per_row_is_the_strategy_channel():
    config = write_quantization_config(QuantSpec(group_size=-1), "pack-quantized")
    weights = config["config_groups"]["group_0"]["weights"]
    assert (weights["strategy"], weights["group_size"]) == ("channel", None)


def test_every_layout_has_its_keys():
    assert set(CONFIG_FORMATS) == set(FOLDER_LAYOUTS)


@pytest.mark.parametrize(
    "layout, bits, symmetric",
    [
        *((version, 4, False) for version in ("gemm", "gemv", "gemv_fast", "llm-awq")),
        *(
            (name, bits, symmetric)
            for name in ("pack-quantized", "gptq", "gptq_v2")
            for bits in BITS
            for symmetric in (False, True)
        ),
    ],
)
@pytest.mark.parametrize("group_size", [-1, 32, 128])
def test_what_is_written_is_read(layout, bits, symmetric, group_size):
    spec = QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric)
    config = write_quantization_config(spec, layout, ignored=["lm_head"])
    assert read_quantization_config(config) == QuantizationConfig(spec, layout, ("lm_head",))


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "awq", "zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"},
        {
            "quant_method": "awq",
            "zero_point": True,
            "group_size": 128,
            "bits": 4,
            "checkpoint_format": "gemm",
        },
        GEMM | {"modules_to_not_convert": None},
    ],
)
def test_other_spellings_of_gemm(config):
    assert read_quantization_config(config) == QuantizationConfig(QuantSpec(), "gemm")


def test_no_zero_point_means_symmetric():
    assert read_quantization_config(GEMM | {"zero_point": False}).spec.symmetric


@pytest.mark.parametrize("changes", [{"actorder": a} for a in ("weight", "static", False, "group")])
def test_orders_are_the_business_of_the_tensors(changes):
    assert read_quantization_config(packed(**changes)).spec == QuantSpec(bits=3, group_size=64)


@pytest.mark.parametrize(
    "config",
    [
        groups(GROUP, GROUP | {"targets": ["re:.*mlp.*", "lm_head"]}),  # equal weights
        groups(GROUP, {"targets": ["Attention"], "weights": None}),
        groups(GROUP | {"targets": ["model.layers.0.mlp.up_proj"]}),
        packed(observer="mse", observer_kwargs={"averaging_constant": 0.01}, scale_dtype=None),
        {key: value for key, value in PACK_QUANTIZED.items() if key != "kv_cache_scheme"},
        PACK_QUANTIZED | {"sparsity_config": {}, "transform_config": {}, "version": "0.12.2"},
        PACK_QUANTIZED | {"sparsity_config": {"format": "dense", "global_sparsity": 0.14}},
    ],
)
def test_what_other_producers_of_pack_quantized_write(config):
    assert read_quantization_config(config) == QuantizationConfig(
        QuantSpec(bits=3, group_size=64), "pack-quantized", ("lm_head",)
    )


def without(config, key):
    return {name: value for name, value in config.items() if name != key}


@pytest.mark.parametrize(
    "config, match",
    [
        ({}, "has no quant_method"),
        (without(GEMM, "bits"), "has no bits"),
        (without(GEMM, "zero_point"), "has no zero_point"),
        (GEMM | {"bits": "4"}, "bits must be of type int; got '4'"),
        (GEMM | {"bits": True}, "bits must be of type int; got True"),
        (GEMM | {"group_size": 0}, r"cannot be read\. QuantSpec: group_size must lie in"),
        (GEMM | {"zero_point": 1}, "zero_point must be of type bool; got 1"),
        (
            GEMM | {"modules_to_not_convert": "lm_head"},
            "modules_to_not_convert must be a list of module names",
        ),
        (GEMM | {"modules_to_not_convert": [1]}, "modules_to_not_convert must be a list of module names"),
        (without(PACK_QUANTIZED, "format"), "has no format"),
        (PACK_QUANTIZED | {"config_groups": []}, "config_groups must be of type dict"),
        (packed(num_bits=5), r"cannot be read\. QuantSpec: bits must be one of 2, 3, 4, 8; got 5"),
        (packed(group_size=None), "has no group_size"),
        (GEMM | {"w_bit": 3}, "bits and w_bit must say the same; got bits=4, w_bit=3. Remove the wrong one"),
        (GEMM | {"q_group_size": 64}, "group_size and q_group_size must say the same"),
        (GEMM | {"checkpoint_format": "gemv"}, "version and checkpoint_format must say the same"),
        (PACK_QUANTIZED | {"ignore": ["re:("]}, r"ignore must hold regular expressions after re:; 're:\('"),
        (
            PACK_QUANTIZED | {"ignore": ["re:(a|a)*b"]},
            r"patterns that repeat no group.*; got 're:\(a\|a\)\*b'",
        ),
        (PACK_QUANTIZED | {"ignore": ["re:" + ".*" * 6]}, "nothing more than 5 times"),
        (PACK_QUANTIZED | {"config_groups": {"a": None}}, "config_groups must hold objects; got None"),
    ],
)
def test_a_config_that_is_wrong(config, match):
    with pytest.raises(FormatError, match=match):
        read_quantization_config(config)


@pytest.mark.parametrize(
    "config, match",
    [
        (
            {"quant_method": "bitsandbytes"},
            "quant_method 'bitsandbytes' is not supported; awq_ref reads awq, gptq, compressed-tensors, mlx, fp8",
        ),
        (
            GEMM | {"version": "marlin"},
            "the AWQ layout 'marlin' is not supported; awq_ref reads version gemm, gemv",
        ),
        (GEMM | {"bits": 8}, "layout gemm with 8 bits"),
        (PACK_QUANTIZED | {"format": "int-quantized"}, "the format 'int-quantized'"),
        (PACK_QUANTIZED | {"config_groups": {}}, "0 config_groups"),
        (groups(GROUP | {"input_activations": {"num_bits": 8}}), "quantization of activations"),
        (groups(GROUP | {"output_activations": {"num_bits": 8}}), "quantization of outputs"),
        (
            groups(GROUP, GROUP | {"weights": WEIGHTS | {"num_bits": 8}}),
            "2 config_groups that differ in num_bits",
        ),
        (
            PACK_QUANTIZED | {"kv_cache_scheme": {"num_bits": 8}},
            r"quantization of the cache \(kv_cache_scheme\)",
        ),
        (PACK_QUANTIZED | {"sparsity_config": {"format": "sparse-24"}}, "sparse weights"),
        (PACK_QUANTIZED | {"transform_config": {"config_groups": {}}}, "transforms"),
        (packed(type="float"), "the weight type 'float'"),
        (packed(strategy="tensor"), "the strategy 'tensor'"),
        (packed(actorder="columns"), "actorder 'columns'"),
    ],
)
def test_a_config_of_another_kind(config, match):
    with pytest.raises(UnsupportedError, match=match):
        read_quantization_config(config)


def test_an_unknown_layout():
    with pytest.raises(RangeError, match="layout must be one of 'gemm', .*'mlx'; got 'marlin'"):
        write_quantization_config(QuantSpec(), "marlin")


@pytest.mark.parametrize("spec", [QuantSpec(bits=3), QuantSpec(scale_dtype="float32")])
def test_gemm_cannot_hold_every_spec(spec):
    with pytest.raises(
        UnsupportedError, match="gemm holds 4 bits with float16 scales; .* Use pack-quantized"
    ):
        write_quantization_config(spec, "gemm")


def test_the_config_of_the_quantized_model():
    source = {
        "model_type": "llama",
        "quantization_config": {"quant_method": "old"},
        "awq_ref": {"old": 1},
        "x": [1],
    }
    record = {"version": "0.1", "recipe": "awq", "calibration": "sha256:ab"}
    config = output_config(source, QuantSpec(), "gemm", ignored=["lm_head"], record=record)
    spec = {"bits": 4, "group_size": 128, "symmetric": False, "range_rule": "zero", "scale_dtype": "float16"}
    assert config == {
        "model_type": "llama",
        "x": [1],
        "quantization_config": GEMM,
        "awq_ref": record | {"spec": spec, "layout": "gemm"},
    }
    assert source["awq_ref"] == {"old": 1}
