"""The backends of examples/backends: built as their page says, held to the vectors of the levels that they promise."""

import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from helpers.source import ROOT

from awq_ref.vectors import ProgramBackend, read_cases, run_cases

FOLDER = ROOT / "examples" / "backends"
PROMISED = {"L0", "L1", "L2", "L3"}
KERNELS = (
    "unpack dequantize dequantize_packed choose_grid quantize_linear matmul matmul_packed matmul_w4a8 "
    "quantize_activations"
)


@dataclass(frozen=True)
class Example:
    """compiler: what must be on the PATH; build, run: the commands of the page, in the root of the repository.

    passes: how many cases of version 1.0 of the vectors pass; ops: what it answers, all in layout gemm; refused: globs
    of cases of these that it answers `unsupported`.
    """

    source: str
    compiler: str
    build: str
    run: str
    passes: int
    ops: str = KERNELS
    refused: tuple[str, ...] = (
        "L1/dequantize/index",
        "L1/dequantize/offset*",
        "L2/quantize_linear/clip*",
        "L2/quantize_linear/invalid-clip",
        "L3/matmul/index",
        "L3/matmul/offset",
    )


EXAMPLES = {
    "C": Example(
        "c/backend.c",
        "gcc",
        "gcc -std=c99 -O2 examples/backends/c/backend.c -o build/backend_c -lm",
        "build/backend_c",
        113,
    ),
    "JavaScript": Example(
        "javascript/backend.mjs",
        "node",
        "",
        "node examples/backends/javascript/backend.mjs",
        134,
        f"{KERNELS} pack quantize",
        refused=(),
    ),
    "Rust": Example(
        "rust/backend.rs",
        "rustc",
        "rustc --edition 2021 -O examples/backends/rust/backend.rs -o build/backend_rs",
        "build/backend_rs",
        121,
        f"{KERNELS} pack",
    ),
}


def built(example: Example, tmp_path: Path, *options: str, root: Path = ROOT) -> str:
    """Build into a scratch folder; return the command that runs the backend. Without its compiler: skip."""
    if shutil.which(example.compiler) is None:
        pytest.skip(f"{example.compiler} is not on the PATH")
    here = {"build/": f"{tmp_path}/", "examples/": f"{root}/examples/"}
    commands = []
    for command in (example.build, example.run):
        words = shlex.split(command)
        for shown, real in here.items():
            words = [real + word.removeprefix(shown) if word.startswith(shown) else word for word in words]
        commands.append(words)
    build, run = commands
    if build:
        done = subprocess.run([*build, *options], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    return shlex.join(run)


def outcomes_of(command: str):
    backend = ProgramBackend(command)
    return run_cases(backend, read_cases())


def is_promised(case, example) -> bool:
    """Levels 0 to 3, layout gemm, the operations that the example names, but for what it refuses by name."""
    held = case.params.get("layout", "gemm") == "gemm" and case.op in example.ops.split()
    return case.level in PROMISED and held and not any(fnmatch(case.id, glob) for glob in example.refused)


def require_conforming(outcomes, example):
    assert not [f"{each.case.id}: {each.message}" for each in outcomes if each.status == "failed"]
    promised = [each for each in outcomes if is_promised(each.case, example)]
    beyond = Counter(each.status for each in outcomes if not is_promised(each.case, example))
    assert {each.status for each in promised} == {"passed"}
    assert len(promised) >= example.passes
    assert {each.case.level for each in promised} == PROMISED
    assert {each.case.op for each in promised} == set(example.ops.split())
    assert set(beyond) == {"unsupported"}


@pytest.mark.parametrize("language", EXAMPLES)
def test_conforms_to_every_case_of_levels_l0_to_l3(language, tmp_path):
    example = EXAMPLES[language]
    require_conforming(outcomes_of(built(example, tmp_path)), example)


@pytest.mark.parametrize(
    ("language", "options"),
    [
        ("C", ["-U__SSE2__", "-U__ARM_NEON"]),  # the portable lines
        ("C", ["-Wall", "-Wextra", "-Werror"]),
        ("Rust", ["-D", "warnings"]),
    ],
)
def test_conforms_without_intrinsics_and_builds_without_warnings(language, options, tmp_path):
    example = EXAMPLES[language]
    require_conforming(outcomes_of(built(example, tmp_path, *options)), example)


# language, the right text, a wrong one, the first level that sees it
WRONG_LINES = {
    "nibbles in order": ("C", "{0, 2, 4, 6, 1, 3, 5, 7}", "{0, 1, 2, 3, 4, 5, 6, 7}", "L0"),
    "words of neighbours": ("C", "{w[0], w[1], w[2], w[3]}", "{w[1], w[0], w[2], w[3]}", "L0"),
    "float16 cut off": ("C", "(int)rint(ldexp(", "(int)floor(ldexp(", "L1"),
    "ties away from zero": ("C", "rint((float)(w[k] / scale))", "round((float)(w[k] / scale))", "L2"),
    "last input left out": ("C", "i < I; i++", "i < I - 1; i++", "L3"),
    "a nibble too high": ("Rust", "20, 8, 24", "24, 8, 20", "L0"),
    "zero point left out": (
        "Rust",
        "(l.codes.data[k] - l.zeros.data[k / l.group])",
        "l.codes.data[k]",
        "L1",
    ),
    "added before rounded": ("JavaScript", "w / scale)) + zero", "w / scale + zero))", "L2"),
    "127.5 steps": ("JavaScript", "Math.abs)) / 127)", "Math.abs)) / 127.5)", "L3"),
}


@pytest.mark.parametrize("bug", WRONG_LINES)
def test_a_wrong_line_is_found_at_its_level(bug, tmp_path):
    language, right, wrong, level = WRONG_LINES[bug]
    shutil.copytree(FOLDER, tmp_path / "examples" / "backends")
    source = tmp_path / "examples" / "backends" / EXAMPLES[language].source
    text = source.read_text(encoding="utf-8")
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong), encoding="utf-8")
    outcomes = outcomes_of(built(EXAMPLES[language], tmp_path, root=tmp_path))
    assert min(each.case.level for each in outcomes if each.status == "failed") == level


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_page_shows_these_commands(language):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    example = EXAMPLES[language]
    run = shlex.join(["awq-ref", "conform", "--cmd", example.run]).replace("'", '"')
    assert example.build in page
    assert f"`{run}`" in page


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_backend_is_one_short_file(language):
    source = FOLDER / EXAMPLES[language].source
    assert [path.name for path in source.parent.iterdir()] == [source.name]
    lines = source.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 110
