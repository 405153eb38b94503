"""The runners on which the objective "module" judges: what a block's two modules make of its inputs."""

import numpy as np
import pytest
from helpers.assertions import assert_close, frozen
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import tiny_decoder

from awq_ref.model import FAMILIES, add_branch, block_forward, make_context
from awq_ref.pipeline.observation import module_runners


def made(family, rng):
    decoder = tiny_decoder(rng, **FAMILY_CHANGES[family])
    x = frozen(rng.normal(0, 1, (3, 6, 8)).astype(np.float32))
    context = make_context(decoder.config, 6)
    return decoder, x, context, module_runners(decoder.blocks[0], decoder.config, context, x)


def whole(runner, **weights):
    return np.concatenate(list(runner(weights)))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modules_outputs_added_to_the_stream_are_the_block(rng, family):
    decoder, x, context, runners = made(family, rng)
    block, config = decoder.blocks[0], decoder.config
    y = add_branch(x, whole(runners["self_attn"]), block, config, "after_attention")
    y = add_branch(y, whole(runners["mlp"]), block, config, "after_mlp")
    assert_close(y, block_forward(x, block, config, context), rtol=0.0, atol=1e-6)
    assert ("both" in runners) == config.family.parallel


def test_both_modules_of_a_parallel_block_see_the_changed_weights(rng):
    decoder, x, context, runners = made("cohere", rng)
    change = decoder.blocks[0].linears["mlp.gate_proj"].weight * np.float32(2.0)
    together = list(runners["both"]({"mlp.gate_proj": change}))
    attention, mlp = list(runners["self_attn"]({})), list(runners["mlp"]({"mlp.gate_proj": change}))
    assert_close(np.concatenate(together), np.concatenate(attention) + np.concatenate(mlp), rtol=0.0)
    assert np.abs(np.concatenate(together) - whole(runners["both"])).max() > 0.01
