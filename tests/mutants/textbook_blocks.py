"""The second backend's GGUF blocks, in steps small enough to be got wrong one at a time."""

import numpy as np

BITS = {"q4_0": 4, "q4_1": 4, "q8_0": 8}
F16 = np.float16


class Blocks:
    """Takes the requests of GGUF's layouts, and hands on the others."""

    def byte_order(self):
        return "<f2"

    def half(self, values, repeats):
        return np.repeat(values, repeats, axis=1).astype(self.byte_order())[..., None].view(np.uint8)

    def to_half(self, stored):
        return np.ascontiguousarray(stored).view(self.byte_order())[..., 0].astype(F16)

    def nibbles(self, codes):
        return codes[..., :16] | codes[..., 16:] << np.uint8(4)

    def from_nibbles(self, stored):
        return np.concatenate([stored & np.uint8(15), stored >> np.uint8(4)], axis=-1)

    def to_int8(self, codes):
        return (codes.astype(np.int64) - 128).astype(np.int8).view(np.uint8)

    def from_int8(self, stored):
        return (stored.view(np.int8).astype(np.int64) + 128).astype(np.uint8)

    def block_offset(self, scales, zeros):
        return (0.0 - scales.astype(np.float32) * zeros).astype(F16)

    def block_head(self, scales, offset):
        """What stands before the codes, in this order."""
        return [scales] if offset is None else [scales, offset]

    def op_pack(self, params, inputs):
        layout = params["layout"]
        if layout not in BITS:
            return super().op_pack(params, inputs)
        codes, scales, offset = inputs["int_weight"], inputs["scales"], None
        if layout == "q4_1":
            offset = inputs.get("offset")
            offset = self.block_offset(scales, inputs["zero_point"]) if offset is None else offset
        blocks = codes.reshape(len(codes), -1, 32)
        repeats = blocks.shape[1] // scales.shape[1]
        body = self.to_int8(blocks) if BITS[layout] == 8 else self.nibbles(blocks)
        parts = [*(self.half(values, repeats) for values in self.block_head(scales, offset)), body]
        return {"weight": np.concatenate(parts, axis=2).reshape(len(codes), -1)}

    def of_group(self, values, repeats):
        """One value for each group: all its blocks must have it."""
        grouped = values.reshape(len(values), -1, repeats)
        if not np.isfinite(values).all():
            raise ValueError("scale")
        if (grouped != grouped[..., :1]).any():
            raise ValueError("blocks of one group differ")
        return grouped[..., 0]

    def op_unpack(self, params, inputs):
        layout = params["layout"]
        if layout not in BITS:
            return super().op_unpack(params, inputs)
        weight, n_in = inputs["weight"], params["in_features"]
        blocks = weight.reshape(len(weight), n_in // 32, -1)  # ValueError where no whole number of bytes fits
        repeats = self.group(params, n_in) // 32
        start = 4 if layout == "q4_1" else 2
        if blocks.shape[2] != start + 32 * BITS[layout] // 8:
            raise ValueError("blocks of another size")
        halves = [self.of_group(self.to_half(blocks[..., k : k + 2]), repeats) for k in range(0, start, 2)]
        scales, *offset = self.block_head(*halves, *([None] if start == 2 else []))
        body = np.ascontiguousarray(blocks[..., start:])
        codes = self.from_int8(body) if BITS[layout] == 8 else self.from_nibbles(body)
        linear = {"int_weight": codes.reshape(len(codes), n_in), "scales": scales}
        if offset:
            return linear | {"offset": offset[0]}
        return linear | {"zero_point": np.full(scales.shape, 2 ** (BITS[layout] - 1), dtype=np.uint8)}
