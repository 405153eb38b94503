"""Every family against numbers that transformers computed: tests/golden/families, one file each.

tests/parity/test_recorded_families.py wrote the files and shows that they are still what transformers says.
"""

import numpy as np
import pytest
from helpers.assertions import assert_close
from helpers.recorded_families import FOLDER, RecordedCase, read_case, write_folder

import awq_ref
from awq_ref.model import FAMILIES, new_cache

TOLERANCE = 1e-5  # of the largest logit, as in tests/parity
LARGEST_FILE = 60_000


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> RecordedCase:
    return read_case(request.param)


@pytest.fixture
def model(case: RecordedCase, tmp_path) -> awq_ref.Model:
    return awq_ref.load_model(write_folder(case, tmp_path / "model"))


def assert_same(logits, case):
    assert_close(logits, case.logits, atol=TOLERANCE * np.abs(case.logits).max())


def test_logits_are_those_of_transformers(case, model):
    assert_same(model.logits(case.ids), case)


def test_decoding_with_a_cache_gives_the_logits_of_transformers(case, model):
    cache, pieces = new_cache(model.config, batch=2, capacity=12), []
    for first, last in [(0, 5), *((i, i + 1) for i in range(5, 12))]:
        logits, cache = model.decoder.forward(case.ids[:, first:last], cache)
        pieces.append(logits)
    assert_same(np.concatenate(pieces, axis=1), case)


def test_greedy_text_is_that_of_transformers(case, model):
    assert model.generate(case.ids[0], max_new_tokens=len(case.greedy)) == case.greedy.tolist()


def test_the_files_are_those_of_the_families_and_small():
    files = sorted(FOLDER.iterdir())
    assert [file.name for file in files] == sorted(f"{family}.safetensors" for family in FAMILIES)
    assert max(file.stat().st_size for file in files) <= LARGEST_FILE
