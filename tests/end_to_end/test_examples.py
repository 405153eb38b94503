"""The examples run as they stand, print what they promise, and are short."""

import re
import subprocess
import sys

import pytest
from helpers.source import ROOT, relative

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LINES = 60


def run(name, *, text=""):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        input=text, capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_example_is_short_and_has_a_test_here():
    tests = set(globals())
    for path in EXAMPLES:
        assert path.read_text(encoding="utf-8").count("\n") <= LINES, relative(path)
        assert f"test_{path.stem}" in tests, f"{path.name} is not run here"


def test_quantize_and_chat():
    printed = run("quantize_and_chat", text="def main():\nimport os\n")
    assert "in memory: {" in printed and "alpha" in printed
    assert len(printed.partition("in memory")[2].strip().splitlines()) >= 3  # two answers below it


def test_inspect_checkpoint():
    printed = run("inspect_checkpoint")
    assert "layout gptq: codes (256, 768), scales (256, 6)" in printed  # 768 inputs in groups of 128
    shares = re.search(r"share of each code: +\[([^]]+)\]", printed)[1].split()
    assert len(shares) == 16 and sum(map(float, shares)) == pytest.approx(
        1, abs=16 * 0.0005
    )  # each to three places


def test_compare_recipes():
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:4] for line in run("compare_recipes").splitlines()[2:]
    }
    fp16, rtn, awq = (float(rows[name][0]) for name in ("fp16", "rtn", "awq"))
    assert fp16 < min(rtn, awq)
    assert 0 < float(rows["awq"][1]) < float(rows["rtn"][1])


def test_check_backend():
    right, wrong = run("check_backend").split("zero point minus one: ")
    assert "'passed': 14" in right and "failed" not in right
    assert "elements differ" in wrong


def test_write_recipe():
    last = run("write_recipe").splitlines()[-1]
    half, awq = map(float, re.match(r"mean: half ([\d.]+), awq ([\d.]+)", last).groups())
    assert awq <= 1 and awq < half  # round-to-nearest is a candidate of awq's search, and not of half's


def test_plan_memory():
    table = run("plan_memory")
    # Llama-2-70B: 80 blocks of (2 * 8192 + 2 * 1024 + 3 * 28672) * 8192 weights, half a byte each, and 9 bytes per 128
    linears = 80 * (2 * 8192 + 2 * 1024 + 3 * 28672) * 8192
    assert f"{linears * (0.5 + 9 / 128) / 2**30:.2f} GiB" in table
    # keys and values of 4096 tokens: 80 layers of 8 heads of 128 channels, 4 bytes
    assert f"{2 * 4096 * 80 * 8 * 128 * 4 / 2**30:.2f} GiB" in table
