"""Two streams through one block: what each site sees, and what they leave behind."""

import numpy as np
import pytest
from helpers.assertions import assert_close
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import random_tensors, tiny_config

from awq_ref.calibration import Observations, Observed
from awq_ref.matmul import DenseLinear
from awq_ref.model import (
    Block,
    block_forward,
    block_linear_shapes,
    block_norm_shapes,
    block_prefix,
    make_context,
    norm_tensor,
    stored_place,
)
from awq_ref.pipeline.observation import ObservedBlock
from awq_ref.pipeline.streams import TwoStreams
from awq_ref.quantize import dequantize_linear, quantize_linear
from awq_ref.search import LinearFold, plan_for
from awq_ref.spec import QuantSpec

SPEC = QuantSpec(bits=2, group_size=4)
FAMILIES = ("llama", "cohere", "gemma2", "granite", "starcoder2", "phi3", "olmo2", "qwen2")


def make_block(config, tensors):
    prefix = block_prefix(config, 0)

    def linear(name):
        place, rows = stored_place(config, prefix + name)
        bias = tensors.get(f"{place}.bias")
        return DenseLinear(tensors[f"{place}.weight"][rows], None if bias is None else bias[rows])

    norms = {name: tensors[norm_tensor(prefix + name)] for name in block_norm_shapes(config)}
    return Block(norms, {name: linear(name) for name in block_linear_shapes(config)})


@pytest.fixture(params=FAMILIES)
def walk(request, rng):
    """A float block, one whose linears are all rounded, and both streams, which have drifted apart already."""
    config = tiny_config(**FAMILY_CHANGES[request.param])
    block = make_block(config, random_tensors(config, rng, gain=1.0))
    integers = {n: quantize_linear(linear.weight, spec=SPEC) for n, linear in block.linears.items()}
    rounded = Block(
        block.norms,
        {n: DenseLinear(dequantize_linear(q), block.linears[n].bias) for n, q in integers.items()},
    )
    x = rng.normal(0, 1, (3, 6, 8)).astype(np.float32)
    y = x + rng.normal(0, 0.2, x.shape).astype(np.float32)
    return config, block, rounded, integers, x, y, make_context(config, 6)


def inputs(block, config, context, x, name):
    """What one linear is given in a run of the whole block."""
    seen = []

    class Listener:
        def add(self, values, turn):
            seen.append(values.copy())

    linears = {**block.linears, name: Observed(block.linears[name], (Listener(),))}
    block_forward(x, Block(block.norms, linears), config, context)
    return seen[0].astype(np.float64)


def after_attention(block, config, context, x):
    """The stream between the two modules: that after a block whose MLP adds nothing."""
    name = config.family.mlp[2]
    nothing = DenseLinear(np.zeros_like(block.linears[name].weight))
    return block_forward(x, Block(block.norms, {**block.linears, name: nothing}), config, context)


def test_every_site_sees_both_streams_with_all_that_was_rounded_before(walk):
    config, block, rounded, integers, x, y, context = walk
    found = ObservedBlock(0, block, Observations({}, {}), {}, (context, x.copy(), y.copy()))
    streams = TwoStreams(found, block.norms, config=config, recovers=0.5)
    for group in plan_for(config.model_type):
        name = group.consumers[0]
        sums = streams.drift(group.consumers, None)
        ours, theirs = inputs(block, config, context, x, name), inputs(rounded, config, context, y, name)
        ours, theirs = ours.reshape(-1, ours.shape[-1]), theirs.reshape(-1, theirs.shape[-1])
        # Inputs are equal up to the order of a few sums, 1e-5 of them; so are sums of 18 of their products.
        largest = max(np.abs(ours).max(), np.abs(theirs).max()) ** 2
        assert_close(sums.gram_sum, theirs.T @ theirs, rtol=0.0, atol=18 * 2e-5 * largest)
        assert_close(sums.drift_sum, (ours - theirs).T @ theirs, rtol=0.0, atol=18 * 4e-5 * largest)
        assert sums.count == 18
        streams.put({n: integers[n] for n in group.consumers}, dict.fromkeys(block.linears, LinearFold()))
    streams.finish()
    assert_close(found.streams[2], block_forward(y, rounded, config, context), rtol=0.0, atol=1e-4)


def test_the_last_layer_of_a_module_is_asked_for_half_of_what_the_stream_lacks(walk):
    config, block, rounded, integers, x, y, context = walk
    lacking = {
        "self_attn.o_proj": ("after_attention", x - y),
        config.family.mlp[2]: (
            "after_mlp",
            after_attention(block, config, context, x) - after_attention(rounded, config, context, y),
        ),
    }
    found = ObservedBlock(0, block, Observations({}, {}), {}, (context, x.copy(), y.copy()))
    streams = TwoStreams(found, block.norms, config=config, recovers=0.5)
    for group in plan_for(config.model_type):
        name = group.consumers[0]
        stream_sum = streams.drift(group.consumers, None).stream_sum
        streams.put({n: integers[n] for n in group.consumers}, dict.fromkeys(block.linears, LinearFold()))
        place, error = lacking.get(name, ("", None))
        if error is None or config.family.norm_at(
            place
        ):  # a norm after the module: no sum of it and the stream
            assert stream_sum is None
            continue
        theirs = inputs(rounded, config, context, y, name).reshape(18, -1)
        wanted = 0.5 / config.residual_multiplier * error.reshape(18, -1).astype(np.float64).T @ theirs
        assert_close(stream_sum, wanted, rtol=0.0, atol=18 * 1e-4 * np.abs(theirs).max())


def test_scales_divide_the_float_models_input(walk):
    config, block, _, _, x, _, context = walk
    name = plan_for(config.model_type)[0].consumers[0]
    columns = np.linspace(0.5, 2.0, 8, dtype=np.float32)
    found = ObservedBlock(0, block, Observations({}, {}), {}, (context, x.copy(), x.copy()))
    sums = TwoStreams(found, block.norms, config=config, recovers=0.5).drift([name], columns)
    seen = inputs(block, config, context, x, name).reshape(18, -1)
    wanted = (seen / columns - seen).T @ seen
    assert_close(sums.drift_sum, wanted, rtol=0.0, atol=18 * 1e-5 * np.abs(seen).max() ** 2)
