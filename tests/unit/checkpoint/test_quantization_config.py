"""The quantization_config of both layouts, written and read."""

import pytest

from awq_ref.checkpoint import (
    output_config,
    read_quantization_config,
    write_quantization_config,
)
from awq_ref.errors import FormatError, RangeError, UnsupportedError
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


def packed(**changes):
    """PACK_QUANTIZED with other weights."""
    group = PACK_QUANTIZED["config_groups"]["group_0"] | {"weights": WEIGHTS | changes}
    return PACK_QUANTIZED | {"config_groups": {"group_0": group}}


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


@pytest.mark.parametrize(
    "layout, bits, symmetric",
    [
        ("gemm", 4, False),
        *(("pack-quantized", bits, symmetric) for bits in BITS for symmetric in (False, True)),
    ],
)
@pytest.mark.parametrize("group_size", [-1, 32, 128])
def test_what_is_written_is_read(layout, bits, symmetric, group_size):
    spec = QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric)
    config = write_quantization_config(spec, layout, ignored=["lm_head"])
    assert read_quantization_config(config) == (spec, layout, ("lm_head",))


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
    assert read_quantization_config(config) == (QuantSpec(), "gemm", ())


def test_no_zero_point_means_symmetric():
    assert read_quantization_config(GEMM | {"zero_point": False}).spec.symmetric


@pytest.mark.parametrize("changes", [{"actorder": "weight"}, {"actorder": "static"}, {"actorder": False}])
def test_orders_that_leave_the_columns_in_place(changes):
    assert read_quantization_config(packed(**changes)).spec == QuantSpec(bits=3, group_size=64)


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
        (packed(group_size=None), "group_size must be of type int; got None"),
    ],
)
def test_a_config_that_is_wrong(config, match):
    with pytest.raises(FormatError, match=match):
        read_quantization_config(config)


@pytest.mark.parametrize(
    "config, match",
    [
        (
            {"quant_method": "gptq"},
            "quant_method 'gptq' is not supported; awq_ref reads awq and compressed-tensors",
        ),
        (GEMM | {"version": "gemv"}, "the AWQ layout 'gemv' is not supported; awq_ref reads version gemm"),
        (GEMM | {"bits": 8}, "layout gemm with 8 bits"),
        (PACK_QUANTIZED | {"format": "int-quantized"}, "the format 'int-quantized'"),
        (PACK_QUANTIZED | {"config_groups": {}}, "0 config_groups"),
        (PACK_QUANTIZED | {"config_groups": {"a": {"targets": ["q_proj"]}}}, r"the targets \['q_proj'\]"),
        (
            PACK_QUANTIZED
            | {"config_groups": {"a": {"targets": ["Linear"], "input_activations": {"num_bits": 8}}}},
            "quantization of activations",
        ),
        (packed(type="float"), "the weight type 'float'"),
        (packed(strategy="tensor"), "the strategy 'tensor'"),
        (packed(actorder="group"), "actorder 'group'"),
    ],
)
def test_a_config_of_another_kind(config, match):
    with pytest.raises(UnsupportedError, match=match):
        read_quantization_config(config)


def test_an_unknown_layout():
    with pytest.raises(RangeError, match="layout must be one of 'gemm', 'pack-quantized'; got 'gemv'"):
        write_quantization_config(QuantSpec(), "gemv")


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
