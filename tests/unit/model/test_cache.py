"""The cache by itself: how buffers grow and roll, and which caches may be continued."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import tiny_config

from awq_ref.errors import RangeError
from awq_ref.model import cache as module
from awq_ref.model import new_cache

COLUMN = 2 * 4 * 2 * 4  # bytes of a column of one layer and one text: keys and values, float32, 2 heads of 4
CONFIG = tiny_config()  # 2 layers, a context of 24
ROLLING = tiny_config(**FAMILY_CHANGES["gemma2"])  # a window of 3, then none


def grown(cache, *counts):
    """The cache after columns that hold their own number, appended in passes of some counts."""
    for tokens in counts:
        first = cache.length
        cache = cache.appended(np.ones((cache.batch, tokens), dtype=np.bool_))
        for layer in range(2):
            for array in cache.columns(layer, tokens):
                array[:, :, -tokens:] = np.arange(first, first + tokens, dtype=np.float32)[:, None]
    return cache


def numbers(cache, layer, tokens):
    """The numbers of the columns that the last tokens see, from keys that agree with the values."""
    keys, values = cache.columns(layer, tokens)
    assert keys.dtype == values.dtype == np.float32
    assert_same_bits(keys, values)
    return keys[0, 0, :, 0].tolist()


def sizes(cache):
    return [layer.buffers.keys.shape[2] for layer in cache.store.layers]


def test_a_new_cache_is_empty_and_as_large_as_asked():
    cache = new_cache(CONFIG, batch=3, capacity=5)
    assert (cache.length, cache.batch, cache.capacity, cache.shortest) == (0, 3, 5, 1)
    assert cache.resident_bytes == 5 * (
        2 * 3 * COLUMN + 3 + 8
    )  # and for a column 3 flags, a number of 8 bytes


def test_without_a_capacity_it_is_the_context():
    cache = new_cache(CONFIG, batch=1)
    assert cache.capacity == 24
    assert sizes(grown(cache, 24)) == [24, 24]


def test_appending_gives_a_longer_value_and_leaves_the_old_one():
    cache = new_cache(CONFIG, batch=2, capacity=5)
    longer = cache.appended(np.array([[False, True], [True, True]]))
    assert (cache.length, longer.length) == (0, 2)
    assert longer.store is cache.store
    assert_same_bits(longer.valid, np.array([[False, True], [True, True]]))
    assert cache.valid.shape == (2, 0)


@pytest.mark.parametrize("counts", [(10,), (1,) * 10, (3, 4, 3), (4, 5, 1)], ids=str)
@pytest.mark.parametrize("page", [1, 2, 4, 5, 24])
def test_buffers_grow_with_the_text_and_keep_it(page, counts):
    cache = new_cache(CONFIG, batch=2, page=page)
    assert sizes(cache) == [page, page]
    assert numbers(grown(cache, *counts), 1, 1) == list(range(10))
    assert all(10 <= size <= max(10 + page - 1, page) for size in sizes(cache))
    assert cache.store.valid.shape == (2, len(cache.store.passes))
    assert cache.resident_bytes == 2 * 2 * COLUMN * sizes(cache)[0] + (2 + 8) * len(cache.store.passes)
    assert len(cache.store.passes) <= max(10 + page, page)


@pytest.mark.parametrize("counts", [(20,), (1,) * 20, (3, 4, 13), (4, 5, 1, 10)], ids=str)
@pytest.mark.parametrize("page", [1, 2, 4, 5, 24])
def test_a_layer_with_a_window_keeps_the_window(page, counts):
    cache = grown(new_cache(ROLLING, batch=1, page=page), *counts)
    last = counts[-1]
    assert numbers(cache, 0, last) == list(
        range(max(0, 20 - last - 2), 20)
    )  # a window of 3: two before its own
    assert numbers(cache, 1, last) == list(range(20))
    assert sizes(cache)[0] <= 2 + max(page, *counts)


def test_a_long_chunk_leaves_no_large_buffer_behind():
    cache = grown(new_cache(ROLLING, batch=1, page=2), 12)
    assert sizes(cache) == [12, 12]
    assert sizes(grown(cache, 1)) == [2 + 2, 12 + 2]


def test_all_at_once_means_the_window_where_there_is_one():
    cache = new_cache(
        tiny_config(**FAMILY_CHANGES["gemma2"] | {"max_position_embeddings": 999}), batch=1, capacity=900
    )
    assert sizes(cache) == [2 + module.PAGE, 900]


def test_a_window_of_one_keeps_nothing():
    config = tiny_config(**FAMILY_CHANGES["mistral"] | {"sliding_window": 1})
    cache = grown(new_cache(config, batch=1, page=1), 1, 1, 3, 1)
    assert sizes(cache) == [3, 3]
    assert numbers(cache, 0, 1) == [5.0]
    assert cache.shortest == 1
    assert numbers(grown(cache.truncated(2), 1), 1, 1) == [2.0]


def test_a_full_cache_says_so():
    cache = new_cache(CONFIG, batch=1, capacity=3).appended(np.ones((1, 2), dtype=np.bool_))
    with pytest.raises(RangeError, match="capacity=3; got 2 columns filled.*2 new ones"):
        cache.appended(np.ones((1, 2), dtype=np.bool_))


def test_one_continuation_after_the_other():
    start = grown(new_cache(CONFIG, batch=1, page=2), 4)
    first = grown(start, 6)
    second = grown(start, 1)
    for use in (lambda: grown(first, 1), lambda: first.truncated(5), lambda: first.columns(0, 1)):
        with pytest.raises(RangeError, match="the 10 columns of a cache must be its own"):
            use()
    grown(second, 9)  # as long as the first again, and still not it
    with pytest.raises(RangeError, match="another continuation"):
        grown(first, 1)
    assert numbers(grown(start, 2), 0, 1) == list(range(6))


def test_going_back():
    cache = grown(new_cache(CONFIG, batch=1, page=2), 4, 6)
    inside = cache.truncated(7)
    assert (inside.length, cache.length) == (7, 10)
    assert numbers(grown(cache.truncated(10), 1), 0, 1) == list(range(11))
    assert numbers(grown(inside, 1), 0, 1) == list(range(8))
    with pytest.raises(RangeError, match="the 10 columns"):
        cache.truncated(3)
    assert numbers(grown(inside.truncated(0), 2), 0, 1) == [0, 1]
    with pytest.raises(RangeError, match=r"length must lie in \[0, 7\]; got 8"):
        inside.truncated(8)
    with pytest.raises(RangeError, match=r"length must lie in \[0, 7\]; got -1"):
        inside.truncated(-1)


def test_going_back_ends_where_a_window_has_dropped_columns():
    cache = grown(new_cache(ROLLING, batch=1, page=4), *[1] * 12)
    # Room for 4; then two columns stay and room for 4 more: columns from 2 on after the fifth, 6 after the ninth.
    assert cache.store.layers[0].buffers.first == 6
    assert cache.shortest == 8
    with pytest.raises(RangeError, match="at least 8, or 0.*; got 7"):
        cache.truncated(7)
    back = cache.truncated(8)
    assert numbers(grown(back, 1), 0, 1) == [6, 7, 8]
    again = grown(back.truncated(0), 2)
    assert numbers(again, 0, 2) == numbers(again, 1, 2) == [0, 1]
    assert again.shortest == 1


def test_an_old_cache_whose_window_has_rolled_on_says_so():
    start = grown(new_cache(ROLLING, batch=1, page=4), 3)
    later = grown(start, *[1] * 4)
    with pytest.raises(RangeError, match="window has dropped earlier columns; got 3"):
        grown(start, 1)
    with pytest.raises(RangeError, match="window has dropped earlier columns; got 3"):
        later.columns(0, 4)
    assert numbers(grown(later, 1), 0, 1) == [5, 6, 7]  # a refusal has changed nothing


@pytest.mark.parametrize("layer", [0, 1])
def test_an_interrupt_leaves_the_old_cache_whole(monkeypatch, layer):
    start = grown(new_cache(ROLLING, batch=1, page=3), 7)
    longer = grown(start, 2)
    stopped, make_room = start.store.layers[layer], module._Layer.make_room

    def interrupted(self, *arguments):
        if self is stopped:
            raise KeyboardInterrupt
        make_room(self, *arguments)

    monkeypatch.setattr(module._Layer, "make_room", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grown(start, 3)
    monkeypatch.undo()
    with pytest.raises(RangeError, match="another continuation"):
        grown(longer, 1)
    again = grown(start, 2)
    assert numbers(again, 0, 2) == [5, 6, 7, 8]
    assert numbers(again, 1, 2) == list(range(9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch"),
        ({"capacity": 0}, "capacity"),
        ({"capacity": 25}, r"capacity .*\[1, 24\]; got 25"),
        ({"page": 0}, "page"),
    ],
)
def test_a_cache_has_at_least_one_column_and_no_more_than_the_context(changes, message):
    with pytest.raises(RangeError, match=message):
        new_cache(CONFIG, **({"batch": 1} | changes))
