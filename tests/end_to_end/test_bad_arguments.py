"""Options, texts and prompts that cannot be used, on the command line: exit code 2, one message, nothing written."""

import numpy as np
import pytest
from helpers.command_line import (
    assert_nothing_written,
    assert_refused,
    every_command,
    quantize_arguments,
    run,
    shell,
)
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref


def test_group_size_that_does_not_divide_says_which_linears_and_what_would_fit(capsys, model, tmp_path, text):
    # in_features are 64 everywhere but in down_proj, where they are 96: 64 does not divide 96; 32 divides both.
    result = run(capsys, *quantize_arguments(model, tmp_path / "out", text, "--group-size", 64))
    assert_refused(result, "mlp.down_proj", "96", "32")
    assert "q_proj" not in result[1]
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("empty",)),
        (b" \n\n", ("empty",)),
        (b"too short", ("64", "9")),
        (b"caf\xe9 " * 100, ("UTF-8", "0xe9", "3")),
    ],
    ids=["empty", "blank", "short", "latin-1"],
)
def test_unusable_calibration_text(capsys, model, tmp_path, content, words):
    text = tmp_path / "bad.txt"
    text.write_bytes(content)
    assert_refused(run(capsys, *quantize_arguments(model, tmp_path / "out", text)), *words)
    assert_nothing_written(tmp_path / "out")


def test_calibration_file_that_is_missing(capsys, model, tmp_path):
    result = run(capsys, *quantize_arguments(model, tmp_path / "out", tmp_path / "absent.txt"))
    assert_refused(result, "absent.txt")
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("name", ["quantize", "generate", "perplexity"])
def test_token_ids_beyond_the_vocabulary(capsys, tmp_path, text, name):
    # The tokenizer knows 257 tokens, this model only 100.
    model = tmp_path / "narrow"
    write_tiny_llama(model, vocab_size=100, eos_token_id=None)
    (tmp_path / "high.txt").write_text("zzzz\xff" * 100, encoding="utf-8")
    arguments = every_command(model, tmp_path / "out", tmp_path / "high.txt") | {
        "generate": ["generate", model, "--prompt", "\xff"]
    }
    assert_refused(run(capsys, *arguments[name]), "[0, 99]")
    assert_nothing_written(tmp_path / "out")


def test_prompt_longer_than_the_context(capsys, model):
    result = run(capsys, "generate", model, "--prompt", "x" * 129)
    assert_refused(result, "128", "129", "overflow")


def test_a_context_that_rolls(capsys, model):
    roll = ("--overflow", "roll", "--max-new-tokens", 3)
    assert run(capsys, "generate", model, "--prompt", "x" * 129, *roll)[0] == 0
    loaded, options = awq_ref.load_model(model), {"max_new_tokens": 3, "eos_token_ids": ()}
    prompt = np.arange(3, 132)  # no begin-of-text token among them: the newest half of 128 stay
    assert loaded.generate(prompt, overflow="roll", **options) == loaded.generate(prompt[-64:], **options)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--bits", 5], "--bits"),
        (["--bits", "four"], "--bits"),
        (["--recipe", "magic"], "magic"),
        (["--group-size", 0], "group_size"),
        (["--samples", 0], "samples"),
        (["--seq-len", 0], "seq_len"),
    ],
)
def test_option_out_of_range(capsys, model, tmp_path, text, arguments, word):
    assert_refused(run(capsys, *quantize_arguments(model, tmp_path / "out", text, *arguments)), word)
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--temperature", -1], "temperature"),
        (["--top-p", 1.5], "top_p"),
        (["--top-k", -1], "top_k"),
        (["--min-p", 1.5], "min_p"),
        (["--repetition-penalty", 0], "repetition_penalty"),
        (["--prompt", ""], "token_ids"),
    ],
)
def test_sampling_option_out_of_range(capsys, model, arguments, word):
    assert_refused(run(capsys, "generate", model, "--prompt", "x", *arguments), word)


def test_quantizing_twice(capsys, model, tmp_path, text):
    assert run(capsys, *quantize_arguments(model, tmp_path / "once", text))[0] == 0
    result = run(capsys, *quantize_arguments(tmp_path / "once", tmp_path / "twice", text))
    assert_refused(result, "once")
    assert_nothing_written(tmp_path / "twice")


def test_a_command_of_its_own_process_ends_with_2_and_one_message(model):
    done = shell(["inspect", model / "absent"])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("awq-ref: ")
    assert done.stderr.count("\n") == 1
