"""What every test may use: a seeded generator, and how hypothesis draws.

HYPOTHESIS_PROFILE=explore draws other examples on each run, and ten times as many; the default draws the same ones
on every machine, so that a red test is red for everyone.
"""

import importlib.util
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Timings belong to benchmarks: a loaded machine must not turn a law red.
settings.register_profile(
    "same", derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_DASK = importlib.util.find_spec("distributed") is not None
collect_ignore = [*([] if HAS_TORCH else ["parity"]), *([] if HAS_DASK else ["dask"])]


def pytest_report_header() -> str:
    return "parity: collected" if HAS_TORCH else "parity: not collected, torch is not installed (make parity)"


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts at the same place in every test."""
    return np.random.default_rng(20230601)
