"""The model card."""

import pytest

from awq_ref.checkpoint import model_card, source_license
from awq_ref.spec import QuantSpec


def test_a_card_in_full():
    card = model_card(
        "tiny-int4",
        base_model='some"one/tiny',
        spec=QuantSpec(),
        layout="gemm",
        recipe="awq",
        calibration="128 windows of 512 tokens, ab12",
        version="0.1",
        license_name="mit",
        results="| a |\n|---|\n| 1 |\n",
    )
    assert card == (
        '---\nbase_model: "some\\"one/tiny"\nbase_model_relation: "quantized"\nlicense: "mit"\n'
        'pipeline_tag: "text-generation"\ntags:\n- "awq"\n- "4-bit"\n- "awq_ref"\n---\n\n# tiny-int4\n\n'
        'Weights of some"one/tiny, quantized by awq_ref 0.1.\n\n| | |\n|---|---|\n'
        "| bits | 4, asymmetric, groups of 128 |\n| recipe | awq, range rule zero |\n| layout | gemm |\n"
        "| calibration | 128 windows of 512 tokens, ab12 |\n\n"
        "## Results\n\n| a |\n|---|\n| 1 |\n\n## Use\n\n    awq-ref generate FOLDER --prompt ...\n"
    )


def test_what_is_unknown_is_left_out():
    spec = QuantSpec(bits=3, group_size=-1, symmetric=True)
    card = model_card(
        "x", base_model="y", spec=spec, layout="pack-quantized", recipe="rtn", calibration="-", version="1"
    )
    assert "license:" not in card
    assert "## Results" not in card
    assert "| bits | 3, symmetric, one group per row |" in card


@pytest.mark.parametrize(
    "readme, expected",
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# x\n", "apache-2.0"),
        ('---\r\nlicense: "llama3.2"\r\n---\r\n', "llama3.2"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("", None),
    ],
)
def test_the_licence_of_the_source(tmp_path, readme, expected):
    (tmp_path / "README.md").write_bytes(readme.encode())
    assert source_license(tmp_path) == expected


def test_a_source_without_a_readme(tmp_path):
    assert source_license(tmp_path) is None
