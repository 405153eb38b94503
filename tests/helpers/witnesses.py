"""Other projects' code as backends: which of the golden vectors it confirms.

WITNESSES        name of its module -> the package that it needs
importable       those that can be run here
run_witness      module -> a record of what became of the cases
provenance       records -> the page PROVENANCE.md
"""

import importlib.util
import json
from collections import Counter
from functools import cache

from helpers.source import ROOT

from awq_ref.vectors import ModuleBackend, read_cases, read_xfail, run_cases

FOLDER = ROOT / "tests" / "parity" / "witnesses"
PAGE = ROOT / "awq_ref" / "vectors" / "schema" / "PROVENANCE.md"
WITNESSES = {
    "autoawq": "awq",
    "compressed_tensors": "compressed_tensors",
    "gguf": "gguf",
    "mlx": "mlx",
    "onnxruntime": "onnxruntime",
    "transformers": "transformers",
}
WHAT = {
    "autoawq": "its packers of gemm, gemv, gemv_fast, marlin; `dequantize_gemm`; its quantizer (float32)",
    "compressed_tensors": "`pack_to_int32`, `unpack_from_int32`, its decompressor, its converter of AutoAWQ's gemm",
    "gguf": "Q4_0 and Q4_1 blocks",
    "mlx": "`dequantize`, `quantized_matmul`, the operators of `mx.fast`, on a CPU",
    "onnxruntime": "`MatMulNBits` on a CPU, in float32: products, and the codes that it reads",
    "transformers": "torch's operators, `LlamaForCausalLM` with the vectors' weights, its `generate`",
}
HEAD = """# Provenance

The expected values of every case come from the oracles that `source` names: plain loops over integers and exact
fractions (awq_ref/vectors/oracle_*.py). They are not the code of awq_ref, which is held to the vectors like any
backend. Two backends in this repository conform in all cases: awq_ref's fast paths (`awq_ref.vectors.backend`), and a
small one in NumPy that shares no line with them (`tests/mutants/textbook.py`). The words of level 0 are also literals
in `tests/golden/test_vector_words.py`, worked out from the published formulas.

Code of other projects, run as a backend by the same runner (`tests/parity/witnesses`; `make witnesses` installs what
it needs and writes this table). A case that a witness has no function for is not counted.

"""
TAIL = """
Level 4 (the search's inner numbers) has no witness of another project yet: llm-awq and AutoAWQ have no function that
computes them alone. Of level 2 AutoAWQ's quantizer confirms asymmetric grids in float32; scales in float16, symmetric
grids and the range that contains 0 are this project's choices, stated in docs/conformance.md. GPTQ's layouts have
their literals, no witness that runs.

## Discrepancies
"""


@cache  # a witness may put modules of its own in their place
def importable():
    """Return the witnesses whose packages are here; AutoAWQ's needs torch beside its source."""
    found = [name for name, package in WITNESSES.items() if importlib.util.find_spec(package)]
    return [name for name in found if name != "autoawq" or importlib.util.find_spec("torch")]


def known_failures(name):
    path = FOLDER / f"{name}.xfail"
    return read_xfail(path) if path.is_file() else ()


def run_witness(name):
    """Return name, version, passed cases by level and op, and what failed."""
    backend = ModuleBackend(f"parity.witnesses.{name}_witness")
    outcomes = run_cases(backend, read_cases(), xfail=known_failures(name))
    passed = Counter(f"{o.case.level} {o.case.op}" for o in outcomes if o.status == "passed")
    bad = {o.case.id: o.message for o in outcomes if o.status in ("failed", "xpassed")}
    return {
        "name": backend.hello.name,
        "version": backend.hello.version,
        "passed": dict(sorted(passed.items())),
        "known failures": sorted(o.case.id for o in outcomes if o.status == "xfailed"),
        "failed": bad,
    }


def records():
    """Return the kept records, by module."""
    paths = {name: FOLDER / "records" / f"{name}.json" for name in WITNESSES}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()
    }


def _discrepancies(name, record):
    if not record["known failures"]:
        return ""
    text = (FOLDER / f"{name}.xfail").read_text(encoding="utf-8")
    why = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    cases = ", ".join(f"`{case}`" for case in record["known failures"])
    return f"\n**{record['name']} {record['version']}.** {why} Cases: {cases}.\n"


def provenance():
    """Return the page."""
    rows = ["| witness | what of it | confirms |", "|---|---|---|"]
    for name, record in records().items():
        counts = ", ".join(f"{what} ({n})" for what, n in record["passed"].items())
        total = sum(record["passed"].values())
        rows.append(f"| {record['name']} {record['version']} | {WHAT[name]} | {total} cases: {counts} |")
    table = "\n".join(rows) + "\n"
    return HEAD + table + TAIL + "".join(_discrepancies(*item) for item in records().items())
