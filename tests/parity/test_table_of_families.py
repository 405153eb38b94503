"""The table of docs/families.md says what is measured here; `--record` writes it.

python -m pytest tests/parity/test_table_of_families.py --record
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.folds import folded, random_scales
from parity.cases import (
    CASES,
    TOLERANCE,
    loaded,
    random_ids,
    relative_error,
    save_model,
    their_text,
    theirs,
)
from parity.decompressed import write_decompressed
from parity.pieces import CUTS, expected_in_pieces
from parity.table import Row, read_rows, write_row

import awq_ref
from awq_ref.model import FAMILIES, Decoder, new_cache
from awq_ref.pipeline.block_search import norm_storage
from awq_ref.pipeline.plans import layer_plan

NEW_TOKENS = 60
OF_THEIR_OWN = ("GPT2LMHeadModel", "FalconForCausalLM")  # their linears are classes of their own


def cached_logits(decoder: Decoder, ids: np.ndarray) -> np.ndarray:
    """The logits of a text of 30 tokens, of which the last ten come one by one."""
    cache, pieces = new_cache(decoder.config, batch=len(ids), capacity=30), []
    for first, last in CUTS:
        logits, cache = decoder.forward(ids[:, first:last], cache)
        pieces.append(logits)
    return np.concatenate(pieces, axis=1)


def folded_decoder(decoder: Decoder) -> Decoder:
    """The same function, with channel scales folded in at every site of the plan."""
    config, draw = decoder.config, random_scales(np.random.default_rng(7))
    storage = norm_storage(config, "F32")
    blocks = [
        folded(block, config, layer_plan(config, layer), draw, storage)
        for layer, block in enumerate(decoder.blocks)
    ]
    return replace(decoder, blocks=blocks)


def measured(case: str, folder: Path) -> Row:
    """One case here and in transformers."""
    family, changes = CASES[case]
    model = save_model(folder, family, **changes)
    ours = awq_ref.load_model(folder, residency="dense")
    ids, prompt = random_ids(2, 30), random_ids(9)
    wanted, pieces = theirs(model, ids), expected_in_pieces(case, loaded(folder), ids)
    return Row(
        logits=relative_error(ours.logits(ids), wanted),
        greedy=ours.generate(prompt, max_new_tokens=NEW_TOKENS) == their_text(model, prompt, NEW_TOKENS),
        cached=relative_error(cached_logits(ours.decoder, ids), pieces) <= TOLERANCE,
        fold=relative_error(folded_decoder(ours.decoder).logits(ids), wanted) <= TOLERANCE,
        int4=survives_int4(folder),
    )


def survives_int4(folder: Path) -> bool:
    """Tell whether transformers reads from a folder quantized here what we read from it."""
    ids, target = random_ids(4, 40), folder / "int4"
    report = awq_ref.quantize_model(
        folder, target, recipe="awq", symmetric=True, group_size=16,
        layout="pack-quantized", calibration=ids, shown=False,
    )  # fmt: skip
    assert any(site.alpha > 0 for _, site in report.sites())
    ours = awq_ref.load_model(target, residency="dense")
    if ours.config.num_experts or ours.config.family.architecture in OF_THEIR_OWN:
        transposed = ours.config.family.transposed
        target = write_decompressed(target, folder / "again", group_size=16, transposed=transposed)
    return relative_error(ours.logits(ids), theirs(loaded(target), ids)) <= TOLERANCE


def row_of(family: str, folder: Path) -> Row:
    """What holds in every case of a family, and the largest error of any."""
    rows = [measured(name, folder / name) for name, (which, _) in CASES.items() if which == family]
    held = [all(values) for values in zip(*(row.equalities for row in rows), strict=True)]
    return Row(max(row.logits for row in rows), *held)


@pytest.mark.filterwarnings("ignore")  # of the loaders' own
@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_says_what_is_measured(tmp_path, request, family):
    """Folded norms, (1 + w) norms among them, fused linears: theirs is the other reading of what we wrote."""
    row = row_of(family, tmp_path)
    print(row.line(family))
    if request.config.getoption("--record", default=False):
        write_row(family, row)
    assert row == replace(row, greedy=True, cached=True, fold=True, int4=True)
    said = read_rows()[family]
    assert said.equalities == row.equalities
    assert max(row.logits, said.logits) <= TOLERANCE


def test_the_page_has_a_row_for_every_family():
    assert list(read_rows()) == list(FAMILIES)
