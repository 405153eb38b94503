"""Every family here and in transformers: tiny random models, saved by transformers, loaded by both.

Tolerance: 1e-5 of the largest logit. Both sides compute in float32 and differ in the order of additions and in the
rope angles (float64 here, float32 there: apart by at most position * 2**-24, 1e-6 for these lengths).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.cases import (
    CASES,
    assert_same,
    random_ids,
    save_model,
    their_text,
    theirs,
)
from parity.pieces import CHANGING, CUTS, expected_in_pieces, their_cached

import awq_ref
from awq_ref.model import FAMILIES, block_forward, make_context, new_cache
from awq_ref.model import generate as loops


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    """One case: our model and theirs."""
    family, changes = CASES[request.param]
    model = save_model(tmp_path, family, **changes)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == ("max_shard_size" in changes)
    return awq_ref.load_model(tmp_path, residency="dense"), model


def test_every_family_has_a_case():
    assert {family for family, _ in CASES.values()} == set(FAMILIES)


def test_logits_are_the_same(pair):
    ours, model = pair
    ids = random_ids(3, 40)
    assert_same(ours.logits(ids), theirs(model, ids))


def test_logits_with_padding_are_the_same(pair):
    ours, model = pair
    ids = random_ids(2, 16)
    for mask in ([[0] * 5 + [1] * 11, [1] * 16], [[1] * 11 + [0] * 5, [1] * 16]):
        mask = np.array(mask, dtype=np.int64)
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        options = {"attention_mask": torch.from_numpy(mask), "position_ids": torch.from_numpy(positions)}
        real = mask.astype(np.bool_)
        assert_same(ours.logits(ids, attention_mask=mask)[real], theirs(model, ids, **options)[real])


def test_every_blocks_output_is_the_same(pair):
    ours, model = pair
    ids, seen = random_ids(2, 20), []
    for layer in next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList)):
        layer.register_forward_hook(
            lambda module, given, out: seen.append(out[0] if type(out) is tuple else out)
        )
    theirs(model, ids)
    x, context = ours.decoder.embed(ids), make_context(ours.config, 20)
    for number, block in enumerate(ours.decoder.blocks):
        x = block_forward(x, block, ours.config, context.at_layer(number))
        assert_same(x, seen[number].numpy())


def test_greedy_text_is_the_same(pair, monkeypatch):
    ours, model = pair
    monkeypatch.setattr(loops, "PAGE", 4)  # buffers of windows roll on, others grow, every few tokens
    prompt = random_ids(9)
    wanted = their_text(model, prompt, 60)
    assert ours.generate(prompt, max_new_tokens=60, temperature=0) == wanted


def test_decoding_with_a_cache_gives_their_full_pass(pair, request):
    ours, model = pair
    ids, case = random_ids(2, 30), request.node.callspec.params["pair"]
    cache, pieces = new_cache(ours.config, batch=2, capacity=30, page=4), []
    for first, last in CUTS:
        logits, cache = ours.decoder.forward(ids[:, first:last], cache)
        pieces.append(logits)
    assert_same(np.concatenate(pieces, axis=1), expected_in_pieces(case, model, ids))


def test_left_padded_texts_past_the_window_are_the_same(pair, request):
    ours, model = pair
    ids, mask = random_ids(2, 30), np.ones((2, 30), dtype=np.int64)
    mask[0, :9] = 0  # more than a window
    cache, pieces = new_cache(ours.config, batch=2, page=4), []
    cuts = [(0, 14), (14, 19), *((i, i + 1) for i in range(19, 30))]
    for first, last in cuts:
        logits, cache = ours.decoder.forward(ids[:, first:last], cache, attention_mask=mask[:, first:last])
        pieces.append(logits)
    positions = torch.from_numpy(np.maximum(mask.cumsum(axis=1) - 1, 0))
    if request.node.callspec.params["pair"] in CHANGING:
        expected = their_cached(model, ids, cuts, mask)
    else:
        expected = theirs(model, ids, attention_mask=torch.from_numpy(mask), position_ids=positions)
    real = mask.astype(np.bool_)
    assert_same(np.concatenate(pieces, axis=1)[real], expected[real])
