"""The page as a file: one, whole, and nothing that comes from elsewhere in it can become markup."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.command_line import assert_nothing_written, assert_refused, run
from helpers.tiny_checkpoint import write_tiny_llama

from awq_ref.errors import OutputError
from awq_ref.explain.page import explain_layer, layer_page
from awq_ref.pipeline import quantize_model

NAME = "model.layers.0.mlp.down_proj"
OPTIONS = {"layer": NAME, "group_size": 16, "calibration": np.arange(96).reshape(2, 48), "row": 5}


class Elements(HTMLParser):
    """Collects the elements, their attributes, and what stands in the element of the numbers."""

    def __init__(self):
        super().__init__()
        self.found, self.numbers, self._inside = [], "", False

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = dict(attributes).get("id") == "numbers"

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        self.numbers += data if self._inside else ""


def elements_of(text):
    parser = Elements()
    parser.feed(text)
    return parser


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page, and the record that it shows."""
    folder = tmp_path_factory.mktemp("page")
    write_tiny_llama(folder / "tiny")
    record = explain_layer(folder / "tiny", folder / "layer.html", **OPTIONS)
    assert sorted(path.name for path in folder.iterdir()) == ["layer.html", "tiny"]
    return (folder / "layer.html").read_text(encoding="utf-8"), record


def test_the_numbers_in_the_page_are_the_record(written):
    text, record = written
    assert json.loads(elements_of(text).numbers) == json.loads(json.dumps(record))


def test_the_page_loads_nothing(written):
    found = elements_of(written[0]).found
    loading = [
        (tag, attributes) for tag, attributes in found if {"src", "srcset", "data"} & attributes.keys()
    ]
    assert not loading
    links = [attributes["href"] for _, attributes in found if "href" in attributes]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in written[0] and "url(" not in written[0] and "@@" not in written[0]
    (policy,) = (a["content"] for tag, a in found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_equation_that_a_step_names_stands_in_the_page(written):
    text, _ = written
    found = elements_of(text).found
    ids = {attributes["id"] for _, attributes in found if "id" in attributes}
    named = {
        attributes["href"][1:] for tag, attributes in found if attributes.get("href", "").startswith("#")
    }
    assert {"awq-1", "awq-6", "awq-7", "awq-10"} <= named <= ids
    assert "clip(round(w / delta) + z, 0, 2**bits - 1)" in text  # [AWQ-3], from the function's docstring


def test_names_of_models_and_layers_are_text(written):
    _, record = written
    evil = "</script><script>alert(1)</script>\u2028<!--"
    spoiled = record | {"about": record["about"] | {"model": evil, "layer": evil, "piece": evil}}
    text = layer_page(spoiled)
    found = elements_of(text)
    assert [tag for tag, _ in found.found].count("script") == 2
    assert json.loads(found.numbers)["about"]["model"] == evil
    assert "\u2028" not in re.search(r'id="numbers">(.*?)</script>', text, re.DOTALL)[1]


def test_links_to_the_documentation_where_it_is_known(written):
    text = layer_page(written[1], docs="../docs/")
    links = [attributes.get("href") for tag, attributes in elements_of(text).found if tag == "a"]
    assert "../docs/equations.html#awq-6" in links


def test_a_page_that_exists_is_left_alone(tmp_path):
    out = tmp_path / "layer.html"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="exists"):
        explain_layer(tmp_path / "no-model-is-looked-for", out, **OPTIONS)
    assert out.read_text(encoding="utf-8") == "mine"


def test_a_page_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path / "tiny")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("awq_ref.explain.page.write_text", write_half)
    with pytest.raises(OutputError):
        explain_layer(tmp_path / "tiny", tmp_path / "out" / "layer.html", **OPTIONS)
    assert not list((tmp_path / "out").iterdir())


def write_half(path, text):
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    raise OutputError(f"{path}: the disk is full.")


def test_the_command_writes_a_page_and_refuses_what_cannot_be(tmp_path, capsys):
    model, out = tmp_path / "tiny", tmp_path / "layer.html"
    write_tiny_llama(model)
    (tmp_path / "text.txt").write_text(
        "def add(left, right):\n    return left + right\n" * 20, encoding="utf-8"
    )
    options = ("--group-size", 16, "--calibration", tmp_path / "text.txt", "--samples", 2, "--seq-len", 32)

    def explain(*arguments, of=model):
        return run(capsys, "explain", of, "--out", out, *options, *arguments)

    assert_refused(explain("--layer", "model.layers.0.mlp.down"), "Nearest", NAME)
    assert_refused(explain("--layer", NAME, "--row", 64), "[0, 63]", "64")
    assert_refused(explain("--layer", NAME, "--row", -1), "[0, 63]")
    quantize_model(model, tmp_path / "int4", recipe="rtn", group_size=16)
    assert_refused(explain("--layer", NAME, of=tmp_path / "int4"), "must be a float checkpoint")
    assert_nothing_written(out)
    assert explain("--layer", NAME, "--row", 3)[0] == 0
    assert_refused(explain("--layer", NAME), "exists already")
    assert_refused(
        run(capsys, "explain", model, "--layer", NAME, "--out", tmp_path / "no" / "x.html"), "folder"
    )
