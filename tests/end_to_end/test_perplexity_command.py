"""`awq-ref perplexity` on a tiny model: what the table says."""

import pytest
from helpers.command_line import assert_refused, quantize_arguments, run
from helpers.tiny_checkpoint import write_tiny_llama

from awq_ref import cli


def table(capsys, *arguments):
    """Run a command that prints one table; return its rows as a dict."""
    assert cli.main([str(argument) for argument in arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {cells[1].strip(): cells[2].strip() for cells in (line.split("|") for line in lines[2:])}


@pytest.fixture
def command(model, text):
    return lambda folder, *extra: ["perplexity", folder, "--text", text, "--seq-len", 64, *extra]


def test_divergence_stands_in_the_table_only_with_a_reference(capsys, command, model, text, tmp_path):
    assert run(capsys, *quantize_arguments(model, tmp_path / "int4", text))[0] == 0
    plain = table(capsys, *command(tmp_path / "int4"))
    assert "KL to the reference" not in plain
    rows = table(capsys, *command(tmp_path / "int4", "--reference", model))
    assert float(rows["KL to the reference"].split()[0]) > 0
    assert rows.items() >= {key: plain[key] for key in ("perplexity", "tokens scored")}.items()
    itself = table(capsys, *command(model, "--reference", model))
    assert itself["KL to the reference"] == "0.000000 nats per token, stride 64"


def test_a_reference_with_another_vocabulary_is_refused(capsys, command, model, tmp_path):
    write_tiny_llama(tmp_path / "wide", vocab_size=300)
    assert_refused(run(capsys, *command(model, "--reference", tmp_path / "wide")), "300", "264")
