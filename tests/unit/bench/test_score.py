"""What is made of measured times: rates, shares of the limit, scaling, on numbers by hand."""

import pytest

from awq_ref.bench.job import Job
from awq_ref.bench.score import score
from awq_ref.bench.tables import text_of
from awq_ref.model import ModelConfig

CONFIG = ModelConfig(128, 256, 2, 4, 2, 32, 64, 512)
LINEARS, HEAD, NORMS = 77184, 32768, 2560
LIMITS = {"read_bandwidth": 1e6, "sgemm_flops": 1e9, "sgemv_flops": 5e5, "interpreter": 0}


def found(layers):
    operations = [
        {"operation": name, "calls": 1, "seconds": s, "share": s, "bytes_per_s": rate}
        for name, s, rate in (("o_proj", 0.75, 1e5), ("Python and the rest", 0.25, None))
    ]
    watched = {"seconds": 1.0, "operations": operations, "layers": [0.8 / layers] * layers, "outside": 0.2}
    return {
        "load_seconds": 1.0, "prefill_seconds": [2.0, 4.0, 3.0], "step_seconds": [0.4, 0.5, 0.6], "watched": watched,
        "interpreter": 10, "resident": 1000, "peak": 2000, "head_bytes": HEAD,
        "weights": {"embeddings": HEAD, "linears": layers * LINEARS, "head": HEAD, "norms": NORMS},
    }  # fmt: skip


def row(layers):
    job = Job("", "some", "packed", "float", layers, 10, 4, 1)
    return score(job, CONFIG, LIMITS, found(layers), {"weights": {"linears": 7}, "peak": 9})


def test_rates_and_shares_by_hand():
    result = row(2)
    moved = result["bytes_per_token"]
    cache = 2 * 2 * 2 * 32 * 12 * 4  # ten tokens of the prompt and half of the four new ones
    assert moved == {
        "linears": 2 * LINEARS, "head": HEAD, "norms": NORMS, "embedding": 512, "cache": cache,
        "total": 2 * LINEARS + HEAD + NORMS + 512 + cache,
    }  # fmt: skip
    decode = result["decode"]
    assert decode["tokens_per_s"] == 2.0  # half a second, the median
    assert decode["bytes_per_s"] == moved["total"] / 0.5
    assert decode["limit"] == "memory"
    assert decode["limit_tokens_per_s"] == pytest.approx(1e6 / moved["total"])
    assert decode["share_of_limit"] == pytest.approx(moved["total"] / 1e6 / 0.5)
    assert decode["quartiles_tokens_per_s"] == pytest.approx([1 / 0.6, 1 / 0.4])
    assert result["prefill"]["tokens_per_s"] == pytest.approx(10 / 3)
    assert not result["scaled"]


def test_half_the_layers_are_scaled_to_all_and_marked():
    """Layers are 80 % of a step: twice as many make it 1.8 times as long. Shares and bytes are not scaled."""
    result = row(1)
    assert result["scaled"]
    assert result["decode"]["tokens_per_s"] == pytest.approx(2.0 / 1.8)
    assert result["decode"]["seconds"] == 0.5
    assert result["bytes_per_token"]["linears"] == LINEARS
    text = text_of(whole([result]))
    assert "1.1*" in text
    assert "packed 1 of 2" in text


def whole(runs):
    passes = {"mask": 1e-11, "cast": 1e-10, "gemv": 5e-11, "bandwidth": {"1": 1e10}}
    timed = {"threads": 1, "packed_ns": 0.3, "dense_ns": 0.4}
    forecast = {"threads": 4, "bus": "stays", "packed_ns": 0.1, "dense_ns": 0.2, "ratio": 2.0}
    return {
        "machine": {"threads": 1},
        "limits": LIMITS | {"passes": passes, "whole": [timed], "linear": "8 x 8"},
        "setup": {"model": "some", "bits": 4, "group_size": 128, "prompt": 10, "new": 4},
        "runs": runs,
        "passes": {"rows": [forecast], "crossing": {"stays": 3, "grows": None}},
    }


def test_the_text_has_every_part():
    text = text_of(whole([row(2)]))
    for words in (
        "reads 0.0 GB/s",
        "| packed",
        "o_proj",
        "Python and the rest",
        "8 x 8",
        "with 3 threads",
        "never",
    ):
        assert words in text
    assert "*" not in text


def test_the_figure_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from awq_ref.bench.plot import draw_bench

    draw_bench(whole([row(2)]), tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
