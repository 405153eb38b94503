"""The experiment `memory`: bytes worked out by hand, and laws between its rows."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.command_line import assert_refused, run
from helpers.tiny_checkpoint import tiny_llama_config, write_tiny_family
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import tiny_decoder

from awq_ref.errors import FormatError, RangeError, ShapeError, UnsupportedError
from awq_ref.model import ModelConfig, new_cache
from awq_ref.paper.experiment import select
from awq_ref.paper.memory import FORMS, PARTS, memory_row
from awq_ref.paper.registry import experiment_named, run_experiment
from awq_ref.paper.shapes import SHAPES
from awq_ref.spec import QuantSpec

# One layer: q, o 128 x 128, k, v 64 x 128, gate, up 256 x 128, down 128 x 256: 147456 weights in 1152 groups of 128.
# Embedding and head 2 x 64 x 128, three norms of 128: 16768 numbers.
ONE_LAYER = ModelConfig(128, 256, 1, 4, 2, 32, 64, 512)


@pytest.mark.parametrize(
    ("form", "codes", "scales", "zero_points", "itemsize"),
    [
        ("packed", 147456 // 2, 4 * 1152, (1 + 4) * 1152, 4),
        ("codes", 147456, 4 * 1152, (1 + 4) * 1152, 4),
        ("dense", 4 * 147456, 0, 0, 4),
        ("fp16 engine", 2 * 147456, 0, 0, 2),
    ],
)
def test_one_layer_by_hand(form, codes, scales, zero_points, itemsize):
    row = memory_row("one", ONE_LAYER, form, spec=QuantSpec(), context=100, batch=3)
    assert row["parameters"] == 147456 + 16768
    assert [row[part] for part in PARTS] == [
        codes,
        scales,
        zero_points,
        itemsize * 16768,
        itemsize * 2 * 3 * 100 * 64,  # keys and values, 2 heads of 32
    ]
    assert row["total"] == sum(row[part] for part in PARTS)


def test_what_does_not_fill_bytes_counts_as_codes():
    # The high bits of 3-bit codes go eight to a byte: a group of 4 does not fill one.
    packed, codes = (
        memory_row("one", ONE_LAYER, form, spec=QuantSpec(bits=3, group_size=4), context=1, batch=1)
        for form in ("packed", "codes")
    )
    assert packed["total"] == codes["total"]


@pytest.mark.parametrize("family", FAMILY_CHANGES)
@pytest.mark.parametrize("window", [40, 700])
def test_the_cache_that_a_family_really_keeps(rng, family, window):
    """Against the arrays of a cache that has read a text of 900 tokens as a prompt and three more."""
    given = FAMILY_CHANGES[family]
    changes = given | ({"sliding_window": window} if given.get("sliding_window") else {})
    decoder = tiny_decoder(rng, **changes, max_position_embeddings=903)
    cache = new_cache(decoder.config, batch=2, capacity=903)
    _, cache = decoder.forward(np.zeros((2, 900), dtype=np.int64), cache, last_only=True)
    for _ in range(3):
        _, cache = decoder.forward(np.zeros((2, 1), dtype=np.int64), cache, last_only=True)
    row = memory_row("tiny", decoder.config, "dense", spec=QuantSpec(group_size=4), context=903, batch=2)
    assert cache.resident_bytes == row["kv_cache"] + 903 * (2 + 8)  # flags and a number of 8 bytes per column
    # 2 texts, keys and values, 4 bytes: in most families 2 heads of 4 numbers, 128 bytes in a column of a layer
    column = 2 * 2 * 4 * decoder.config.num_key_value_heads * decoder.config.head_dim
    columns = [min(903, each - 1 + 512) if each else 903 for each in (decoder.config.windows or (0, 0))]
    assert row["kv_cache"] == column * sum(columns)


def test_an_engine_keeps_the_window_alone():
    config = replace(ONE_LAYER, model_type="mistral", windows=(40,))
    row = memory_row("one", config, "fp16 engine", spec=QuantSpec(), context=100, batch=3)
    assert row["kv_cache"] == 2 * 2 * 3 * 40 * 64


# From each model's card: billions of parameters, as published to two or three digits.
@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen2.5-0.5b", 0.49),
        ("tinyllama-1.1b", 1.10),
        ("llama-2-7b", 6.74),
        ("llama-3-8b", 8.03),
        ("llama-2-70b", 68.98),
    ],
)
def test_the_shapes_have_the_published_number_of_parameters(name, billions):
    (row,) = select(run_experiment("memory", shapes=(name,), contexts=(1,), batches=(1,)).rows, form="dense")
    assert row["parameters"] / 1e9 == pytest.approx(billions, abs=0.006)


def test_rows_stand_in_the_order_that_bytes_demand():
    rows = run_experiment("memory", contexts=(512, 4096), batches=(1, 4)).rows
    assert len(rows) == len(SHAPES) * len(FORMS) * 4
    for name in SHAPES:
        for context in (512, 4096):
            found = {row["form"]: row for row in select(rows, shape=name, context=context, batch=1)}
            assert found["packed"]["total"] < found["codes"]["total"] < found["dense"]["total"]
            for form, row in found.items():
                (four,) = select(rows, shape=name, form=form, context=context, batch=4)
                assert four["kv_cache"] == 4 * row["kv_cache"]
                assert four["total"] - row["total"] == 3 * row["kv_cache"]


def test_a_row_per_grid_and_one_without():
    rows = run_experiment(
        "memory", shapes=("llama-2-7b",), bits=(3, 4), group_size=(64, 128), contexts=(1,)
    ).rows
    counts = {form: len(select(rows, form=form, batch=1)) for form in FORMS}
    assert counts == {"packed": 4, "codes": 4, "dense": 1, "fp16 engine": 1}


def test_a_config_alone_is_enough(tmp_path):
    (tmp_path / "tiny").mkdir()
    path = tmp_path / "tiny" / "config.json"
    path.write_text(json.dumps(tiny_llama_config()), encoding="utf-8")
    changes = {"group_size": (32,), "contexts": (8,), "batches": (1,)}
    from_file, from_folder = (
        run_experiment("memory", model=model, **changes) for model in (path, path.parent)
    )
    assert from_file.rows == from_folder.rows
    assert {row["shape"] for row in from_file.rows} == {"tiny"}


def test_bad_input(tmp_path, capsys):
    with pytest.raises(RangeError, match="llama-2-7b"):
        run_experiment("memory", shapes=("llama-2-8b",))
    with pytest.raises(FormatError, match="cannot be read"):
        run_experiment("memory", model=tmp_path)
    with pytest.raises(ShapeError, match=r"qwen2\.5-0\.5b: .*mlp\.down_proj \(4864\)"):
        run_experiment("memory", group_size=(512,))
    with pytest.raises(RangeError, match="contexts"):
        run_experiment("memory", contexts=(0,))
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["XLNetLMHeadModel"]}), encoding="utf-8"
    )
    with pytest.raises(UnsupportedError, match="XLNetLMHeadModel"):
        run_experiment("memory", model=tmp_path)
    assert_refused(run(capsys, "paper", "memory", "--seeds", 2), "takes --model")


def test_the_table_names_every_model_and_form():
    experiment = experiment_named("memory")
    weights, _, caches, _, totals = experiment.table(run_experiment("memory").rows).split("\n\n")
    assert len(weights.splitlines()) == len(totals.splitlines()) == 2 + len(SHAPES) * len(FORMS)
    assert len(caches.splitlines()) == 2 + 2 * len(SHAPES)
    assert "| llama-2-7b     | packed INT4 g128 |" in totals


def test_a_model_with_experts_is_refused(tmp_path):
    write_tiny_family(tmp_path / "model", "mixtral")
    with pytest.raises(UnsupportedError, match="without experts; got MixtralForCausalLM with 4"):
        run_experiment("memory", model=tmp_path / "model")
    with pytest.raises(UnsupportedError, match="without experts; got MixtralForCausalLM with 4"):
        run_experiment("alpha", model=tmp_path / "model")
