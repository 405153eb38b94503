"""The numbers of the page, each against loops written from its equation."""

import json

import numpy as np
import pytest
from helpers.scalar_oracles_quantize import float32, scalar_dequantize, scalar_grid, scalar_quantize
from helpers.scalar_packers import PACKERS, Integers
from helpers.tiny_checkpoint import write_tiny_family

from awq_ref.errors import RangeError
from awq_ref.explain.record import layer_record, loudest_group, typical_row
from awq_ref.explain.subject import open_subject
from awq_ref.pipeline import calibrate

GROUP = 32
LAYERS = {
    "mlp.gate_proj": ("mlp.gate_up", 70),
    "self_attn.o_proj": ("self_attn.o", 3),
    "mlp.down_proj": ("mlp.down", 63),
}


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Name -> (weight, statistics, subject, record) of some layers of a tiny model."""
    folder = tmp_path_factory.mktemp("explained") / "tiny"
    tensors = write_tiny_family(folder, "llama")
    windows = np.random.default_rng(11).integers(0, 256, (6, 48))
    sites = calibrate(folder, calibration=windows).sites
    found = {}
    for name, (site, row) in LAYERS.items():
        subject = open_subject(folder, f"model.layers.1.{name}", group_size=GROUP, calibration=windows)
        weight = tensors[f"model.layers.1.{name}.weight"]
        found[name] = (weight, sites[f"1.{site}"], subject, layer_record(subject, row=row))
    return found


@pytest.fixture(params=LAYERS)
def layer(explained, request):
    return explained[request.param]


def columns_of(record):
    first = record["about"]["first"]
    return slice(first, first + GROUP)


def test_the_group_is_that_of_the_loudest_input(layer):
    weight, statistics, _, record = layer
    loud = max(range(weight.shape[1]), key=lambda i: statistics.act_mean_abs[i])
    assert record["about"]["first"] == loud // GROUP * GROUP
    assert record["about"]["group"] == loud // GROUP
    group = columns_of(record)
    assert record["weights"] == pytest.approx(weight[record["about"]["row"], group].tolist(), rel=1e-7)
    np.testing.assert_array_equal(np.float32(record["act_mean_abs"]), statistics.act_mean_abs[group])


def test_what_is_shown_of_a_weight_is_what_loops_make_of_it(layer):
    weight, statistics, _, record = layer
    heard = statistics.act_mean_abs[columns_of(record)].tolist()
    floats = weight[record["about"]["row"], columns_of(record)].tolist()
    for trial in record["trials"]:
        s = np.float32(trial["scales"]).tolist()
        scaled = [float32(w * scale) for w, scale in zip(floats, s, strict=True)]
        delta, z = scalar_grid(scaled, bits=4)
        codes = scalar_quantize(scaled, delta, z, bits=4)
        landed = scalar_dequantize(codes, delta, z)
        restored = [float32(value / scale) for value, scale in zip(landed, s, strict=True)]
        error = [float32(value - w) for value, w in zip(restored, floats, strict=True)]
        assert (np.float32(trial["delta"]), trial["zero_point"], trial["codes"]) == (delta, z, codes)
        assert (trial["low"], trial["high"]) == pytest.approx(
            (min(*scaled, 0.0), max(*scaled, 0.0)), rel=1e-7
        )
        for name, wanted in (
            ("scaled", scaled),
            ("landed", landed),
            ("restored", restored),
            ("error", error),
        ):
            assert np.float32(trial[name]).tolist() == wanted, name
        assert np.float32(trial["levels"]).tolist() == scalar_dequantize(range(16), delta, z)
        felt = [abs(e) * a for e, a in zip(error, heard, strict=True)]
        assert trial["felt"] == pytest.approx(felt, rel=2e-7)  # one product in float32, and its decimals


def test_the_scales_are_powers_of_the_mean_activation(explained):
    """[AWQ-6] in loops, for a site that another linear absorbs: what the loops say is what is used."""
    _, statistics, subject, record = explained["mlp.down_proj"]
    a = statistics.act_mean_abs.tolist()
    for trial, shown in zip(subject.trials, record["trials"], strict=True):
        t = [max(value / max(a), 2.0**-16) ** trial.alpha for value in a]
        middle = (max(t) * min(t)) ** 0.5
        wanted = [value / middle for value in t][columns_of(record)]
        assert shown["scales"] == pytest.approx(wanted, rel=1e-5)  # a power of float32 numbers


def test_the_losses_are_quadratic_forms(layer):
    weight, statistics, subject, record = layer
    row, gram = record["about"]["row"], statistics.gram_sum.astype(np.float64) / statistics.count
    for trial, shown in zip(subject.trials, record["trials"], strict=True):
        restored = []
        for g in range(0, weight.shape[1], GROUP):
            s = trial.channel_scales[g : g + GROUP].tolist()
            scaled = [float32(w * c) for w, c in zip(weight[row, g : g + GROUP].tolist(), s, strict=True)]
            delta, z = scalar_grid(scaled, bits=4)
            landed = scalar_dequantize(scalar_quantize(scaled, delta, z, bits=4), delta, z)
            restored += [value / c for value, c in zip(landed, s, strict=True)]
        e = np.array(restored) - weight[row]
        assert shown["row_loss"] == pytest.approx(
            float(e @ gram @ e), rel=1e-4
        )  # sums of 96 float32 products
        assert shown["relative"] == pytest.approx(trial.loss / subject.trials[0].loss)


def test_the_product_is_that_of_the_restored_weights(layer):
    weight, _, subject, record = layer
    group, row, x = columns_of(record), record["about"]["row"], subject.token.astype(np.float64)
    size = float(np.abs(weight[row]) @ np.abs(x))
    near = {"abs": 1e-5 * size}  # 96 float32 products and sums: far below 96 * 2**-23 of their sizes
    assert record["float_group"] == pytest.approx(float(weight[row, group] @ x[group]), **near)
    assert record["float_output"] == pytest.approx(float(weight[row] @ x), **near)
    np.testing.assert_array_equal(np.float32(record["x"]), subject.token[group])
    for trial in record["trials"]:
        met = [a / s for a, s in zip(x[group], trial["scales"], strict=True)]
        assert trial["dot"]["x"] == pytest.approx(met, rel=1e-6)
        assert trial["dot"]["codes_x"] == pytest.approx(
            sum(q * a for q, a in zip(trial["codes"], met, strict=True)), abs=1e-5 * 15 * np.abs(met).sum()
        )
        assert trial["dot"]["sum_x"] == pytest.approx(sum(met), abs=1e-5 * np.abs(met).sum())
        product = sum(w * a for w, a in zip(trial["restored"], x[group], strict=True))
        assert trial["dot"]["group"] == pytest.approx(product, abs=1e-5 * 15 * size)


def test_bytes_hold_two_codes_and_come_apart(layer):
    *_, record = layer
    for trial in record["trials"]:
        for j, entry in enumerate(trial["bytes"]):  # a group of 32 is the block
            assert (entry["low"], entry["high"]) == (trial["codes"][j], trial["codes"][j + 16])
            assert entry["byte"] == entry["low"] + 16 * entry["high"]
        assert len(trial["bytes"]) == 16
    assert record["block"] == record["about"]["first"]


def codes_by_loops(weight, scales):
    """Return codes, zero points and steps of a whole layer."""
    codes, zeros, steps = [], [], []
    for row in (weight * scales).tolist():
        groups = [row[g : g + GROUP] for g in range(0, len(row), GROUP)]
        grids = [scalar_grid(group, bits=4) for group in groups]
        quantized = [scalar_quantize(w, *grid, bits=4) for w, grid in zip(groups, grids, strict=True)]
        codes.append([code for group in quantized for code in group])
        steps.append([delta for delta, _ in grids])
        zeros.append([z for _, z in grids])
    return np.array(codes), np.array(zeros), np.array(steps, dtype=np.float16)


def test_words_are_those_of_a_packer_that_goes_code_by_code(layer):
    weight, _, subject, record = layer
    at = subject.chosen
    codes, zeros, steps = codes_by_loops(weight, subject.trials[at].channel_scales)
    groups = np.arange(weight.shape[1], dtype=np.int64) // GROUP
    shown = [entry for entry in record["layouts"] if "words" in entry]
    assert {"gemm", "gptq", "mlx", "pack-quantized", "matmulnbits"} <= {entry["name"] for entry in shown}
    for entry in shown:
        whole = PACKERS[entry["name"]](Integers(4, codes, zeros, steps, groups))[entry["tensor"]]
        whole = whole.reshape(len(whole), -1)
        for word, value in zip(entry["words"], record["trials"][at]["words"][entry["name"]], strict=True):
            wanted = int(whole[word["row"], word["column"]]) % 2 ** entry["width"]
            assert (int(value["hex"], 16), int(value["bits"], 2)) == (wanted, wanted), entry["name"]
            rebuilt = 0
            for (low, size, first, o, i), code in zip(word["runs"], value["codes"], strict=True):
                assert code == codes[o, i], entry["name"]
                rebuilt |= (code >> first) % 2**size << low
            assert rebuilt == wanted, entry["name"]


def test_every_word_of_the_list_holds_a_code_of_the_row(layer):
    *_, record = layer
    group = range(record["about"]["first"], record["about"]["first"] + GROUP)
    for entry in record["layouts"]:
        for word in entry.get("words", ()):
            assert any(o == record["about"]["row"] and i in group for *_, o, i in word["runs"])


def test_layouts_that_cannot_hold_the_layer_say_why(layer):
    *_, record = layer
    reasons = {entry["name"]: entry["why_not"] for entry in record["layouts"] if "why_not" in entry}
    assert "no zero points" in reasons["qm_arm"]
    assert "128" in reasons["marlin"]


def test_a_layer_that_fits_no_planes_has_no_bytes(tmp_path):
    write_tiny_family(tmp_path, "llama", intermediate_size=80)
    ids = np.random.default_rng(1).integers(0, 256, (2, 32))
    subject = open_subject(tmp_path, "model.layers.0.mlp.down_proj", group_size=16, calibration=ids)
    record = layer_record(subject, row=0)
    assert record["block"] is None
    assert [trial["bytes"] for trial in record["trials"]] == [[]] * len(record["trials"])
    weight, x = subject.weight[0].astype(np.float64), subject.token.astype(np.float64)
    assert record["trials"][0]["dot"]["output"] == pytest.approx(
        weight @ x, abs=0.1 * np.abs(weight) @ np.abs(x)
    )


def test_the_typical_row_is_in_the_middle(explained):
    *_, subject, _ = explained["mlp.down_proj"]
    row = typical_row(subject)
    shares = []
    for o in range(len(subject.weight)):
        trials = layer_record(subject, row=o)["trials"]
        shares.append(trials[subject.chosen]["row_loss"] / trials[0]["row_loss"])
    below = sum(share < shares[row] for share in shares)
    assert len(shares) // 4 <= below <= 3 * len(shares) // 4
    assert loudest_group(subject) == range(
        layer_record(subject)["about"]["first"], layer_record(subject)["about"]["first"] + GROUP
    )


def test_a_row_out_of_range_is_refused(explained):
    *_, subject, _ = explained["mlp.down_proj"]
    for row in (-1, 64):
        with pytest.raises(RangeError, match=r"\[0, 63\]"):
            layer_record(subject, row=row)


def test_json_has_a_form_for_all_of_it(layer):
    *_, record = layer
    assert (
        json.loads(json.dumps(record, allow_nan=False))["trials"][0]["codes"] == record["trials"][0]["codes"]
    )
