"""How much memory an experiment needs."""

import pytest
from helpers.tiny_checkpoint import tiny_llama_config

from awq_ref.errors import RangeError
from awq_ref.model import ModelConfig
from awq_ref.paper import bench, capacity

CONFIG = ModelConfig.from_json(tiny_llama_config())


def test_gram_matrices_are_counted_by_hand():
    # two layers; inputs of q,k,v: 64, of o: 64, of gate, up: 64, of down: 96; float32
    assert capacity.gram_bytes(CONFIG) == 2 * 4 * (3 * 64**2 + 96**2)


def test_what_is_needed_is_counted_by_hand():
    layer = 64 * (64 + 2 * 32 + 64) + 3 * 64 * 96 + 2 * 64  # q, k, v, o; gate, up, down; norms
    weights = 264 * 64 + 2 * layer + 64  # tied head
    states = (4 * 3 * 32 + 100) * 64
    total = 1.1 * (2 * 4 * weights + 2 * 4 * (3 * 64**2 + 96**2) + 4 * states)
    assert capacity.needed_bytes(CONFIG, windows=3, tokens=100, seq_len=32) == pytest.approx(total, abs=1)


def test_too_large_a_model_is_refused_with_both_numbers():
    with pytest.raises(RangeError, match=r"about 993\.85 KiB; 488\.28 KiB are free"):
        capacity.require_memory(CONFIG, windows=3, tokens=100, seq_len=32, free=500_000)


def test_what_fits_is_let_through():
    capacity.require_memory(CONFIG, windows=3, tokens=100, seq_len=32, free=2**21)


def test_where_the_system_says_nothing_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(capacity, "free_bytes", lambda: None)
    capacity.require_memory(CONFIG, windows=10**9, tokens=100, seq_len=32)


def test_every_experiment_asks_before_it_loads(monkeypatch, options):
    monkeypatch.setattr(capacity, "free_bytes", lambda: 1000)
    monkeypatch.setattr(bench, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(RangeError, match="1000 B are free"):
        with bench.open_bench(options()):
            pass
