"""The walk through a model: the same bits on any number of threads, and what the last block leaves out."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.processors import with_processors
from helpers.tiny_checkpoint import write_tiny_family

from awq_ref.calibration import Unread
from awq_ref.errors import RangeError
from awq_ref.pipeline import observation, quantize_model
from awq_ref.pipeline import walk as walk_module
from awq_ref.pipeline.observation import open_float
from awq_ref.pipeline.states import StateStore
from awq_ref.pipeline.walk import observed_blocks
from awq_ref.search import recipe_named

WINDOWS = np.random.default_rng(5).integers(0, 250, (7, 32))


@pytest.fixture(params=["llama", "mixtral"])
def source(request, tmp_path):
    write_tiny_family(tmp_path / "model", request.param)
    return open_float(tmp_path / "model")


def observed(source, **options):
    checkpoint, config = source
    return list(observed_blocks(checkpoint, config, WINDOWS, **options))


@pytest.mark.parametrize("spilled", [False, True])
def test_statistics_do_not_depend_on_the_number_of_threads(source, monkeypatch, tmp_path, spilled):
    """Seven batches of a window: three times two and one left over, or twice three and one."""
    monkeypatch.setattr(observation, "BATCH_TOKENS", 32)
    recipe = recipe_named("llm-awq")  # which keeps tokens too
    with_processors(monkeypatch, 1)
    alone = observed(source, recipe=recipe)
    for n_threads in (2, 3, 8):
        with_processors(monkeypatch, n_threads)
        store = StateStore("float32", spilled, tmp_path) if spilled else None
        for block, other in zip(observed(source, recipe=recipe, store=store), alone, strict=True):
            found, expected = block.observations, other.observations
            assert list(found.statistics) == list(expected.statistics)
            for site, entry in found.statistics.items():
                assert entry.count == expected.statistics[site].count
                assert_same_bits(entry.abs_sum, expected.statistics[site].abs_sum)
                assert_same_bits(entry.gram_sum, expected.statistics[site].gram_sum)
                assert_same_bits(found.tokens[site], expected.tokens[site])


def test_the_last_down_projection_is_not_multiplied(source, monkeypatch):
    checkpoint, config = source
    run_block, seen = walk_module.run_block, []

    def spy(linears_of, **options):
        with linears_of(0) as linears:
            seen.append({name for name, linear in linears.items() if isinstance(inner_of(linear), Unread)})
        run_block(linears_of, **options)

    monkeypatch.setattr(walk_module, "run_block", spy)
    observed(source)
    first, *_, last = seen
    assert first == set()
    ends = ("mlp.down_proj",) if config.model_type == "llama" else ("w2",)
    assert last and all(name.endswith(ends) for name in last)


def inner_of(linear):
    return getattr(linear, "_linear", linear)


def test_the_first_of_two_bad_batches_is_named(source, monkeypatch):
    checkpoint, config = source
    monkeypatch.setattr(observation, "BATCH_TOKENS", 32)
    with_processors(monkeypatch, 2)

    def poisoned(checkpoint, config, windows, hidden):
        hidden[0 : len(windows)] = np.ones((*windows.shape, config.hidden_size), dtype=np.float32)
        bad = hidden[2:4]
        bad[0, 5], bad[1, 3] = np.nan, np.nan  # token 5 of batch 2, token 3 of batch 3
        hidden[2:4] = bad

    monkeypatch.setattr(walk_module, "embed_windows", poisoned)
    for _ in range(5):
        with pytest.raises(RangeError, match=r"model.layers.0: .*index \(5, 0\)"):
            observed(source)


def test_what_best_writes_does_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    """Of all recipes it has the most that is done batch by batch: both streams, and sums of their drift."""
    monkeypatch.setattr(observation, "BATCH_TOKENS", 32)
    write_tiny_family(tmp_path / "model", "llama")
    files = []
    for n_threads in (1, 2, 3):
        with_processors(monkeypatch, n_threads)
        out = tmp_path / f"out{n_threads}"
        options = {"recipe": "best", "group_size": 8, "calibration": WINDOWS, "shown": False}
        quantize_model(tmp_path / "model", out, **options)
        files.append((out / "model.safetensors").read_bytes())
    assert files[1] == files[0] and files[2] == files[0]
