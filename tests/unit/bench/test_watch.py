"""The watch: times add up, layers and operations have their names, and the decoder is left as it was."""

from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.bench import watch as module
from awq_ref.bench.random_model import random_decoder
from awq_ref.bench.watch import OUTSIDE, REST, Watch, short_name, watching
from awq_ref.model import ModelConfig, block, decoder
from awq_ref.spec import QuantSpec

CONFIG = ModelConfig(64, 96, 2, 4, 2, 16, 50, 128)
IDS = np.arange(5, dtype=np.int64)[None]


@pytest.fixture
def model():
    return random_decoder(CONFIG, spec=QuantSpec(bits=4, group_size=32), residency="packed", layers=2)


@pytest.fixture
def ticks(monkeypatch):
    """A clock that goes on by a second whenever someone looks at it."""
    seconds = count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(seconds)))


def test_a_call_s_time_is_without_that_of_timed_calls_inside_it(ticks):
    watch = Watch()
    inner = watch.timed("inner", lambda: None)  # a second each: one tick from its start to its end
    watch.timed("outer", lambda: [inner(), inner()])()  # five ticks, two of them inside
    assert watch.by_operation() == {"outer": (3.0, 1), "inner": (2.0, 2)}


def test_an_error_inside_is_timed_too(ticks):
    watch = Watch()
    with pytest.raises(ZeroDivisionError):
        watch.timed("broken", lambda: 1 // 0)()
    assert watch.by_operation() == {"broken": (1.0, 1)}


def test_every_operation_of_a_pass_is_found_and_the_times_add_up(model, ticks):
    with watching(model) as watch:
        watch.timed(REST, model.forward)(IDS)
    found = watch.by_operation()
    linears = {"q_proj+k_proj+v_proj", "o_proj", "gate_proj+up_proj", "down_proj"}
    assert set(found) == linears | {"head", "attention", "rope", "norms", "gate", REST}
    assert {found[name][1] for name in linears} == {2}
    assert found["norms"][1] == 2 * 2 + 1
    # Every timed call looks twice; the outermost one's time is all looks but the first: its own and the others'.
    calls = sum(number for _, number in found.values())
    assert sum(seconds for seconds, _ in found.values()) == 2 * calls - 1
    layers = watch.by_layer()
    assert set(layers) == {OUTSIDE, 0, 1}
    assert layers[0] == layers[1]
    assert sum(layers.values()) == 2 * calls - 1


def test_logits_are_the_same_and_nothing_stays(model):
    before, functions = model.logits(IDS), (block.attention, decoder.block_forward, decoder.make_context)
    linears, head = [dict(b.linears) for b in model.blocks], model.lm_head
    with watching(model):
        assert_same_bits(model.logits(IDS), before)
        assert model.lm_head is not head
    assert functions == (block.attention, decoder.block_forward, decoder.make_context)
    assert all(b.linears == old for b, old in zip(model.blocks, linears, strict=True))
    assert model.lm_head is head


@dataclass(frozen=True)
class Part:
    whole: Any


def test_parts_of_one_product_share_a_name_and_their_whole_is_timed():
    def product(x):
        return x

    linears = {"mlp.gate_proj": Part(product), "mlp.up_proj": Part(product), "mlp.down_proj": product}
    assert short_name("mlp.up_proj", linears) == "gate_proj+up_proj"
    assert short_name("mlp.down_proj", linears) == "down_proj"
    watch = Watch()
    timed = module._timed_linears(linears, watch)
    assert timed["mlp.gate_proj"].whole is timed["mlp.up_proj"].whole
    timed["mlp.gate_proj"].whole(1)
    assert watch.by_operation().keys() == {"gate_proj+up_proj"}
