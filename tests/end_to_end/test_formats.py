"""Checkpoints as other tools write them: each loads, and computes what a float model of the same numbers computes."""

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits
from helpers.command_line import run
from helpers.matmul_bounds import factored_bound
from helpers.stored_checkpoints import FORMATS, change_tensors, write_stored, write_twin
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref
from awq_ref import cli
from awq_ref.checkpoint import Checkpoint, Float8Config
from awq_ref.model import block_linear_shapes, block_prefix
from awq_ref.pack import FOLDER_LAYOUTS, LAYOUTS
from awq_ref.pipeline import compare_models, describe_model
from awq_ref.pipeline.stored import open_quantization, read_quantized_linear
from awq_ref.report.memory import weight_bytes
from awq_ref.report.tables import format_bytes

IDS = np.random.default_rng(3).integers(0, 250, (2, 50))


@pytest.fixture(scope="module", params=FORMATS)
def folders(request, tmp_path_factory):
    """A folder of a format, and its float twin."""
    root = tmp_path_factory.mktemp("formats")
    tensors = write_stored(root / "stored", FORMATS[request.param])
    write_twin(root / "twin", tensors)
    return root / "stored", root / "twin", tensors


def test_dense_it_is_its_twin_bit_for_bit(folders):
    stored, twin, _ = folders
    logits = awq_ref.load_model(stored, residency="dense").logits(IDS)
    assert np.isfinite(logits).all()
    assert_same_bits(logits, awq_ref.load_model(twin).logits(IDS))


def test_every_linear_multiplies_by_its_weight_within_the_bound(folders, rng):
    """[AWQ-10]: the bound of helpers/matmul_bounds.py, against float64 products with the twin's weight."""
    stored, _, tensors = folders
    checkpoint, model = Checkpoint.open(stored), awq_ref.load_model(stored)
    quantization = open_quantization(checkpoint)
    if isinstance(quantization, Float8Config):
        assert model.residency_note == "float32 linears: 14, from float8"
        return
    for layer, block in enumerate(model.decoder.blocks):
        for name in block_linear_shapes(model.config):
            place = f"{block_prefix(model.config, layer)}{name}"
            weight = tensors[f"{place}.weight"]
            x = rng.normal(0, 1, (5, weight.shape[1])).astype(np.float32)
            integers = read_quantized_linear(checkpoint, model.config, place, quantization)
            exact = x.astype(np.float64) @ weight.T.astype(np.float64)
            rounded = np.abs(x).astype(np.float64) @ np.abs(weight).T * 2.0**-24  # of the twin's weight
            assert_close(block.linears[name](x), exact, atol=factored_bound(x, integers) + rounded)


def test_packed_its_logits_are_those_of_its_twin(folders):
    # Some 15 products in a row, each within 1e-6 of the largest output: 1e-5, which parity asks for as well.
    stored, twin, _ = folders
    expected = awq_ref.load_model(twin).logits(IDS)
    logits = awq_ref.load_model(stored).logits(IDS)
    assert_close(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_the_commands_take_it(capsys, folders, text):
    stored, twin, _ = folders
    texts = []
    for folder in (stored, twin):
        assert cli.main(["generate", str(folder), "--prompt", "def ", "--max-new-tokens", "8"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert run(capsys, "perplexity", stored, "--text", text, "--seq-len", 64, "--max-tokens", 500) == (0, "")
    assert cli.main(["inspect", str(stored)]) == 0
    said = capsys.readouterr().out
    assert "float8 (e4m3)" in said or "layout" in said
    assert "made by another tool" in " ".join(said.replace("|", " ").split())


def test_an_embedding_of_integers_is_the_head_where_they_are_tied(tmp_path):
    tensors = write_stored(tmp_path / "stored", FORMATS["mlx"], tie_word_embeddings=True)
    write_twin(tmp_path / "twin", tensors, tie_word_embeddings=True)
    model = awq_ref.load_model(tmp_path / "stored", residency="dense")
    assert model.decoder.lm_head.weight is model.decoder.embed_tokens
    assert_same_bits(model.logits(IDS), awq_ref.load_model(tmp_path / "twin").logits(IDS))


# Fused linears, norms stored as their distance from 1, biases, experts: family -> changes to its tiny config.json
OTHERS = {
    "phi3": {},
    "gemma2": {},
    "starcoder2": {},
    "cohere": {},
    "qwen3_moe": {"moe_intermediate_size": 64},
}


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("form", ["gemv_fast", "gptq in the order of activations", "mlx", "fp8"])
def test_families_whose_tensors_differ(tmp_path, family, form):
    tensors = write_stored(tmp_path / "stored", FORMATS[form], family=family, **OTHERS[family])
    write_twin(tmp_path / "twin", tensors, family=family, **OTHERS[family])
    logits = awq_ref.load_model(tmp_path / "stored", residency="dense").logits(IDS)
    expected = awq_ref.load_model(tmp_path / "twin").logits(IDS)
    assert_same_bits(logits, expected)
    packed = awq_ref.load_model(tmp_path / "stored").logits(IDS)
    assert_close(packed, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["gptq in the order of activations", "mlx", "gptq by rows", "gemv_fast"])
def test_errors_are_measured_by_the_columns_own_steps(tmp_path, form):
    tensors = write_stored(tmp_path / "stored", FORMATS[form])
    write_twin(tmp_path / "twin", tensors)
    found = compare_models(tmp_path / "twin", tmp_path / "stored", calibration=IDS, shown=False)
    assert [row.errors.weight_error for row in found.rows] == [0.0] * 14
    assert all(0 < row.errors.delta_ratio < 100 for row in found.rows)
    assert all(row.errors.scaled.delta > 0 for row in found.rows)


@pytest.mark.parametrize("layout", FOLDER_LAYOUTS)
def test_what_is_quantized_here_can_be_stored_in_any_layout(tmp_path, layout):
    write_tiny_llama(tmp_path / "float", intermediate_size=128)
    folders = {name: tmp_path / name for name in {"pack-quantized", layout}}
    for name, folder in folders.items():
        awq_ref.quantize_model(
            tmp_path / "float", folder, recipe="rtn", group_size=32, layout=name, shown=False
        )  # fmt: skip
    logits = {
        name: awq_ref.load_model(folder, residency="dense").logits(IDS) for name, folder in folders.items()
    }
    if "offset" in LAYOUTS[layout].holds:  # scale times zero point was rounded: 2**-11 of up to 15 steps
        assert (
            0 < np.abs(logits[layout] - logits["pack-quantized"]).max() < 0.02 * np.abs(logits[layout]).max()
        )
    else:
        assert_same_bits(logits[layout], logits["pack-quantized"])


@pytest.mark.parametrize("form, offset", [("gemm", False), ("gemv_fast", True), ("llm-awq", True)])
def test_memory_is_what_inspect_foresees(tmp_path, form, offset):
    write_stored(tmp_path / "stored", FORMATS[form])
    model = awq_ref.load_model(tmp_path / "stored")
    shapes = [*block_linear_shapes(model.config).values()] * 2
    foreseen = weight_bytes(shapes, spec=model.quantization.spec, offset=offset)["packed"]
    assert model.resident_bytes()["linears"] == foreseen
    assert format_bytes(foreseen) in describe_model(tmp_path / "stored")


def test_what_stays_in_memory_is_said(tmp_path):
    notes = {}
    for name in ("gptq in the order of activations", "gptq 8 bits, uneven", "mlx"):
        write_stored(tmp_path / name, FORMATS[name])
        notes[name] = awq_ref.load_model(tmp_path / name).residency_note
    assert notes["gptq in the order of activations"] == "linears: 14 packed"
    assert notes["gptq 8 bits, uneven"] == "linears: 14 packed"  # 48 + 16, and 48 + 48 + 32: groups of 16
    assert notes["mlx"] == "linears: 14 packed"


def test_groups_of_single_columns_stay_dense(tmp_path):
    form = FORMATS["gptq"]
    write_stored(tmp_path / "model", form)

    def scatter(stored):
        for name, (dtype, array) in stored.items():
            if name.endswith("g_idx"):
                index = array.copy()
                index[0] = 1  # 31 inputs in one group, 33 in another
                stored[name] = (dtype, index)

    change_tensors(tmp_path / "model", scatter)
    assert awq_ref.load_model(tmp_path / "model").residency_note == "linears: 14 dense"
