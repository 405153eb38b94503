"""`awq-ref calibrate`: one pass over the text, and every recipe that needs no tokens is as if it had made its own."""

import pytest
from helpers.command_line import assert_refused, quantize_arguments, run


@pytest.fixture
def statistics(capsys, model, text, tmp_path):
    file = tmp_path / "statistics"
    arguments = ["calibrate", model, file, "--calibration", text, "--samples", 4, "--seq-len", 64]
    assert run(capsys, *arguments) == (0, "")
    return file


def without(arguments, *options):
    """The arguments without some options and their values."""
    places = [i for i, word in enumerate(arguments) if word in options]
    return [word for i, word in enumerate(arguments) if i not in places and i - 1 not in places]


@pytest.mark.parametrize("recipe", ["awq", "gptq"])
def test_a_recipe_on_saved_statistics_writes_the_same_bytes(
    capsys, model, text, tmp_path, statistics, recipe
):
    own = quantize_arguments(model, tmp_path / "own", text, "--recipe", recipe)
    shared = without(
        quantize_arguments(model, tmp_path / "shared", text, "--recipe", recipe), "--calibration"
    )
    assert run(capsys, *own)[0] == 0
    assert run(capsys, *shared, "--statistics", statistics)[0] == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()


def test_statistics_and_text_together_are_refused(capsys, model, text, tmp_path, statistics):
    both = [*quantize_arguments(model, tmp_path / "no", text), "--statistics", statistics]
    assert_refused(run(capsys, *both), "--statistics or --calibration")
    tokens = [*without(both, "--calibration"), "--recipe", "llm-awq"]
    assert_refused(run(capsys, *tokens), "llm-awq judges on the tokens")
    assert not (tmp_path / "no").exists()


def test_a_file_that_is_there_is_kept(capsys, model, text, tmp_path, statistics):
    before = statistics.read_bytes()
    again = ["calibrate", model, statistics, "--calibration", text]
    assert_refused(run(capsys, *again), "must be a new file")
    assert statistics.read_bytes() == before
    assert_refused(
        run(capsys, "calibrate", model, tmp_path / "nowhere" / "file", "--calibration", text), "nowhere"
    )
