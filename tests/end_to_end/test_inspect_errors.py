"""`awq-ref inspect --errors` on a tiny model: what it measures, and what it refuses."""

import json

import numpy as np
import pytest
from helpers.command_line import assert_refused, quantize_arguments, run
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref
from awq_ref import cli
from awq_ref.errors import FormatError, ShapeError, UnsupportedError
from awq_ref.pipeline import compare_models

IDS = np.random.default_rng(5).integers(0, 250, (8, 32))
SITES = {
    "self_attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}
OUTPUTS = {
    "q_proj": 64,
    "k_proj": 32,
    "v_proj": 32,
    "o_proj": 64,
    "gate_proj": 96,
    "up_proj": 96,
    "down_proj": 64,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "tiny"
    write_tiny_llama(folder)
    return folder


@pytest.fixture(scope="module")
def quantized(source, tmp_path_factory):
    """Return recipe -> (folder, report), made once each."""
    made = {}

    def make(recipe, bits=4):
        if (recipe, bits) not in made:
            folder = tmp_path_factory.mktemp("made") / f"{recipe}{bits}"
            report = awq_ref.quantize_model(
                source, folder, recipe=recipe, bits=bits, group_size=16, calibration=IDS, shown=False
            )
            made[recipe, bits] = folder, report
        return made[recipe, bits]

    return make


def compare(source, folder, **options):
    return compare_models(source, folder, **{"calibration": IDS, "shown": False} | options)


def by_name(report):
    return {(row.layer, row.linear): row for row in report.rows}


@pytest.mark.parametrize("bits", [2, 4])
def test_with_the_report_the_errors_are_those_that_the_search_saw(source, quantized, bits):
    """Two ways to one number: the search's own losses, from its float folds, and ours, from what is on the disk."""
    folder, report = quantized("awq", bits)
    found = by_name(compare(source, folder, report=report))
    assert len(found) == 2 * 7
    for layer, site in report.sites():
        rows = [found[layer, name] for name in SITES[site.site]]
        outputs = sum(OUTPUTS[name.rpartition(".")[2]] for name in SITES[site.site])
        loss = sum(row.errors.contributions.sum() for row in rows) / outputs
        # float32 weights and a float32 Gram matrix on either side: a few hundred roundings, with cancellation.
        assert loss == pytest.approx(site.loss_clipped, rel=1e-3)


def test_where_the_scales_are_known_from(source, quantized):
    folder, report = quantized("awq")
    known = {row.linear: (row.columns_from, row.rows_from) for row in compare(source, folder).rows}
    assert known["self_attn.q_proj"] == ("norm", "-")
    assert known["self_attn.v_proj"] == ("norm", "estimate")
    assert known["mlp.down_proj"] == ("estimate", "-")
    known = {
        row.linear: (row.columns_from, row.rows_from) for row in compare(source, folder, report=report).rows
    }
    assert known["mlp.up_proj"] == ("norm", "report")
    known = {
        row.linear: (row.columns_from, row.rows_from) for row in compare(source, quantized("rtn")[0]).rows
    }
    assert known["self_attn.o_proj"] == ("recipe", "-")


@pytest.mark.parametrize("bits", [2, 4])
def test_the_estimate_is_near_the_report(source, quantized, bits):
    folder, report = quantized("awq", bits)
    exact, estimated = by_name(compare(source, folder, report=report)), by_name(compare(source, folder))
    # Rounding noise e of the weights moves a scale by about e / sqrt(2 n), n = 64 weights a side: at most
    # 0.6 / 11 at 2 bits. Of an error e^2 that is a share of 1 / 128; clips, and chance, may make it ten times more.
    for key, row in exact.items():
        assert estimated[key].errors.output_error == pytest.approx(row.errors.output_error, rel=0.1), key


def test_rounding_to_nearest_is_equation_2(source, quantized):
    for row in compare(source, quantized("rtn")[0]).rows:
        assert row.errors.scaled == row.errors.rounded
        assert row.errors.delta_ratio == 1.0
        assert row.errors.inverse_scale == 1.0
        # |RoundErr| of a uniform variable: 1/4, and 0.144 / sqrt(n) beside it, n >= 32 * 64. The ends of a range share
        # one error, as they are 15 steps apart; it is uniform too, because the zero point is rounded.
        assert row.errors.rounded.round_error == pytest.approx(0.25, abs=0.02)


def test_notes_say_what_the_numbers_stand_on(source, quantized, tmp_path):
    folder, report = quantized("awq")
    notes = " ".join(compare(source, folder).notes)
    assert "fitted to the same tokens" in notes
    assert "least-squares estimates" in notes
    assert "fewer than" not in notes
    notes = " ".join(compare(source, folder, report=report, calibration=IDS[:1, :16]).notes)
    assert "16 tokens are fewer than the 96 inputs" in notes
    assert "fitted" not in notes
    assert "estimates" not in notes
    write_tiny_llama(tmp_path / "stranger", seed=1, rms_norm_eps=1e-5)
    assert "was QUANTIZED made from MODEL?" in " ".join(
        compare(tmp_path / "stranger", quantized("rtn")[0]).notes
    )


def test_models_that_do_not_belong_together(source, quantized, tmp_path):
    folder, report = quantized("awq")
    with pytest.raises(UnsupportedError, match=r"got quantized and float .*Swap them"):
        compare(folder, source)
    with pytest.raises(UnsupportedError, match="got float and float"):
        compare(source, source)
    with pytest.raises(UnsupportedError, match="got quantized and quantized"):
        compare(folder, folder)
    write_tiny_llama(tmp_path / "wide", intermediate_size=128)
    with pytest.raises(ShapeError, match=r"mlp.gate_proj \(128, 64\) in the first, \(96, 64\) in the second"):
        compare(tmp_path / "wide", folder)
    write_tiny_llama(tmp_path / "deep", num_hidden_layers=3)
    with pytest.raises(ShapeError, match="num_hidden_layers 3 in the first, 2 in the second"):
        compare(tmp_path / "deep", folder)
    with pytest.raises(FormatError, match="the report must be that of the quantized model"):
        compare(source, folder, report=quantized("awq", 2)[1])


def test_a_report_of_another_run_is_recognized_by_its_norms(source, quantized, tmp_path):
    folder, _ = quantized("awq")
    other = awq_ref.quantize_model(
        source, tmp_path / "other", recipe="llm-awq", group_size=16, calibration=IDS, shown=False
    )
    with pytest.raises(
        FormatError, match=r"layers\.\d: inspect --errors: .* are not those of the model's norms"
    ):
        compare(source, folder, report=other)


def test_the_command_prints_tables_and_writes_json(capsys, model, text, tmp_path):
    made = quantize_arguments(model, tmp_path / "int4", text, "--report", tmp_path / "report")
    assert run(capsys, *made)[0] == 0
    arguments = ["inspect", "--errors", model, tmp_path / "int4", "--calibration", text, "--samples", 4]
    arguments += ["--seq-len", 64, "--report", tmp_path / "report", "--json", tmp_path / "errors.json"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "| 1 mlp.down_proj " in printed
    assert "1/s, salient" in printed
    whole = json.loads((tmp_path / "errors.json").read_text(encoding="utf-8"))
    assert len(whole["rows"]) == 14
    assert whole["calibration"]["windows"] == 4


def test_the_command_needs_two_folders_with_errors_and_one_without(capsys, model):
    assert_refused(run(capsys, "inspect", "--errors", model), "--errors MODEL QUANTIZED")
    assert_refused(run(capsys, "inspect", model, model), "--errors MODEL QUANTIZED")
    assert run(capsys, "inspect", model)[0] == 0
