"""The pages of layouts say what the registry, the oracle's addresses and the vectors say; nothing of it is typed."""

import pytest
from helpers.layout_pages import KINDS, LAYOUTS, PAGES, PART, generated, verdicts


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(path):
    page = path.read_text(encoding="utf-8")
    assert generated(page) == page, "PYTHONPATH=tests python tools/write_layouts.py"


def test_every_layout_is_drawn_and_has_its_vectors_named():
    parts = [m for path in PAGES for m in PART.finditer(path.read_text(encoding="utf-8"))]
    for what in ("drawing", "vectors"):
        named = {word for m in parts if m[2] == what for word in m[3].split()}
        assert set(LAYOUTS) <= named


def test_the_matrix_has_every_layout_on_both_sides():
    assert {source for _, source in verdicts()} == set(LAYOUTS)
    assert {kind for kind, _ in verdicts()} == {kind.name for kind in KINDS}
    assert all(set(row) == set(LAYOUTS) for row in verdicts().values())


def test_a_layout_holds_its_own_linears_exactly():
    assert {row[source] for (_, source), row in verdicts().items()} == {"="}
