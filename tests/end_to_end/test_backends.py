"""The backends of examples/backends: built as their page says, held to the vectors of the levels that they promise."""

import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.source import ROOT

from awq_ref.pack import FOLDER_LAYOUTS
from awq_ref.vectors import ProgramBackend, read_cases, run_cases

FOLDER = ROOT / "examples" / "backends"
SOURCES = sorted(path for path in FOLDER.glob("*/*") if path.suffix in {".c", ".h", ".mjs", ".rs"})
PROMISED = {"L0", "L1", "L2", "L3"}


@dataclass(frozen=True)
class Example:
    """compiler: what must be on the PATH; build, run: the commands of the page, in the root of the repository.

    layouts: those that it answers, all if there are none; refused: cases of these that it answers `unsupported`.
    """

    compiler: str
    build: str
    run: str
    layouts: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


EXAMPLES = {
    "C": Example(
        "gcc", "gcc -std=c99 -O2 examples/backends/c/backend.c -o build/backend_c -lm", "build/backend_c"
    ),
    "JavaScript": Example(
        "node",
        "",
        "node examples/backends/javascript/backend.mjs",
        ("gemm", "gptq"),
        ("L0/pack/gptq-bits-3", "L0/unpack/gptq-bits-3"),
    ),
    "Rust": Example(
        "rustc",
        "rustc --edition 2021 -O examples/backends/rust/backend.rs -o build/backend_rs",
        "build/backend_rs",
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
    """Levels 0 to 3, in the layouts that a checkpoint folder may hold, or in those that the example names."""
    held = case.params.get("layout", "gemm") in (example.layouts or FOLDER_LAYOUTS)
    return case.level in PROMISED and held and case.id not in example.refused


def require_conforming(outcomes, example):
    assert not [f"{each.case.id}: {each.message}" for each in outcomes if each.status == "failed"]
    promised = Counter(each.status for each in outcomes if is_promised(each.case, example))
    beyond = Counter(each.status for each in outcomes if not is_promised(each.case, example))
    assert set(promised) == {"passed"}
    # as many as version 1.0 of the vectors has: of all layouts, of gemm and gptq
    assert promised["passed"] >= (150 if example.layouts else 224)
    assert set(beyond) == {"unsupported"}


@pytest.mark.parametrize("language", EXAMPLES)
def test_conforms_to_every_case_of_levels_l0_to_l3(language, tmp_path):
    example = EXAMPLES[language]
    require_conforming(outcomes_of(built(example, tmp_path)), example)


def test_c_conforms_without_intrinsics(tmp_path):
    require_conforming(outcomes_of(built(EXAMPLES["C"], tmp_path, "-DPORTABLE")), EXAMPLES["C"])


WRONG_LINES = {
    "nibbles in order": ("layouts.h", "4 * (c % 8 / 2 + 4 * (c % 2))", "4 * (c % 8)", "L0"),
    "float16 cut off": ("protocol.h", "(int)rint(ldexp(", "(int)floor(ldexp(", "L0"),
    "ties away from zero": ("backend.c", "rint((float)(w.v[k]", "round((float)(w.v[k]", "L2"),
    "planes of neighbours": (
        "backend.c",
        "codes[j] | codes[j + 16]",
        "codes[2 * j] | codes[2 * j + 1]",
        "L3",
    ),
}


@pytest.mark.parametrize("bug", WRONG_LINES)
def test_a_wrong_line_is_found_at_its_level(bug, tmp_path):
    file, right, wrong, level = WRONG_LINES[bug]
    shutil.copytree(FOLDER, tmp_path / "examples" / "backends")
    source = tmp_path / "examples" / "backends" / "c" / file
    text = source.read_text(encoding="utf-8")
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong), encoding="utf-8")
    outcomes = outcomes_of(built(EXAMPLES["C"], tmp_path, root=tmp_path))
    assert min(each.case.level for each in outcomes if each.status == "failed") == level


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_page_shows_these_commands(language):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    example = EXAMPLES[language]
    run = shlex.join(["awq-ref", "conform", "--cmd", example.run]).replace("'", '"')
    assert example.build in page
    assert f"`{run}`" in page


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_file_is_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 110
