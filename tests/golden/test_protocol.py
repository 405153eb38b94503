"""The requests are what docs/conformance.md promises to readers of JSON that are small: order, characters, lengths."""

import json
import re

import pytest
from helpers.source import ROOT

from awq_ref.vectors import read_cases
from awq_ref.vectors.protocol import hello_line, request_line

PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|", flags=re.MULTILINE)
MEBIBYTE = 2**20


def names_of(cell):
    return re.findall(r"`([\w.]+)`", cell)


def promised():
    """Op -> the names of its parameters and of its inputs, in the order of the tables."""
    rows: dict[str, tuple[list[str], list[str]]] = {}
    last = ""
    for op, params, inputs in ROW.findall(PAGE.partition("## Operations")[2]):
        if "|" in params or op in rows:
            continue
        found = []
        for cell, column in ((params.strip(), 0), (inputs.strip(), 1)):
            names = names_of(cell)
            if cell.startswith("the same"):
                names = [*rows[last][column], *names]
            elif cell.startswith("as `"):
                names = [*rows[names[0]][column], *names[1:]]
            found.append(names)
        rows[op] = (found[0], found[1])
        last = op
    return rows


CASES = read_cases()
PROMISED = promised()
LAYOUT_OPS = {"pack", "unpack", "dequantize_packed", "matmul_packed"}


def in_order(keys, names):
    places = [names.index(key) for key in keys]
    return places == sorted(places)


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_keys_stand_in_the_order_of_the_tables(op):
    assert op in PROMISED, f"{op} has no row in docs/conformance.md"
    params, inputs = PROMISED[op]
    for case in CASES:
        if case.op != op:
            continue
        if op != "decoder_block":  # "as L6 without ..."
            assert in_order(case.params, params), case.id
        if op not in LAYOUT_OPS | {"decoder_block", "model_logits", "model_generate"}:
            assert in_order(case.inputs, inputs), case.id


def test_lines_are_plain_and_short():
    for case in CASES:
        line = request_line(case)
        assert line.isascii()
        assert line.count(b"\n") == 1
        assert b"\\" not in line
        assert len(line) <= (16 if case.level == "L6" else 4) * MEBIBYTE
        record = json.loads(line)
        assert list(record) == ["id", "op", "params", "inputs"]
        assert b" " not in line
        assert all(list(array) == ["dtype", "shape", "data"] for array in record["inputs"].values())


def test_the_hello_is_the_one_that_is_shown():
    assert hello_line().decode("ascii").strip() in PAGE
