from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen
from helpers.float_linear import FloatLinear
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import make_decoder, random_tensors, tiny_config

from awq_ref.errors import DtypeError, ShapeError
from awq_ref.model import Entrance, enter

ROWS = frozen(np.float32([[[1, 2], [3, 4]]]))
AT = np.arange(2, dtype=np.int64)


def made(family, rng, **changes):
    config = tiny_config(**(FAMILY_CHANGES[family] | changes))
    return make_decoder(config, random_tensors(config, rng))


def test_most_families_have_nothing_there():
    assert enter(ROWS, AT, Entrance(), tiny_config()) is ROWS
    scaled = enter(ROWS, AT, Entrance(), tiny_config(model_type="granite", embedding_multiplier=2.5))
    assert_same_bits(scaled, [[[2.5, 5], [7.5, 10]]], dtype=np.float32)


def test_learned_positions_by_hand():
    table = frozen(np.float32([[10, 0], [20, 0], [30, 0], [40, 0]]).astype(np.float16))
    gpt2, opt = (tiny_config(**FAMILY_CHANGES[family]) for family in ("gpt2", "opt"))
    assert_same_bits(enter(ROWS, AT, Entrance(table), gpt2), [[[11, 2], [23, 4]]], dtype=np.float32)
    assert_same_bits(
        enter(ROWS, AT, Entrance(table), opt), [[[31, 2], [43, 4]]], dtype=np.float32
    )  # from row 2 on


def test_a_projection_stands_before_the_positions():
    entrance = Entrance(
        np.float32([[0, 0], [0, 0], [100, 0], [200, 0]]), FloatLinear(np.float32([[1, 1], [0, 2]]))
    )
    opt = tiny_config(**FAMILY_CHANGES["opt_post_norm"])
    assert_same_bits(enter(ROWS, AT, entrance, opt), [[[103, 4], [207, 8]]], dtype=np.float32)


def test_a_norm_of_the_embeddings_by_hand():
    # Each row's distances from its mean are -1/2 and 1/2; with eps they are divided by sqrt(1/4 + 3/4).
    bloom = tiny_config(**FAMILY_CHANGES["bloom"], layer_norm_epsilon=0.75)
    entrance = Entrance(norm=np.float32([2, 4]), norm_bias=np.float32([0, 1]))
    assert_same_bits(enter(ROWS, AT, entrance, bloom), [[[-1, 3], [-1, 3]]], dtype=np.float32)


@pytest.mark.parametrize(
    ("family", "part", "message"),
    [
        ("gpt2", "positions", "positions must be given"),
        ("bloom", "norm", "norm must be given"),
        ("bloom", "norm_bias", "norm_bias must be given"),
        ("opt_post_norm", "project", "project must be given"),
    ],
)
def test_a_part_that_is_missing_or_too_much(rng, family, part, message):
    decoder = made(family, rng)
    with pytest.raises(ShapeError, match=message):
        replace(decoder, entrance=replace(decoder.entrance, **{part: None}))
    with pytest.raises(ShapeError, match=f"{part} must not be given"):
        replace(made("llama", rng), entrance=Entrance(**{part: getattr(decoder.entrance, part)}))


def test_parts_that_do_not_fit(rng):
    opt, bloom = made("opt_post_norm", rng), made("bloom", rng)
    with pytest.raises(ShapeError, match=r"positions must have shape \(26, 8\)"):
        replace(opt, entrance=replace(opt.entrance, positions=opt.entrance.positions[2:]))
    turned = FloatLinear(np.ascontiguousarray(opt.entrance.project.weight.T))
    with pytest.raises(ShapeError, match="project must map 6 features to 8; got 8 to 6"):
        replace(opt, entrance=replace(opt.entrance, project=turned))
    with pytest.raises(ShapeError, match="project_out must map 8 features to 6; got 6 to 8"):
        replace(opt, project_out=opt.entrance.project)
    with pytest.raises(ShapeError, match="project_out must be given"):
        replace(opt, project_out=None)
    with pytest.raises(ShapeError, match=r"norm must have shape \(8\)"):
        replace(bloom, entrance=replace(bloom.entrance, norm=bloom.entrance.norm[:3]))
    with pytest.raises(DtypeError, match="norm_bias must be float32"):
        replace(bloom, entrance=replace(bloom.entrance, norm_bias=np.zeros(8, dtype=np.float64)))


def test_a_final_norm_belongs_to_families_that_have_one(rng):
    opt = made("opt_post_norm", rng)
    assert opt.norm is None
    with pytest.raises(ShapeError, match="norm must not be given"):
        replace(opt, norm=np.ones(8, dtype=np.float32))
    with pytest.raises(ShapeError, match="norm must be given"):
        replace(made("llama", rng), norm=None)


def test_positions_follow_the_padding(rng):
    decoder = made("gpt2", rng)
    ids = rng.integers(0, 17, (1, 5), dtype=np.int64)
    padded = np.concatenate([np.zeros((1, 2), dtype=np.int64), ids], axis=1)
    mask = np.array([[0, 0, 1, 1, 1, 1, 1]], dtype=np.int64)
    alone = decoder.logits(ids)
    assert (
        np.abs(decoder.logits(padded, attention_mask=mask)[:, 2:] - alone).max() < 1e-6 * np.abs(alone).max()
    )
    assert np.abs(decoder.logits(padded)[:, 2:] - alone).max() > 1e-3 * np.abs(alone).max()


def test_bytes_in_memory_count_everything(rng):
    opt = made("opt_post_norm", rng).resident_bytes()
    assert opt["embeddings"] == 4 * (17 * 6 + 26 * 8 + 2 * 8 * 6)
    assert opt["norms"] == 4 * 2 * 4 * 8  # two in each block with their biases, no final one
    assert made("bloom", rng).resident_bytes()["norms"] == 4 * 8 * (2 * 4 + 4)
