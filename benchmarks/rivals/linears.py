"""What the processes that time one linear share: its codes, and the clock."""

import statistics
import time

import numpy as np

ROUND_SECONDS = 0.05  # a timing repeats the call until it is at least this long
ROUNDS = 7


def random_codes(n_out, n_in, group_size):
    """Return codes, float32 scales and zero points of a linear, 4 bits: the time does not depend on them."""
    rng = np.random.default_rng(0)
    groups = (n_out, n_in // group_size)
    codes = rng.integers(0, 16, (n_out, n_in), dtype=np.uint8)
    return (
        codes,
        rng.uniform(0.001, 0.01, groups).astype(np.float32),
        rng.integers(0, 16, groups, dtype=np.uint8),
    )


def seconds(operator, x, repeats):
    """Return the mean seconds of a call."""
    started = time.perf_counter()
    for _ in range(repeats):
        operator(x)
    return (time.perf_counter() - started) / repeats


def times_by_tokens(operator, given):
    """Return the median microseconds of a product, by number of tokens."""
    found = {}
    for tokens in given["tokens"]:
        x = np.random.default_rng(1).standard_normal((tokens, given["shape"][1]), dtype=np.float32)
        repeats = max(1, int(ROUND_SECONDS / seconds(operator, x, 2)))
        found[str(tokens)] = 1e6 * statistics.median(seconds(operator, x, repeats) for _ in range(ROUNDS))
    return found
