"""Other projects' code as backends: which of the golden vectors it confirms.

WITNESSES        name of its module -> the package that it needs
importable       those that can be run here
run_witness      module -> a record of what became of the cases
provenance       records -> the page PROVENANCE.md
third_parties    records -> the tables of docs/conformance.md
with_table       that page -> the page with its tables as the records have them
"""

import importlib.util
import json
from collections import Counter
from functools import cache

from helpers.source import ROOT

from awq_ref.vectors import ModuleBackend, read_cases, read_xfail, run_cases

FOLDER = ROOT / "tests" / "parity" / "witnesses"
CONFORMANCE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- written by tools/write_witnesses.py -->\n", "<!-- end -->\n"
PAGE = ROOT / "awq_ref" / "vectors" / "schema" / "PROVENANCE.md"
WITNESSES = {
    "autoawq": "awq",
    "compressed_tensors": "compressed_tensors",
    "gguf": "gguf",
    "gptqmodel": "gptqmodel",
    "mlx": "mlx",
    "onnxruntime": "onnxruntime",
    "transformers": "transformers",
}
NEED_TORCH = ("autoawq", "gptqmodel")
WHAT = {
    "autoawq": "packers of gemm, gemv, gemv_fast, marlin; `dequantize_gemm`; quantizer and search of scales (float32)",
    "compressed_tensors": "`pack_to_int32`, `unpack_from_int32`, its decompressor, its converter of AutoAWQ's gemm",
    "gguf": "Q4_0 and Q4_1 blocks",
    "gptqmodel": "its packer, its way from v2 to v1, its unpacking (of the source, without its kernels)",
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
Of level 4 AutoAWQ's own search of scales, with what it tries written down, confirms the formula `llm-awq`
(`channel_scales` at alpha 0 and 0.35; it never tries 1) and a whole search: 20 scales, 20 losses and the choice of
`L4/search_scales/llm-awq-float32`. Its inputs there are sqrt(n) times the Cholesky factor of the Gram matrix, so that
its mean over tokens and outputs is the loss of docs/conformance.md. Not comparable: the formula `awq`, which is this
project's; cases whose scales are stored in float16, since AutoAWQ quantizes with scales in the dtype of the weight;
its search of clips, which returns the best limits and no losses, and stops at ratio 0.55. Of level 2 its quantizer
confirms asymmetric and symmetric grids with scales in float32. Scales in float16 and the range that contains 0 are
this project's choices, stated in docs/conformance.md. GPTQModel's way from v2 to v1 is witnessed at 2, 4 and 8 bits,
not at 3.

## Discrepancies
"""


@cache  # a witness may put modules of its own in their place
def importable():
    """Return the witnesses whose packages are here; those that are read from source need torch beside it."""
    found = [name for name, package in WITNESSES.items() if importlib.util.find_spec(package)]
    return [name for name in found if name not in NEED_TORCH or importlib.util.find_spec("torch")]


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
    sizes = {case.id: sum(array.nbytes for array in case.inputs.values()) for case in read_cases()}
    ordered = sorted(
        record["known failures"], key=lambda case: (sizes[case], case)
    )  # the smallest comes first
    cases = ", ".join(f"`{case}`" for case in ordered)
    return f"\n**{record['name']} {record['version']}.** {why} Cases, the smallest first: {cases}.\n"


def provenance():
    """Return the page."""
    rows = ["| witness | what of it | confirms |", "|---|---|---|"]
    for name, record in records().items():
        counts = ", ".join(f"{what} ({n})" for what, n in record["passed"].items())
        total = sum(record["passed"].values())
        rows.append(f"| {record['name']} {record['version']} | {WHAT[name]} | {total} cases: {counts} |")
    table = "\n".join(rows) + "\n"
    return HEAD + table + TAIL + "".join(_discrepancies(*item) for item in records().items())


def third_parties():
    """Return the tables of docs/conformance.md: who confirms how many cases of each level, and what differs."""
    levels = [f"L{n}" for n in range(7)]
    kept = records()
    rows = [f"| implementation | {' | '.join(levels)} | operations |", "|---|" + "---|" * (len(levels) + 1)]
    for record in kept.values():
        counts = Counter()
        for what, n in record["passed"].items():
            counts[what.split()[0]] += n
        ops = ", ".join(f"`{op}`" for op in dict.fromkeys(what.split()[1] for what in record["passed"]))
        cells = " | ".join(str(counts[level] or "") for level in levels)
        rows.append(f"| {record['name']} {record['version']} | {cells} | {ops} |")
    return "\n".join(rows) + "\n" + "".join(_discrepancies(*item) for item in kept.items())


def with_table(page):
    """Return the page with its tables as the records have them."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + third_parties() + END + rest.split(END)[1]
