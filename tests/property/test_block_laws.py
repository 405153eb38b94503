"""Laws of GGUF's blocks: P-PACK for any bytes."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.errors import FormatError
from awq_ref.pack import pack_linear, unpack_linear
from awq_ref.pack.gguf import KINDS
from awq_ref.spec import QuantSpec
from awq_ref.vectors.oracle_blocks import unpack_blocks


def any_bytes(name, seed):
    """Rows of three blocks of random bytes, whose scales may be no numbers."""
    return np.random.default_rng(seed).integers(0, 256, (4, 3 * KINDS[name].block_bytes), dtype=np.uint8)


def floats_of(name, weight):
    head = KINDS[name].head
    blocks = weight.reshape(4, 3, -1)
    return np.ascontiguousarray(blocks[..., :head]).view("<f2")


@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_bytes_mean_what_the_oracle_says_and_come_back(name, seed):
    """P-PACK: every byte comes back, unless a scale is no number: that is refused."""
    weight = any_bytes(name, seed)
    spec = QuantSpec(KINDS[name].bits, 32, symmetric=not KINDS[name].offset)
    if not np.isfinite(floats_of(name, weight)).all():
        with pytest.raises(FormatError, match=f"{name}: .* must be finite"):
            unpack_linear({"weight": weight}, spec, name)
        return
    linear = unpack_linear({"weight": weight}, spec, name)
    wanted = unpack_blocks({"weight": ("uint8", weight.tolist())}, name, inputs=96, group_size=32)
    assert linear.int_weight.tolist() == wanted.codes
    assert linear.scales.tolist() == wanted.scales
    assert (None if linear.offset is None else linear.offset.tolist()) == wanted.offsets
    assert_same_bits(pack_linear(linear, name)["weight"], weight)
