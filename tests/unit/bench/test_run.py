"""What is refused before anything is measured; limits of small arrays. No time is judged."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny_checkpoint import write_tiny_family

from awq_ref.bench import limits, run
from awq_ref.bench.job import Job, bench_shapes
from awq_ref.bench.run import Target, open_target, plan, require_threads
from awq_ref.errors import RangeError, UnsupportedError
from awq_ref.paper.machine import Machine
from awq_ref.spec import QuantSpec

JOB = Job("", "llama-7b", "dense", "float", 0, 512, 32, 2)
SEVEN = Target("llama-7b", "", bench_shapes()["llama-7b"], QuantSpec())
GIB = 2**30


def test_names_of_shapes():
    assert {"qwen2.5-0.5b", "tinyllama-1.1b", "llama-7b"} <= set(bench_shapes())
    with pytest.raises(RangeError, match="--shape.*llama-7b.*gpt-5"), open_target(None, "gpt-5"):
        pass


def test_a_model_and_a_shape_are_one_too_many():
    with pytest.raises(UnsupportedError, match="one of the two"), open_target("folder", "llama-7b"):
        pass


@pytest.mark.parametrize(
    "change", [{"residency": "float16"}, {"prompt": 0}, {"new": 2}, {"layers": -1}, {"threads": 0}]
)
def test_numbers_outside_their_range(change):
    (name,) = change
    with pytest.raises(RangeError, match=f"--{name}"):
        replace(JOB, **change)


@pytest.mark.parametrize("threads", [0, 10**6])
def test_threads_that_are_not_there(threads):
    with pytest.raises(RangeError, match=f"--threads.*got {threads}"):
        require_threads(threads)


def test_a_model_larger_than_memory_is_measured_on_the_layers_that_fit():
    """A layer of Llama 7B is 202 M weights, 0.75 GiB as float32; embedding and head are 0.98 GiB."""
    job, parts = plan(SEVEN, JOB, 8 * GIB)
    assert 6 <= job.layers <= 8
    assert sum(parts.values()) < 8 * GIB
    assert plan(SEVEN, JOB, 64 * GIB)[0].layers == 32
    assert plan(SEVEN, JOB, None)[0].layers == 32
    assert plan(SEVEN, replace(JOB, layers=3), 64 * GIB)[0].layers == 3


def test_nothing_fits():
    with pytest.raises(RangeError, match="1.00 GiB are free, for 0 of 32 layers"):
        plan(SEVEN, JOB, GIB)


def test_a_checkpoint_is_never_loaded_in_part():
    """All its layers are read: what would fit as packed is said."""
    with pytest.raises(RangeError, match="As packed 32 of them would fit"):
        plan(replace(SEVEN, folder="somewhere"), JOB, 16 * GIB)


def test_limits_are_positive(monkeypatch):
    monkeypatch.setattr(limits, "measure_machine", lambda: Machine(1e10, 1e11))
    monkeypatch.setattr(limits, "SHAPE", (256, 128))
    monkeypatch.setattr(limits, "weights_at_once", lambda threads: 2 * 128 * 64)
    monkeypatch.setattr(limits, "WIDTH", 64)
    monkeypatch.setattr(limits, "PAUSE", 0.0)
    found = limits.measure_limits(2)
    passes = found["passes"]
    assert min(found["read_bandwidth"], found["sgemm_flops"], found["sgemv_flops"]) > 0
    assert min(passes[name] for name in ("mask", "cast", "gemv", "dense")) > 0
    assert passes["weight_bytes"] == 4 / 8 + (4 + 1 + 4) / 128  # a group: scale, zero point, product
    assert [row["threads"] for row in found["whole"]] == [1, 2]


def test_a_process_that_fails_says_why():
    with pytest.raises(UnsupportedError, match="failed: .*no-such-shape"):
        run._in_a_process({**vars(JOB), "shape": "no-such-shape"}, 1)


def test_a_model_with_experts_is_refused(tmp_path):
    write_tiny_family(tmp_path / "model", "mixtral")
    with pytest.raises(UnsupportedError, match="without experts"), open_target(str(tmp_path / "model"), None):
        pass


def test_a_float_model_is_rounded_and_a_quantized_one_taken_as_it_is(tmp_path):
    """in_features are 64 and 96: 32 is the largest group that divides both and 128. No folder stays."""
    write_tiny_family(tmp_path / "model", "llama")
    with open_target(str(tmp_path / "model"), None) as target:
        assert target.spec.group_size == 32
        assert target.folder.endswith("int4")
        shutil.copytree(target.folder, tmp_path / "int4")
    assert not Path(target.folder).exists()
    with open_target(str(tmp_path / "int4"), None) as again:
        assert (again.folder, again.spec.group_size) == (str(tmp_path / "int4"), 32)
