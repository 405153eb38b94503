"""The golden vectors: they are what their oracles say, byte for byte, and backends that are right conform."""

import json
import time

import pytest
from helpers.json_schema import problems
from helpers.source import ROOT
from helpers.witnesses import CONFORMANCE, PAGE, provenance, records, with_table

from awq_ref.vectors import ModuleBackend, exit_code, files_of, make_cases, read_cases, run_cases
from awq_ref.vectors.flags import FLAGS
from awq_ref.vectors.store import RELEASED

V1 = ROOT / "awq_ref" / "vectors" / "v1"
SCHEMA = ROOT / "awq_ref" / "vectors" / "schema"


def files_on_disk():
    return {path.relative_to(V1).as_posix(): path.read_bytes() for path in V1.rglob("*") if path.is_file()}


def test_the_oracles_make_the_same_bytes_again():
    """Whoever changes an oracle, a seed or the writer changes v1: released vectors get a new id instead."""
    made, kept = files_of(make_cases()), files_on_disk()
    assert RELEASED == V1
    assert sorted(made) == sorted(kept)
    assert [name for name in made if made[name] != kept[name]] == []


def test_cases_that_were_read_are_written_as_the_same_bytes():
    assert files_of(read_cases()) == files_on_disk()


def test_all_files_fit_the_schemas_and_eight_megabytes():
    files = files_on_disk()
    case_file, manifest = (
        json.loads((SCHEMA / name).read_text(encoding="utf-8"))
        for name in ("case-file.json", "manifest.json")
    )
    for name, data in files.items():
        if name.startswith("L") and name.endswith(".json"):
            assert list(problems(json.loads(data), case_file)) == [], name
    assert list(problems(json.loads(files["manifest.json"]), manifest)) == []
    assert sum(map(len, files.values())) <= 8_000_000


def test_every_flag_has_a_story_and_a_case():
    used = {flag for case in read_cases() for flag in case.flags}
    assert used == set(FLAGS)


def test_there_are_cases_of_every_level_and_invalid_ones():
    cases = read_cases()
    assert {case.level for case in cases} == {f"L{n}" for n in range(7)}
    assert sum(not case.is_valid for case in cases) >= 20
    assert {len(case.expected["tokens"].array) for case in cases if case.op == "model_generate"} == {64}


@pytest.mark.parametrize("module", ["awq_ref.vectors.backend", "mutants.textbook"])
def test_the_package_and_the_textbook_conform(module):
    outcomes = run_cases(ModuleBackend(module), read_cases())
    assert {o.case.id: f"{o.status} {o.message}" for o in outcomes if o.status != "passed"} == {}
    assert exit_code(outcomes) == 0


def test_the_integer_levels_are_quick():
    started = time.perf_counter()
    cases = [case for case in read_cases() if case.level in ("L0", "L1", "L2")]
    run_cases(ModuleBackend("awq_ref.vectors.backend"), cases)
    assert time.perf_counter() - started < 20.0


def test_the_table_of_witnesses_is_that_of_their_records():
    kept = records()
    assert len(kept) >= 4
    assert not [name for name, record in kept.items() if record["failed"]]
    assert provenance() == PAGE.read_text(encoding="utf-8"), "tools/write_witnesses.py"
    page = CONFORMANCE.read_text(encoding="utf-8")
    assert page == with_table(page), "tools/write_witnesses.py"
