"""The bench: windows, measures, fingerprints."""

import hashlib

import numpy as np
import pytest

from awq_ref.errors import CorpusError, ShapeError
from awq_ref.paper.bench import Remembered, open_bench, weights_sha256
from awq_ref.search import RECIPES


def test_windows_are_blocks_of_the_text_and_a_longer_draw_begins_with_a_shorter(tiny_bench):
    three, two = tiny_bench.windows(5), tiny_bench.windows(5, samples=2)
    assert three.shape == (3, 32)
    np.testing.assert_array_equal(three[:2], two)
    text = tiny_bench.calibration_ids
    blocks = {text[i : i + 32].tobytes() for i in range(0, len(text) - 31, 32)}
    assert len({window.tobytes() for window in three} & blocks) == 3


def test_another_seed_gives_other_windows(tiny_bench):
    assert not np.array_equal(tiny_bench.windows(0), tiny_bench.windows(1))


def test_a_text_without_one_window_is_refused(tiny_bench):
    with pytest.raises(CorpusError, match="at least 32 tokens; it has 5"):
        tiny_bench.windows(0, token_ids=np.arange(5))


def test_a_group_size_that_does_not_divide_is_refused_before_loading(options):
    with pytest.raises(ShapeError, match="64 does not divide"):
        with open_bench(options(group_size=(64,))):
            pass


def test_a_model_does_not_differ_from_itself(tiny_bench):
    measures = tiny_bench.measures(tiny_bench.model)
    assert measures["kl"] == pytest.approx(0.0, abs=1e-12)
    assert measures["perplexity"] == tiny_bench.perplexity(tiny_bench.model)


def test_a_remembered_model_computes_hidden_states_once(tiny_bench):
    calls = []

    class Counted:
        vocab_size = 3

        def hidden(self, ids):
            calls.append(ids)
            return np.zeros((*ids.shape, 2), dtype=np.float32)

    model = Remembered(Counted())
    ids = np.arange(4)[None]
    first, second = model.hidden(ids), model.hidden(ids.copy())
    assert first is second
    model.hidden(ids.reshape(2, 2))  # the same bytes, another shape
    assert len(calls) == 2


def test_the_checksum_is_that_of_the_file(tiny):
    wanted = hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()
    assert weights_sha256(tiny) == wanted


@pytest.mark.parametrize("recipe", [name for name, row in RECIPES.items() if row.needs_tokens])
def test_a_recipe_that_judges_on_tokens_gets_them(recipe, tiny_bench, calibrated):
    _, report = tiny_bench.quantize(recipe, calibrated, bits=3, group_size=32)
    assert report.calibration["windows"] == 3


def test_outliers_do_not_change_the_function(options, tiny_bench):
    ids = tiny_bench.token_ids[None, :64]
    with open_bench(options(outliers=8.0)) as bench:
        # both are float16 weights that differ by powers of two: exact in float32 short of subnormals
        np.testing.assert_allclose(bench.model.logits(ids), tiny_bench.model.logits(ids), atol=1e-4)
        model = bench.setup()["model"]
    assert model["name"] == "tiny, outliers x8"
    assert model["sha256"] != weights_sha256(tiny_bench.source)
    assert not bench.source.exists()  # what was made for the bench goes with it
