"""What makes the site of the pages: links, carriers, the check of what comes out, the figure. `make docs` builds it."""

import draw_divergence
import pytest
import site_links
import site_pages
from helpers.source import ROOT

CARRIER = "docs/carriers/" + "awq-1.md"  # made by the build
EQUATION = "## [AWQ-9] T\n\nCode: `awq_ref.a.b`,\n  `awq_ref.a.c`\nTest: `tests/x.py::t`\n"


def page(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr(site_pages, "ROOT", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return site_pages.written(path)


def test_links_to_programs_become_pages_and_code_stays_code(tmp_path, monkeypatch):
    text = "[a](../awq_ref/x.py) [r](../README.md)\n\n```python\nd[k](../awq_ref/x.py)\n```\n"
    written = page(tmp_path, monkeypatch, "pages/p.md", text)
    assert '<a href="../code/awq_ref/x.py.html">a</a> [r](../index.md)' in written
    assert "d[k](../awq_ref/x.py)" in written


def test_a_chapter_has_links_in_its_text_alone(tmp_path, monkeypatch):
    written = page(
        tmp_path, monkeypatch, "tutorials/01.py", "# [a](../awq_ref/x.py)\ny = d[k](../awq_ref/x.py)\n"
    )
    assert written == '# <a href="../code/awq_ref/x.py.html">a</a>\ny = d[k](../awq_ref/x.py)\n'


def test_a_second_title_goes_one_level_down(tmp_path, monkeypatch):
    assert page(tmp_path, monkeypatch, "pages/p.md", "# A\n\n# B\n\n## C\n") == "# A\n\n## B\n\n### C\n"


def test_code_and_tests_of_an_equation_lead_to_its_carriers(tmp_path, monkeypatch):
    written = page(tmp_path, monkeypatch, "docs/equations.md", EQUATION)
    assert written.count('<a href="carriers/awq-9.html"><code>') == 3


def test_every_equation_and_law_has_a_page_with_the_source_that_carries_it():
    pages = site_pages.carriers()
    assert ":pyobject: group_range" in pages[CARRIER]
    assert ":pyobject: test_worked_example" in pages[CARRIER]
    assert all("literalinclude" in text for text in pages.values())


@pytest.mark.parametrize(
    ("link", "broken"),
    [
        ("b.html#there", False),
        ("b.html#gone", True),
        ("c.html", True),
        ("#here", False),
        ("https://x.org/", False),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, link, broken):
    (tmp_path / "a.html").write_text(f'<p id="here"><a href="{link}">x</a></p>', encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="there">x</p>', encoding="utf-8")
    assert site_links.broken_links(tmp_path) == ([f"a.html: {link}"] if broken else [])


def test_the_figure_is_drawn_from_the_numbers_of_its_page():
    values = draw_divergence.numbers(draw_divergence.PAGE.read_text(encoding="utf-8"))
    for theme in draw_divergence.COLORS:
        path = ROOT / "docs" / "_site" / f"divergence-{theme}.svg"
        assert path.read_text(encoding="utf-8") == draw_divergence.draw(values, theme), (
            "tools/draw_divergence.py"
        )


def test_the_figure_reads_means_and_leaves_deviations():
    table = "| KL from FP16, nats | INT4 g128 |\n| :-- | --: |\n| awq | 0.0120 ± 0.0001 |"
    text = f"{draw_divergence.RESULT}\n\n{table}\n\nend"
    assert draw_divergence.numbers(text) == {("awq", "INT4 g128"): 0.012}
