"""Bytes and operations from shapes: counted by hand, and beside what the arrays of a decoder hold."""

import numpy as np
import pytest

from awq_ref.bench.predict import layers_that_fit, peak_bytes, resident_bytes, token_bytes, token_flops
from awq_ref.bench.random_model import random_decoder
from awq_ref.model import ModelConfig
from awq_ref.pipeline.tables import HEADS
from awq_ref.spec import QuantSpec

# A layer has 128 x 128 (q, o), 2 of 64 x 128 (k, v), 2 of 256 x 128, 128 x 256: 147456 weights, 1152 groups
# of a float32 scale, a byte for the zero point and the float32 product of both, 9 bytes.
CONFIG = ModelConfig(128, 256, 2, 4, 2, 32, 64, 512)
TIED = ModelConfig(128, 256, 2, 4, 2, 32, 64, 512, tie_word_embeddings=True)
SPEC = QuantSpec(bits=4, group_size=128)
LINEARS = {"packed": 147456 // 2 + 1152 * 9, "codes": 147456 + 1152 * 9, "dense": 147456 * 4}


@pytest.mark.parametrize("residency", LINEARS)
def test_a_token_reads_what_is_counted_by_hand(residency):
    found = token_bytes(CONFIG, spec=SPEC, residency=residency, context=100, layers=2)
    assert found == {
        "linears": 2 * LINEARS[residency],
        "head": 64 * 128 * 4,
        "norms": (2 * 2 * 128 + 128) * 4,
        "embedding": 128 * 4,
        "cache": 2 * 2 * 2 * 32 * 100 * 4,  # keys and values, two layers, two heads of 32
    }


def test_an_int8_head_has_a_byte_a_weight_and_a_step_a_row():
    found = token_bytes(CONFIG, spec=SPEC, residency="packed", head="int8", context=1, layers=1)
    assert found["head"] == 64 * 128 + 64 * 4


def test_operations_by_hand():
    """Two tokens after three: they see 4 and 5 columns; the head is asked for the last one alone."""
    found = token_flops(CONFIG, tokens=2, before=3, layers=2)
    assert found == 2 * 2 * 2 * 147456 + 4 * 2 * 4 * 32 * (4 + 5) + 2 * 64 * 128


@pytest.mark.parametrize("residency", LINEARS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("config", [CONFIG, TIED])
def test_what_is_predicted_is_what_the_arrays_hold(config, head, residency):
    decoder = random_decoder(config, spec=SPEC, residency=residency, head=head, layers=2)
    predicted = resident_bytes(config, spec=SPEC, residency=residency, head=head, layers=2)
    held = decoder.resident_bytes()
    assert predicted["embedding and head"] == held.pop("embeddings") + held.pop("head")
    assert predicted["linears"] == held["linears"]
    assert predicted["norms"] == held["norms"]


def test_every_layer_has_memory_of_its_own():
    decoder = random_decoder(CONFIG, spec=SPEC, residency="packed", layers=2)
    first, second = (block.linears["mlp.down_proj"].weight.planes[0] for block in decoder.blocks)
    assert not np.may_share_memory(first, second)
    assert (first == second).all()


def peak(layers, residency="packed"):
    parts = peak_bytes(
        CONFIG, spec=SPEC, residency=residency, head="float", layers=layers, tokens=10, prompt=10, threads=1
    )
    return sum(parts.values())


def test_layers_that_fit_are_the_most_whose_peak_fits():
    """Each layer adds its linears, norms and cache; 85 % of what is free is used."""
    sizes = {"spec": SPEC, "residency": "packed", "head": "float", "tokens": 10, "prompt": 10, "threads": 1}
    each = LINEARS["packed"] + 2 * 128 * 4 + 2 * 2 * 32 * 10 * 4
    assert peak(2) - peak(1) == each
    for free, expected in ((0, 0), (peak(1) / 0.85 - 2, 0), (peak(1) / 0.85 + 2, 1), (2**40, 2)):
        assert layers_that_fit(CONFIG, **sizes, free=int(free)) == expected


def test_the_peak_by_hand():
    """Gate and up are the largest product, 2 of 256 x 128: five bytes a weight while they are made.

    One thread's tiles are 2**21 weights of five bytes; a chunk of ten tokens has four streams and three gates.
    """
    sizes = {"spec": SPEC, "head": "float", "layers": 2, "tokens": 12, "prompt": 10}
    packed = peak_bytes(CONFIG, residency="packed", threads=1, **sizes)
    streams = 4 * 10 * (4 * 128 + 3 * 256)
    assert packed["working"] == 5 * 2**21 + streams
    assert packed["cache"] == 2 * 2 * 2 * 32 * 12 * 4
    assert packed["weights"] == 2 * LINEARS["packed"] + 64 * 128 * (2 + 4) + (2 * 2 * 128 + 128) * 4
    assert peak_bytes(CONFIG, residency="packed", threads=3, **sizes)["working"] == 15 * 2**21 + streams
    assert peak_bytes(CONFIG, residency="dense", threads=3, **sizes)["working"] == 9 * 2 * 256 * 128
