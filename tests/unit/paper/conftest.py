"""A tiny random model, and a short corpus in place of the standard library: an experiment then takes a moment."""

from dataclasses import fields

import pytest
from helpers.tiny_checkpoint import write_tiny_llama

from awq_ref.paper import ablation, bench, calibration_shift
from awq_ref.paper.experiment import Options
from awq_ref.paper.registry import EXPERIMENTS
from awq_ref.pipeline import texts

FUNCTION = '''def {name}(left, right):
    """Return {name} of two numbers, the left one first."""
    total = left + right  # of any kind
    return total - {name!r}.count("x")
'''
SHORT_CORPUS = {
    "calibration": [FUNCTION.format(name=name) for name in ("add", "join", "mix", "sum_up", "merge")],
    "validation": [FUNCTION.format(name=name) for name in ("subtract", "split")],
}
# What fits the tiny model, for every option that an experiment may take.
TINY = {"bits": (3,), "group_size": (32,), "samples": 3, "seq_len": 32, "tokens": 96}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "tiny"
    write_tiny_llama(folder)
    return folder


@pytest.fixture
def short_corpus(monkeypatch):
    for module in (bench, texts, calibration_shift):
        monkeypatch.setattr(module, "stdlib_texts", lambda split: iter(SHORT_CORPUS[split]))


@pytest.fixture
def options(tiny, short_corpus):
    """Options that fit the tiny model: options(seeds=2, ...)."""
    return lambda **changes: Options(**{"model": tiny, **TINY} | changes)


@pytest.fixture
def changes_for(tiny, short_corpus):
    """The same as changes, those that an experiment takes: changes_for("main", seeds=2, ...)."""

    def changes(name, **more):
        wanted = {"model": tiny, **TINY} | more
        known = {item.name for item in fields(Options)}
        return {k: v for k, v in wanted.items() if k in EXPERIMENTS[name].takes and k in known}

    return changes


@pytest.fixture
def tiny_bench(options):
    with bench.open_bench(options()) as opened:
        yield opened


@pytest.fixture
def calibrated(tiny_bench):
    return tiny_bench.calibrate(tiny_bench.windows(0))


@pytest.fixture
def few_variants(monkeypatch):
    """Let the ablation have four rows."""
    rows = ablation.variants()
    monkeypatch.setattr(ablation, "variants", lambda: (*rows[:3], rows[-1]))
