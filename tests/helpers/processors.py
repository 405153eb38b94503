"""A machine of as many processors as a test wants."""

import os

from awq_ref.threads import LIMITS


def with_processors(monkeypatch, n_processors):
    """Let `default_threads` find so many, and no limit in the environment."""
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(n_processors), raising=False)
