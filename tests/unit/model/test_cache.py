import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.tiny_model import tiny_config

from awq_ref.errors import RangeError
from awq_ref.model import new_cache


def test_a_new_cache_is_empty_and_as_large_as_asked():
    cache = new_cache(tiny_config(), batch=3, capacity=5)
    assert cache.keys.dtype == cache.values.dtype == np.float32
    assert (
        cache.keys.shape == cache.values.shape == (2, 3, 2, 5, 4)
    )  # layers, batch, kv_heads, capacity, head_dim
    assert (cache.length, cache.batch, cache.capacity) == (0, 3, 5)
    assert cache.resident_bytes == 2 * 4 * 2 * 3 * 2 * 5 * 4 + 3 * 5


def test_appending_gives_a_longer_value_and_leaves_the_old_one():
    cache = new_cache(tiny_config(), batch=2, capacity=5)
    longer = cache.appended(np.array([[False, True], [True, True]]))
    assert (cache.length, longer.length) == (0, 2)
    assert longer.keys is cache.keys
    assert_same_bits(longer.valid[:, :2], np.array([[False, True], [True, True]]))


def test_a_full_cache_says_so():
    cache = new_cache(tiny_config(), batch=1, capacity=3).appended(np.ones((1, 2), dtype=np.bool_))
    with pytest.raises(RangeError, match="capacity=3; got 2 columns filled.*2 new ones"):
        cache.appended(np.ones((1, 2), dtype=np.bool_))


@pytest.mark.parametrize(
    ("batch", "capacity", "message"),
    [(0, 4, "batch"), (1, 0, "capacity"), (1, 25, r"capacity .*\[1, 24\]; got 25")],
)
def test_a_cache_has_at_least_one_column_and_no_more_than_the_context(batch, capacity, message):
    with pytest.raises(RangeError, match=message):
        new_cache(tiny_config(), batch=batch, capacity=capacity)
