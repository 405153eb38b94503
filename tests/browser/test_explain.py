"""The page of `awq-ref explain` as people use it: by pointer and by keyboard, every number the package's."""

import numpy as np
import pytest

from awq_ref.checkpoint import demo_model_path
from awq_ref.explain.page import explain_layer

LAYER = "model.layers.0.self_attn.q_proj"
PHONE, DESK = 390, 1280
STEPS = range(1, 10)
CHARTS = {
    "weight w": "weights",
    "mean |x|": "act_mean_abs",
    "x of the token": "x",
}  # column of a table -> entry
OF_TRIAL = {
    "scale s": "scales",
    "w s": "scaled",
    "level": "landed",
    "code q": "codes",
    "w restored": "restored",
    "error": "error",
    "|error| mean |x|": "felt",
}


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A page about the embedded model, and the package's numbers."""
    out = tmp_path_factory.mktemp("explained") / "layer.html"
    record = explain_layer(demo_model_path(), out, layer=LAYER, samples=4, seq_len=128)
    return out.as_uri(), record


@pytest.fixture
def open_layer(open_address, explained):
    return lambda **options: open_address(explained[0], **options)


def go(page, step):
    page.locator("#steps button").nth(step - 1).click()


def set_alpha(page, at):
    page.locator("#alpha").fill(str(at))


def table_of(page):
    """Return heading -> cells of the table below a step."""
    page.locator("#table").evaluate("details => { details.open = true; }")
    heads = page.locator("#table th").all_inner_texts()
    cells = page.locator("#table td").all_inner_texts()
    return {head: cells[i :: len(heads)] for i, head in enumerate(heads)}


def test_the_arrow_keys_go_through_all_steps(open_layer):
    page = open_layer()
    for step in STEPS:
        assert page.locator("#where").inner_text() == f"step {step} of 9"
        assert page.locator("section[data-name]:visible").get_attribute("id") == f"step-{step}"
        assert page.locator(f"#step-{step} h2").is_visible()
        assert page.locator(f"#step-{step} .picture > *").count() > 0
        page.keyboard.press("ArrowRight")
    assert page.locator("#where").inner_text() == "step 9 of 9"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#where").inner_text() == "step 8 of 9"


def test_the_buttons_go_through_all_steps(open_layer):
    page = open_layer()
    assert page.locator("#back").get_attribute("aria-disabled") == "true"
    for step in STEPS:
        assert page.locator("#where").inner_text() == f"step {step} of 9"
        if step < 9:
            page.locator("#next").click()
    assert page.locator("#next").get_attribute("aria-disabled") == "true"
    page.locator("#back").click()
    assert page.locator("#where").inner_text() == "step 8 of 9"


def test_the_arrow_keys_in_a_slider_are_the_sliders(open_layer, explained):
    page = open_layer()
    go(page, 3)
    page.locator("#alpha").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#where").inner_text() == "step 3 of 9"
    assert page.locator("#alpha").input_value() == str(explained[1]["chosen"] + 1)


def test_every_number_of_every_alpha_is_the_packages(open_layer, explained):
    page, record = open_layer(), explained[1]
    for step in STEPS:
        go(page, step)
        for at, trial in enumerate(record["trials"] if step > 2 else record["trials"][:1]):
            if step > 2:
                set_alpha(page, at)
                assert page.locator("#alpha-said").inner_text().startswith(f"{trial['alpha']:g}")
            table = table_of(page)
            first = record["about"]["first"]
            assert table["input"] == [str(first + k) for k in range(len(record["weights"]))]
            wanted = {head: record[name] for head, name in CHARTS.items()}
            wanted |= {head: trial[name] for head, name in OF_TRIAL.items()} | {"x / s": trial["dot"]["x"]}
            for head in table.keys() & wanted.keys():  # every digit: the page rounds nothing here
                assert np.float32(table[head]).tolist() == np.float32(wanted[head]).tolist(), (step, at, head)


def test_the_tables_together_hold_every_column(open_layer):
    page, heads = open_layer(), set()
    for step in STEPS:
        go(page, step)
        heads |= table_of(page).keys()
    assert heads >= CHARTS.keys() | OF_TRIAL.keys()


def test_the_codes_and_the_losses_are_the_packages(open_layer, explained):
    page, record = open_layer(), explained[1]
    for at, trial in enumerate(record["trials"]):
        go(page, 6)
        set_alpha(page, at)
        assert [int(text) for text in page.locator(".codes span").all_inner_texts()] == trial["codes"]
        go(page, 9)
        cells = page.locator(".compared td").all_inner_texts()
        numbers = {row: cells[3 * row + 2 : 3 * row + 4] for row in range(3)}  # the corner is the first cell
        nearest = record["trials"][0]
        for row, name in enumerate(("loss", "row_loss")):
            wanted = [nearest[name], trial[name]]
            assert [float(text) for text in numbers[row]] == pytest.approx(wanted, rel=1e-5)  # six digits
        wanted = [nearest["dot"]["output"], trial["dot"]["output"]]
        assert [float(text) for text in numbers[2]] == wanted


def test_the_bytes_and_the_sums_are_the_packages(open_layer, explained):
    page, record = open_layer(), explained[1]
    trial, start = record["trials"][record["chosen"]], record["block"]
    go(page, 8)
    cells = page.locator(".bytes td").all_inner_texts()
    rows = [cells[i : i + 5] for i in range(0, len(cells), 5)]
    assert [(int(a), int(b, 2), int(c), int(d), int(e)) for a, b, c, d, e in rows] == [
        (start + j, entry["byte"], entry["low"], entry["high"], start + j + 16)
        for j, entry in enumerate(trial["bytes"])
    ]
    dot, sums = trial["dot"], [float(text) for text in page.locator(".sums td").all_inner_texts()]
    wanted = [dot["codes_x"], dot["sum_x"], trial["delta"], trial["zero_point"], dot["group"]]
    assert sums == [*wanted, record["float_group"], dot["output"], record["float_output"]]


def test_every_word_of_every_layout_is_shown_bit_by_bit(open_layer, explained):
    page, record = open_layer(), explained[1]
    go(page, 7)
    able = [layout for layout in record["layouts"] if "words" in layout]
    assert page.locator("#layout option").all_inner_texts() == [layout["name"] for layout in able]
    for layout in able:
        page.locator("#layout").select_option(layout["name"])
        values = record["trials"][record["chosen"]]["words"][layout["name"]]
        heads = page.locator("[role=rowheader]").all_inner_texts()
        assert heads == [
            f"{layout['tensor']}[{word['row']}, {word['column']}] = {value['hex']}"
            for word, value in zip(layout["words"], values, strict=True)
        ]
        bits = "".join(page.locator("[role=gridcell]").all_inner_texts())
        assert bits == "".join(value["bits"] for value in values)


@pytest.mark.parametrize("how", ["hover", "focus"])
def test_a_bit_says_whose_it_is(open_layer, explained, how):
    page, record = open_layer(), explained[1]
    go(page, 7)
    (gemm,) = (layout for layout in record["layouts"] if layout["name"] == "gemm")
    low, _, first, o, i = gemm["words"][0]["runs"][5]
    cell = page.locator("[role=gridcell]").nth(31 - low)  # of the first word, high end first
    getattr(cell, how)()
    said = page.locator("#said").inner_text()
    assert f"bit {low} of qweight" in said
    assert f"bit {first} of the code of row {o}, input {i}" in said


def test_the_arrow_keys_go_from_bit_to_bit(open_layer):
    page = open_layer()
    go(page, 7)
    page.locator("[role=gridcell][tabindex='0']").focus()
    for key, words in (
        ("ArrowRight", "bit 30"),
        ("ArrowDown", "bit 30"),
        ("ArrowLeft", "bit 31"),
        ("ArrowUp", "bit 31"),
    ):
        page.keyboard.press(key)
        assert page.locator("#said").inner_text().startswith(words)
    assert page.locator("#where").inner_text() == "step 7 of 9"
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1


def test_a_weight_can_be_pointed_at(open_layer, explained):
    page, record = open_layer(), explained[1]
    box = page.locator("#step-1 svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 40)  # the last column
    last = len(record["weights"]) - 1
    assert page.locator("#weight").input_value() == str(last)
    assert (
        page.locator("#said")
        .inner_text()
        .startswith(f"Weight {last}, input {record['about']['first'] + last}")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_every_step_fits_its_window_and_axe_has_no_serious_finding(open_layer, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_layer(width=width, scheme=scheme)
    for step in STEPS:
        go(page, step)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        violations = axe.run(page, options={"preload": False}).response["violations"]
        serious = [found["id"] for found in violations if found["impact"] in ("serious", "critical")]
        assert not serious, step


def test_the_site_shows_an_example(open_page):
    page = open_page("docs/explore.html")
    frame = page.frame_locator("iframe.explorer")
    frame.locator("#next").click()
    assert frame.locator("#where").inner_text() == "step 2 of 9"
    href = frame.locator("dd a").first.get_attribute("href")
    assert href == "../docs/equations.html#awq-1"
