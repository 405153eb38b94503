"""The second backend's layouts that no checkpoint folder holds: TinyChatEngine's, marlin, MatMulNBits."""

import numpy as np

DISTANCES = {"qm_arm": 16, "qm_x86": 32, "qm_metal": 4}
RANK = (0, 4, 1, 5, 2, 6, 3, 7)
U8 = np.uint8


class Others:
    # ---- two codes to a byte ----

    def distance(self, layout):
        return DISTANCES[layout]

    def byte_of(self, first, second):
        return first | second << U8(4)

    def codes_of(self, byte):
        return byte & U8(15), byte >> U8(4)

    def to_pairs(self, codes, distance):
        cut = codes.reshape(len(codes), -1, 2 * distance)
        packed = [self.byte_of(cut[:, :, k], cut[:, :, k + distance]) for k in range(distance)]
        return np.stack(packed, axis=2).reshape(len(codes), -1)

    def from_pairs(self, packed, distance):
        cut = packed.reshape(len(packed), -1, distance)
        first, second = self.codes_of(cut)
        return np.concatenate([first, second], axis=2).reshape(len(packed), -1)

    def qm_tensors(self, layout, codes, scales, padded):
        if layout != "qm_cuda":
            packed = self.to_pairs(codes, self.distance(layout))
            return self.qm_named(packed, scales, np.array([8.0], dtype=np.float32))
        eights = self.eights(np.full(scales.shape, 8, dtype=U8), padded)
        return self.qm_named(self.to_stream(codes, 4), self.pad(scales, padded), self.to_stream(eights, 4))

    def qm_named(self, weight, scales, zeros):
        return {
            "weight_int4": weight,
            "scaling_factor_int4": self.stored_scales(scales),
            "zero_point_int4": zeros,
        }

    def stored_scales(self, scales):
        return scales

    def eights(self, zeros, padded):
        return np.full((len(zeros), padded), 8, dtype=U8)

    def check_constant(self, zeros):
        if zeros.dtype == np.float32 and zeros[0] != 8:
            raise ValueError("zero_point_int4")

    # ---- marlin ----

    def marlin_place(self, o, i):
        """Row, word and nibble of code (o, i)."""
        column, row = o % 16, i % 16
        thread = 4 * (column % 8) + row % 8 // 2
        number = 4 * (column // 8) + row % 2 + 2 * (row // 8)
        return i // 16, 128 * (o // 64) + 4 * thread + o % 64 // 16, self.marlin_nibble(number)

    def marlin_nibble(self, number):
        return RANK[number]

    def marlin_order(self, outputs, groups):
        """Which output's scale stands at each place."""
        if groups == 1:
            run = [2 * i + k for i in range(4) for k in (0, 1, 8, 9, 16, 17, 24, 25)]
        else:
            run = [i + 8 * j for i in range(8) for j in range(8)]
        return [start + k for start in range(0, outputs, len(run)) for k in run]

    def to_marlin(self, codes, scales):
        words = np.zeros((codes.shape[1] // 16, 2 * len(codes)), dtype=np.uint32)
        for (o, i), code in np.ndenumerate(codes):
            row, word, nibble = self.marlin_place(o, i)
            words[row, word] |= np.uint32(code) << np.uint32(4 * nibble)
        order = self.marlin_order(len(codes), scales.shape[1])
        return {"qweight": words, "scales": scales.T[:, order]}

    def from_marlin(self, words, scales):
        codes = np.zeros((words.shape[1] // 2, words.shape[0] * 16), dtype=U8)
        for o, i in np.ndindex(*codes.shape):
            row, word, nibble = self.marlin_place(o, i)
            codes[o, i] = words.view(np.uint32)[row, word] >> np.uint32(4 * nibble) & np.uint32(15)
        back = np.empty_like(scales)
        back[:, self.marlin_order(len(codes), len(scales))] = scales
        return codes, back.T

    # ---- MatMulNBits ----

    def to_bytes(self, codes, bits):
        n_bytes = -(-codes.shape[1] * bits // 8)
        streams = [sum(code << (bits * k) for k, code in enumerate(row)) for row in codes.tolist()]
        return np.array([list(stream.to_bytes(n_bytes, "little")) for stream in streams], dtype=U8)

    def from_bytes(self, packed, bits, n):
        streams = [int.from_bytes(bytes(row), "little") for row in packed.tolist()]
        return np.array([[s >> bits * k & self.code_mask(bits) for k in range(n)] for s in streams], dtype=U8)

    def blocks(self, packed, groups):
        return packed.reshape(len(packed), groups, -1)

    # ---- all of them ----

    def pack_other(self, params, codes, scales, zeros, padded):
        layout, bits = params["layout"], params["bits"]
        if layout == "marlin":
            return self.to_marlin(codes, scales)
        if layout == "matmulnbits":
            tensors = {"B": self.blocks(self.to_bytes(codes, bits), scales.shape[1]), "scales": scales}
            return tensors if params["symmetric"] else {**tensors, "zero_points": self.to_bytes(zeros, bits)}
        return self.qm_tensors(layout, codes, scales, padded)

    def unpack_other(self, params, inputs, groups):
        """Return codes, scales (O, G) and zero points."""
        layout, bits, n_in = params["layout"], params["bits"], params["in_features"]
        zeros = np.full((params["out_features"], groups), self.middle(bits), dtype=U8)
        if layout == "marlin":
            return *self.from_marlin(inputs["qweight"], inputs["scales"]), zeros
        if layout == "matmulnbits":
            if not params["symmetric"]:
                zeros = self.from_bytes(inputs["zero_points"], bits, groups)
            flat = inputs["B"].reshape(len(zeros), -1)
            return self.from_bytes(flat, bits, n_in), inputs["scales"], zeros
        self.check_constant(inputs["zero_point_int4"])
        scales = self.stored_scales(inputs["scaling_factor_int4"])[:, :groups]
        if layout == "qm_cuda":
            return self.from_stream(inputs["weight_int4"], 4, n_in), scales, zeros
        return self.from_pairs(inputs["weight_int4"], self.distance(layout)), scales, zeros
