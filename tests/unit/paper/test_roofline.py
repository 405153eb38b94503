"""The experiment `roofline`: work counted by hand, the roof, and what must hold of bounds. No timing is judged."""

import dataclasses

import pytest

from awq_ref.errors import RangeError
from awq_ref.model import ModelConfig
from awq_ref.paper import machine, roofline
from awq_ref.paper.experiment import Options, select
from awq_ref.paper.machine import Machine, measure_machine, median_seconds
from awq_ref.paper.registry import experiment_named, run_experiment
from awq_ref.paper.shapes import SHAPES
from awq_ref.paper.work import decode_step, linear_work
from awq_ref.spec import QuantSpec

# One layer of 147456 weights in its linears, a head of 64 x 128, 4 query heads on 2, of 32 channels.
ONE_LAYER = ModelConfig(128, 256, 1, 4, 2, 32, 64, 512)


def test_a_decoding_step_by_hand():
    work = decode_step(ONE_LAYER, bits=16, group_size=128, batch=3, context=100)
    assert work.flops == 3 * (2 * 147456 + 2 * 8192 + 4 * 4 * 32 * 100)
    assert work.moved == 2 * 147456 + 2 * 8192 + 3 * 2 * 100 * 64 * 2
    four = decode_step(ONE_LAYER, bits=4, group_size=128, batch=3, context=100)
    assert four.flops == work.flops
    assert work.moved - four.moved == 147456 * (16 - 4.15625) / 8


def test_the_paper_s_intensities():
    """One token on a large float16 linear: 2 operations for 2 bytes. In 4 bits: 4, less what scales take."""
    half = linear_work(4096, 4096, tokens=1, weight_bits=16, itemsize=2)
    four = linear_work(4096, 4096, tokens=1, weight_bits=4.15625, itemsize=2)
    assert half.intensity == pytest.approx(1.0, abs=1e-3)
    assert four.intensity == pytest.approx(16 / 4.15625, abs=1e-2)
    # A token of a text that is read at once: 200 tokens reuse every weight.
    assert linear_work(4096, 4096, tokens=200, weight_bits=16, itemsize=2).intensity > 165


def test_the_roof():
    here = Machine(read_bandwidth=10.0, flops=40.0)
    assert here.ridge == 4.0
    assert [here.attainable(x) for x in (1.0, 4.0, 100.0)] == [10.0, 40.0, 40.0]
    assert (here.limit(3.9), here.limit(4.1)) == ("memory", "arithmetic")


def test_bounds_are_ordered_and_gain_at_most_what_the_bits_allow():
    machines = {"one": Machine(2e10, 5e10), "other": Machine(1e12, 165e12)}
    options = Options(batches=(1, 4, 64), contexts=(1, 2048))
    rows = roofline.bound_rows("llama-2-7b", SHAPES["llama-2-7b"], machines, options)
    groups = roofline.bound_groups(rows)
    assert len(groups) == 2 * 3 * 2
    for group in groups.values():
        rates = [group[stored]["tokens_per_s"] for stored in ("W16A16", "W8A16", "W4A16")]
        assert rates == sorted(rates)
        assert 1.0 <= roofline.gain(group, "W4A16") < 16 / 4.15625
        for row in group.values():
            assert row["gflops"] <= machines[row["machine"]].flops / 1e9
    for where in machines:  # more sequences or a longer cache leave less to gain
        for context in (1, 2048):
            gains = [
                roofline.gain(groups[where, "llama-2-7b", context, batch], "W4A16") for batch in (1, 4, 64)
            ]
            assert gains == sorted(gains, reverse=True)


@pytest.fixture
def quick(monkeypatch):
    """Measure something tiny: the numbers do not matter here."""
    monkeypatch.setattr(roofline, "measure_machine", lambda: measure_machine(n_bytes=2**20, size=64))
    monkeypatch.setattr(roofline, "TOKENS", (1, 3))
    monkeypatch.setitem(SHAPES, "one", dataclasses.replace(ONE_LAYER))


def test_a_run_has_bounds_and_measurements(quick):
    result = run_experiment("roofline", shapes=("one",), batches=(1, 2))
    bounds, measured = select(result.rows, kind="bound"), select(result.rows, kind="measured")
    assert len(bounds) == 2 * 2 * 3
    assert [(row["stored"], row["tokens"]) for row in measured] == [
        (stored, tokens) for stored in ("W32A32, dense", "W4A32, codes", "W4A32, packed") for tokens in (1, 3)
    ]
    assert all(row["times_dense"] == 1.0 for row in measured[:2])
    # 128 x 128 float32 weights and a token in and out: 2 * 16384 operations, 4 * (16384 + 256) bytes
    assert measured[0]["intensity"] == 2 * 16384 / (4 * (16384 + 256))
    assert result.setup["threads"].keys() == {"blas", "packed"}
    text = experiment_named("roofline").table(result.rows)
    assert "This machine reads" in text
    assert "RTX 4090" in text


def test_a_linear_of_random_codes_has_the_grid_of_its_spec():
    linear = roofline.random_linear(8, 64, QuantSpec(group_size=-1))
    assert (linear.int_weight.shape, linear.scales.shape) == ((8, 64), (8, 1))


def test_medians_of_calls_that_take_turns():
    order = []
    seconds = median_seconds([lambda: order.append("a"), lambda: order.append("b")], rounds=2)
    assert len(seconds) == 2
    assert order == ["a", "b"] * 3
    assert all(time >= 0 for time in seconds)


def test_too_little_memory_is_said_before(monkeypatch):
    monkeypatch.setattr(machine, "free_bytes", lambda: 2**20)
    with pytest.raises(RangeError, match=r"512\.00 MiB must be free to measure the bandwidth; 1\.00 MiB are"):
        measure_machine()


def test_the_environment_says_how_many_threads_blas_has(monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert machine.blas_threads() == "its default"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.blas_threads() == "OMP_NUM_THREADS=3"


def test_a_layer_with_a_window_reads_and_multiplies_the_window():
    two = dataclasses.replace(ONE_LAYER, num_hidden_layers=2, model_type="mistral")

    def work(context, *windows):
        config = dataclasses.replace(two, windows=windows)
        return decode_step(config, bits=16, group_size=128, batch=3, context=context)

    assert work(100, 40, 40) == work(40)
    assert work(100, 200, 200) == work(100)
    for part in range(2):  # operations, bytes
        assert work(100, 40, 0)[part] * 2 == pytest.approx(work(40)[part] + work(100)[part])
