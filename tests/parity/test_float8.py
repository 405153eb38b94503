"""float8 numbers as torch has them."""

import numpy as np
import torch

from awq_ref.checkpoint import float8_e4m3_to_float32


def test_every_byte_is_torchs_number():
    raw = np.arange(256, dtype=np.uint8)
    wanted = torch.from_numpy(raw).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(float8_e4m3_to_float32(raw), wanted)  # NaN at the same places, too
    assert np.signbit(float8_e4m3_to_float32(raw))[0x80]
