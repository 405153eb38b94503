"""The site as people see it: from the disk, on a phone and on a desk, light and dark, by ear."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers.source import ROOT

CHAPTER = "tutorials/" + min(path.stem for path in (ROOT / "tutorials").glob("[0-9]*.py")) + ".html"
API = "api/awq_ref.quantize.html"
PAGES = (
    "index.html",
    CHAPTER,
    API,
    "docs/equations.html",
    "docs/performance.html",
    "docs/comparison.html",
    "docs/explore.html",
)
PHONE, DESK = 390, 1280


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_no_wider_than_its_window(open_page, name, width):
    page = open_page(name, width=width)
    # what is wide (a table, an equation) scrolls by itself
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_first_page_says_in_one_screen_what_it_is(open_page, width):
    page = open_page("index.html", width=width)
    box = page.locator(".lead").bounding_box()
    assert box["y"] + box["height"] < 900
    assert page.locator("img.figure:visible").count() == 1


@pytest.mark.parametrize(("scheme", "shown"), [("light", "light"), ("dark", "dark")])
def test_the_figure_of_the_first_page_is_the_one_for_the_scheme(open_page, scheme, shown):
    page = open_page("index.html", scheme=scheme)
    assert page.locator("img.figure:visible").get_attribute("src").endswith(f"divergence-{shown}.svg")


@pytest.mark.parametrize(
    ("words", "found"), [("zero point", "docs/equations.html"), ("feedback_factor", "api/awq_ref.quantize")]
)
def test_search_works_from_the_disk(open_page, words, found):
    page = open_page(f"search.html?q={words.replace(' ', '+')}")
    page.wait_for_selector(
        f"#search-results ul.search a[href*='{found}']"
    )  # times out, and fails, where there is none


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", CHAPTER, API, "docs/explore.html"])
def test_axe_has_no_serious_finding(open_page, name, scheme):
    violations = Axe().run(open_page(name, scheme=scheme), options={"preload": False}).response["violations"]
    serious = {
        found["id"]: [node["html"][:120] for node in found["nodes"]][:3]
        for found in violations
        if found["impact"] in ("serious", "critical")
    }
    assert not serious
