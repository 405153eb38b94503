"""Outliers grown without changing the function."""

import numpy as np
import pytest
from helpers.tiny_checkpoint import tiny_llama_config, write_tiny_llama

from awq_ref.model import ModelConfig
from awq_ref.pipeline import calibrate, load_model
from awq_ref.pipeline.outliers import grow_outliers, outlier_factors


def test_norms_grow_where_their_readers_shrink():
    factors = outlier_factors(ModelConfig.from_json(tiny_llama_config()), 8.0)
    norm = factors["model.layers.0.input_layernorm.weight"]
    assert sorted(norm.tolist()) == [1.0] * 63 + [8.0]  # 2 % of 64 channels
    for name in ("q_proj", "k_proj", "v_proj"):
        np.testing.assert_array_equal(factors[f"model.layers.0.self_attn.{name}.weight"], 1.0 / norm)
    assert "model.layers.0.mlp.down_proj.weight" not in factors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_function_stays_and_activations_grow(tmp_path, dtype, rng):
    write_tiny_llama(tmp_path / "tiny", torch_dtype=dtype)
    grow_outliers(tmp_path / "tiny", tmp_path / "grown", factor=16.0)
    ids = rng.integers(0, 256, (2, 16))
    before, after = (load_model(tmp_path / name).logits(ids) for name in ("tiny", "grown"))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)  # sums in another order of magnitude
    plain, grown = (
        calibrate(tmp_path / name, calibration=ids).sites["0.self_attn.qkv"].act_mean_abs
        for name in ("tiny", "grown")
    )
    np.testing.assert_allclose(np.sort(grown / plain)[[0, -2, -1]], [1.0, 1.0, 16.0], rtol=1e-4)
