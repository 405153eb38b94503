"""Checkpoints of other tools that are not what they should be: exit code 2, one message that names tensor or key."""

import json

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.command_line import assert_refused, run
from helpers.stored_checkpoints import FORMATS, change_tensors, write_stored
from helpers.tiny_checkpoint import edit_json, write_tiny_llama

import awq_ref

IDS = np.arange(20)[None]
UP = "model.layers.1.mlp.up_proj"
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def stored(tmp_path):
    """Write a format to a folder, with some tensors changed, added or (None) taken away."""

    def write(name, **changes):
        folder = tmp_path / "model"
        write_stored(folder, FORMATS[name])

        def change(tensors):
            for place, value in changes.items():
                if value is None:
                    del tensors[place]
                else:
                    tensors[place] = value(tensors[place]) if callable(value) else value

        change_tensors(folder, change)
        return folder

    return write


def refused(capsys, folder, *words):
    assert_refused(run(capsys, "generate", folder, "--prompt", "a", "--max-new-tokens", 1), *words)


@pytest.mark.parametrize(
    "form, end",
    [
        ("gemm", "qzeros"), ("gemv", "scales"), ("gemv_fast", "qzeros"), ("llm-awq", "scaled_zeros"),
        ("gptq", "qweight"), ("gptq_v2", "scales"), ("pack-quantized", "weight_shape"), ("mlx", "biases"),
        ("fp8", "weight_scale_inv"),
    ],
)  # fmt: skip
def test_a_missing_tensor_is_named(capsys, stored, form, end):
    refused(capsys, stored(form, **{f"{UP}.{end}": None}), f"{UP}.{end}", "has no tensor")


def test_a_linear_that_is_missing_altogether_is_named(capsys, stored):
    ends = ("qweight", "qzeros", "scales", "g_idx", "bias")
    refused(capsys, stored("gptq", **{f"{Q}.{end}": None for end in ends}), f"{Q}.qweight", "has no tensor")


@pytest.mark.parametrize(
    "form, name",
    [
        ("gemm", f"{UP}.g_idx"),
        ("gemm", f"{UP}.weight_packed"),
        ("gemm", "model.layers.2.mlp.up_proj.qweight"),
        ("pack-quantized", f"{UP}.weight_global_scale"),
        ("pack-quantized bfloat16", f"{UP}.weight_zero_point"),
        ("fp8", f"{UP}.input_scale"),
        ("mlx", "model.vision.weight"),
    ],
)
def test_a_tensor_that_nothing_reads_is_named(capsys, stored, form, name):
    folder = stored(form, **{name: ("F16", np.ones(4, dtype=np.float16))})
    refused(capsys, folder, name, "no others", "LlamaForCausalLM")


@pytest.mark.parametrize("name", ["generate", "quantize"])
def test_a_float_checkpoint_with_a_tensor_too_many(capsys, tmp_path, name):
    write_tiny_llama(tmp_path / "model", num_hidden_layers=2)
    edit_json(tmp_path / "model" / "config.json", num_hidden_layers=1)
    more = {"generate": ["--prompt", "a"], "quantize": [tmp_path / "out", "--group-size", 16]}
    result = run(capsys, name, tmp_path / "model", *more[name])
    assert_refused(result, "model.layers.1.input_layernorm.weight", "no others", "and 5 more")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.1.attn.masked_bias",
    ],
)
def test_buffers_that_are_computed_are_left_unread(stored, name):
    plain = awq_ref.load_model(stored("gemm")).logits(IDS)
    folder = stored("gemm", **{name: ("F32", np.ones(8, dtype=np.float32))})
    assert_same_bits(awq_ref.load_model(folder).logits(IDS), plain)


def test_a_head_beside_a_tied_embedding_is_left_unread(tmp_path):
    write_tiny_llama(tmp_path / "model", tie_word_embeddings=False)
    edit_json(tmp_path / "model" / "config.json", tie_word_embeddings=True)
    model = awq_ref.load_model(tmp_path / "model")
    assert model.decoder.lm_head.weight is model.decoder.embed_tokens


def test_a_bias_that_the_model_does_not_have_must_be_zero(capsys, stored):
    bias = np.zeros(128, dtype=np.float16)
    bias[7] = 1
    refused(
        capsys,
        stored("gptq", **{f"{UP}.bias": ("F16", bias)}),
        f"{UP}.bias must be 0 or absent",
        "config.json",
    )


def cut(tensor):
    dtype, array = tensor
    return dtype, np.ascontiguousarray(array[: len(array) // 2])


@pytest.mark.parametrize(
    "form, end, words",
    [
        ("gemm", "qzeros", (f"{UP}: gemm: qzeros must be int32 of shape (2, 16)",)),
        ("gemm", "qweight", (f"{UP}: gemm: qzeros must be int32 of shape (1, 16)",)),
        ("gptq", "g_idx", (f"{UP}: gptq: g_idx must be int32 of shape (64)",)),
        ("mlx", "scales", (f"{UP}: mlx: scales must be", "(128, 2)")),
        ("fp8", "weight", (f"{UP}.weight must have shape (128, 64)",)),
        ("fp8", "weight_scale_inv", (f"{UP}.weight_scale_inv: must have shape (3, 2)",)),
    ],
)
def test_a_wrong_shape_is_named(capsys, stored, form, end, words):
    refused(capsys, stored(form, **{f"{UP}.{end}": cut}), *words)


def test_a_linear_of_another_size_is_named(capsys, stored):
    folder = stored("gptq")
    edit_json(folder / "config.json", intermediate_size=64)
    refused(capsys, folder, "layer 0, mlp.gate_proj must map 64 features to 64; got 64 to 128")


def test_a_fused_linear_of_another_size_is_named(capsys, tmp_path):
    write_stored(tmp_path / "model", FORMATS["gemm"], family="phi3")
    edit_json(tmp_path / "model" / "config.json", intermediate_size=64)
    refused(
        capsys, tmp_path / "model", "mlp.gate_up_proj must have shape (128, 64) by config.json", "(256, 64)"
    )


@pytest.mark.parametrize(
    "form, key, names",
    [
        ("gemm", "modules_to_not_convert", ["lm_head", "up_proj"]),
        ("gemv", "modules_to_not_convert", ["model.layers.1"]),
        ("pack-quantized", "ignore", ["re:.*layers[.]1[.]mlp[.]up.*"]),
        ("fp8", "modules_to_not_convert", [UP]),
    ],
)
def test_a_module_that_must_be_float_is_float(capsys, stored, form, key, names):
    folder = stored(form)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    edit_json(folder / "config.json", quantization_config=config | {key: names})
    refused(capsys, folder, "must be float", "not quantized", "mlp" if "re:" in names[0] else "model.layers")


def test_a_head_that_gptq_says_is_float(capsys, stored):
    folder = stored("gptq with its head")
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    edit_json(folder / "config.json", quantization_config=config | {"lm_head": False})
    refused(capsys, folder, "lm_head must be float")


@pytest.mark.parametrize("form", ["gemm", "gptq", "pack-quantized", "mlx", "fp8"])
def test_a_linear_may_be_float_without_being_named(tmp_path, form):
    tensors = write_stored(tmp_path / "model", FORMATS[form])

    def make_float(stored):
        for name in [name for name in stored if name.startswith(f"{UP}.")]:
            del stored[name]
        stored[f"{UP}.weight"] = ("F32", tensors[f"{UP}.weight"])

    before = awq_ref.load_model(tmp_path / "model", residency="dense").logits(IDS)
    change_tensors(tmp_path / "model", make_float)
    assert_same_bits(awq_ref.load_model(tmp_path / "model", residency="dense").logits(IDS), before)


def test_a_float8_number_that_is_none_is_located(capsys, stored):
    def spoil(tensor):
        array = tensor[1].copy()
        array[2, 3] = 0x7F
        return tensor[0], array

    refused(capsys, stored("fp8", **{f"{UP}.weight": spoil}), f"{UP}.weight must be finite", "(2, 3)")


@pytest.mark.parametrize(
    "config, words",
    [
        ({"quant_method": "hqq"}, ("quant_method 'hqq' is not supported", "gptq", "fp8")),
        ({"quant_method": "awq", "version": "marlin"}, ("the AWQ layout 'marlin'", "gemv_fast")),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"x": {}}}, ("`dynamic`",)),
        ({"quant_method": "gptq", "bits": 6, "group_size": 32}, ("bits must be one of 2, 3, 4, 8; got 6",)),
    ],
)
@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_a_configuration_that_is_not_read(capsys, stored, config, words, command):
    folder = stored("gemm")
    edit_json(folder / "config.json", quantization_config=config)
    more = ["--prompt", "a"] if command == "generate" else []
    assert_refused(run(capsys, command, folder, *more), *words)


def test_what_is_quantized_is_not_quantized_again(capsys, stored, tmp_path):
    for form in ("mlx", "fp8"):
        assert_refused(run(capsys, "quantize", stored(form), tmp_path / "out"), "quantized already")


def test_errors_are_of_integers(capsys, stored, tmp_path):
    write_tiny_llama(tmp_path / "float", intermediate_size=128, tie_word_embeddings=False)
    result = run(capsys, "inspect", "--errors", tmp_path / "float", stored("fp8"))
    assert_refused(result, "must hold integers", "float8")


@pytest.mark.parametrize("name, word", [("llm-w4-g128-awq-v2.pt", "pickles"), ("model.gguf", "GGUF")])
def test_weights_in_other_files_say_what_to_do(capsys, stored, name, word):
    folder = stored("llm-awq")
    (folder / "model.safetensors").rename(folder / name)
    refused(capsys, folder, name, word, "safetensors")
