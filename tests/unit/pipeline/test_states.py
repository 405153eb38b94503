"""Hidden states in memory and in files: the same numbers, and an error where they do not fit."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.errors import OutputError, RangeError
from awq_ref.pipeline.states import StateStore, blank_like

SHAPE = (5, 3, 4)


@pytest.fixture(params=[(d, s) for d in ("float32", "float16") for s in (False, True)], ids=str)
def store(request, tmp_path):
    dtype, spilled = request.param
    return StateStore(dtype, spilled, tmp_path)


@pytest.fixture
def values(rng):
    """Numbers that float16 holds."""
    return rng.integers(-100, 100, SHAPE).astype(np.float32) / np.float32(8)


def filled(store, values, layer=1):
    states = store.blank(SHAPE, "float", layer)
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):  # the last is cut short, as that of a walk is
        states[rows] = values[rows]
    return states


def test_windows_come_back_as_they_were(store, values):
    states = filled(store, values)
    assert tuple(states.shape) == SHAPE
    assert_same_bits(states[0:5], values)
    assert_same_bits(states[3:9], values[3:])
    copy = states.copy()
    copy[0:1] = values[0:1] + 1
    assert_same_bits(states[0:1], values[0:1])
    assert_same_bits(copy[1:5], values[1:])
    wide = blank_like(states, width=2)
    wide[0:5] = np.full((5, 3, 2), 1e30, dtype=np.float32)  # for work: always float32
    assert_same_bits(wide[4:5], np.full((1, 3, 2), 1e30, dtype=np.float32))


def test_what_is_kept_is_found_by_another_store(store, values, tmp_path):
    store.keep(filled(store, values), "float", 1)
    assert list(store.kept(1)) == ["float-00001"]
    other = StateStore(store.dtype, store.spilled, tmp_path, dict(store.sums))
    assert_same_bits(other.load(SHAPE, "float", 1)[0:5], values)
    store.forget(0)
    assert (tmp_path / "float-00001").exists()
    store.forget(1)
    assert not (tmp_path / "float-00001").exists()
    assert store.kept(1) == {}
    with pytest.raises(OutputError, match="its checksum differs. Begin anew"):
        other.load(SHAPE, "float", 1)


def test_float16_says_what_does_not_fit(values):
    states = StateStore("float16").blank(SHAPE, "float", 0)
    values[2, 1, 3] = 65520.0  # rounds to infinity
    with pytest.raises(RangeError, match=r"must fit into float16.*got 65520\.0.*--activations float32"):
        states[0:5] = values
    values[2, 1, 3] = np.inf  # was infinite before: the next block names it
    states[0:5] = values
