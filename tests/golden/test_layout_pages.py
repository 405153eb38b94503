"""The pages of layouts say what the registry, the oracle's addresses and the vectors say; nothing of it is typed."""

import pytest
from helpers.layout_pages import KINDS, LAYOUTS, PAGES, PART, generated, verdicts

from awq_ref.vectors.addresses import PLACES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(path):
    page = path.read_text(encoding="utf-8")
    assert generated(page) == page, "PYTHONPATH=tests python tools/write_layouts.py"


def named(what):
    parts = [m for path in PAGES for m in PART.finditer(path.read_text(encoding="utf-8")) if m[2] == what]
    return {word for m in parts for word in m[3].split() if word in LAYOUTS}


def test_every_layout_has_its_vectors_named_and_every_place_of_codes_a_drawing():
    assert named("vectors") == set(LAYOUTS)
    drawn = {PLACES[layout].weight[1] for layout in named("drawing")}
    assert {place.weight[1] for place in PLACES.values()} == drawn


def test_the_matrix_has_every_layout_on_both_sides():
    assert {source for _, source in verdicts()} == set(LAYOUTS)
    assert {kind for kind, _ in verdicts()} == {kind.name for kind in KINDS}
    assert all(set(row) == set(LAYOUTS) for row in verdicts().values())


def test_a_layout_holds_its_own_linears_exactly():
    assert {row[source] for (_, source), row in verdicts().items()} == {"="}
