import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.calibration import llm_awq_windows, token_windows
from awq_ref.errors import CorpusError, DtypeError, RangeError, ShapeError


def ids(n):
    return np.arange(n, dtype=np.int32)


def test_windows_spread_from_the_start_to_the_end():
    windows = token_windows(ids(11), seq_len=3, samples=3)
    assert_same_bits(windows, [[0, 1, 2], [4, 5, 6], [8, 9, 10]], dtype=np.int64)


def test_a_text_of_exactly_the_windows_is_used_up():
    assert_same_bits(token_windows(ids(6), seq_len=2, samples=3), [[0, 1], [2, 3], [4, 5]], dtype=np.int64)


def test_a_short_text_gives_fewer_windows():
    assert_same_bits(token_windows(ids(5), seq_len=4, samples=9), [[0, 1, 2, 3]], dtype=np.int64)


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_windows_never_overlap(seed):
    for n in range(5, 60):
        windows = token_windows(ids(n), seq_len=5, samples=4, seed=seed)
        assert len(np.unique(windows)) == windows.size


def test_a_seed_draws_the_same_blocks_again_and_another_draws_others():
    first, again, other = (token_windows(ids(1000), seq_len=5, samples=4, seed=s) for s in (1, 1, 2))
    assert_same_bits(first, again)
    assert (first != other).any()
    assert (np.diff(first[:, 0]) > 0).all()


def test_a_text_shorter_than_a_window_is_an_error():
    with pytest.raises(CorpusError, match="at least seq_len=8 tokens; got 7"):
        token_windows(ids(7), seq_len=8, samples=1)


def test_wrong_arguments():
    with pytest.raises(ShapeError, match="token_ids must have shape"):
        token_windows(ids(4).reshape(2, 2), seq_len=2, samples=1)
    with pytest.raises(DtypeError, match="must be integers; got float32"):
        token_windows(np.zeros(4, dtype=np.float32), seq_len=2, samples=1)
    with pytest.raises(RangeError, match="seq_len must lie in"):
        token_windows(ids(4), seq_len=0, samples=1)
    with pytest.raises(RangeError, match="samples must lie in"):
        token_windows(ids(4), seq_len=2, samples=0)


def test_llm_awq_drops_long_and_empty_lines_and_the_tail():
    lines = [ids(2), ids(0), ids(9), 10 + ids(4), 20 + ids(3), 30 + ids(4)]
    windows = llm_awq_windows(lines, seq_len=4, samples=3)  # kept: 0 1 | 10 11 12 13 | 20 21 22
    assert_same_bits(windows, [[0, 1, 10, 11], [12, 13, 20, 21]], dtype=np.int64)


def test_llm_awq_windows_of_long_lines_alone_are_an_error():
    with pytest.raises(CorpusError, match="got 0 tokens in 0 such lines"):
        llm_awq_windows([ids(9)], seq_len=4, samples=3)
