"""A second backend for levels 0 to 3, in plain NumPy, in steps small enough to be got wrong one at a time.

It imports nothing of the package: unmutated it conforms, which makes it a witness of its own; a mutant overrides one
step.
"""

import numpy as np
from mutants.textbook_others import Others

QWEIGHT = {"pack-quantized": "weight_packed", "mlx": "weight"}
QM = ("qm_arm", "qm_x86", "qm_metal", "qm_cuda")
OTHERS = (*QM, "marlin", "matmulnbits")
GEMV = ("gemv", "llm-awq-v1")
PADDED = (*GEMV, "gemv_fast", "llm-awq", "qm_cuda")
BY_GROUP = ("gemm", "gemv_fast", "llm-awq", "gptq", "gptq_v2", "marlin")
OFFSETS = {"gemv_fast": "qzeros", "llm-awq": "scaled_zeros", "mlx": "biases"}
SCALES = {"pack-quantized": "weight_scale", **dict.fromkeys(QM, "scaling_factor_int4")}
INDEX = {"pack-quantized": "weight_g_idx"}


class Integers(Others):
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    range_floor = 1e-5

    # ---- words ----

    def code_mask(self, bits):
        return (1 << bits) - 1

    def to_stream(self, codes, bits):
        """Codes (rows, n) -> uint32 words, each row a dense bit stream."""
        n_words = -(-codes.shape[1] * bits // 32)
        words = np.zeros((len(codes), n_words), dtype=np.uint32)
        for r, row in enumerate(codes.tolist()):
            stream = sum(code << (bits * k) for k, code in enumerate(row))
            for w in range(n_words):
                words[r, w] = stream >> (32 * w) & 0xFFFFFFFF
        return words

    def from_stream(self, words, bits, n):
        codes = np.zeros((len(words), n), dtype=np.uint8)
        for r, row in enumerate(words.view(np.uint32).tolist()):
            stream = sum(word << (32 * w) for w, word in enumerate(row))
            codes[r] = [stream >> (bits * k) & self.code_mask(bits) for k in range(n)]
        return codes

    def eights_in_order(self, codes):
        return codes.reshape(len(codes), -1, 8)[:, :, list(self.order)].reshape(codes.shape)

    def eights_back(self, codes):
        result = np.empty_like(codes).reshape(len(codes), -1, 8)
        result[:, :, list(self.order)] = codes.reshape(result.shape)
        return result.reshape(codes.shape)

    def fast_place(self, n, k):
        """Row, word and shift of code (n, k) in the 16-bit words of gemv_fast."""
        return n // 4, 64 * (k // 64) + 16 * (n % 4) + 8 * (k % 64 // 32) + k % 8, 4 * (k % 32 // 8)

    def to_fast(self, codes):
        words = np.zeros((codes.shape[0] // 4, codes.shape[1]), dtype=np.uint16)
        for (n, k), code in np.ndenumerate(codes):
            row, word, shift = self.fast_place(n, k)
            words[row, word] |= np.uint16(code) << np.uint16(shift)
        return words.view(np.int16)

    def from_fast(self, words):
        codes = np.zeros((words.shape[0] * 4, words.shape[1]), dtype=np.uint8)
        for n, k in np.ndindex(*codes.shape):
            row, word, shift = self.fast_place(n, k)
            codes[n, k] = words.view(np.uint16)[row, word] >> np.uint16(shift) & np.uint16(15)
        return codes

    def padded(self, groups, group):
        multiple = {32: 32, 64: 16}.get(group, 8)
        return -(-groups // multiple) * multiple

    def pad(self, array, columns):
        result = np.zeros((len(array), columns), dtype=array.dtype)
        result[:, : array.shape[1]] = array
        return result

    # ---- GPTQ's zero points ----

    def ones(self, bits):
        return sum(1 << p for p in range(0, 32, bits))

    def gptq_zeros(self, zeros, bits, less):
        codes = np.ascontiguousarray(zeros.T)
        if bits == 3:
            return self.to_stream((codes.astype(np.int64) - less) % 8, bits)
        words = self.to_stream(codes, bits).astype(np.int64) - less * self.ones(bits)
        return (words % 2**32).astype(np.uint32)

    def gptq_zeros_back(self, words, bits, outputs, less):
        if bits != 3:
            words = ((words.view(np.uint32).astype(np.int64) + less * self.ones(bits)) % 2**32).astype(
                np.uint32
            )
            return self.from_stream(words, bits, outputs).T
        return ((self.from_stream(words, bits, outputs) + less) % 8).astype(np.uint8).T

    def gptq_less(self, layout):
        return 1 if layout == "gptq" else 0

    # ---- L0 ----

    def offset_of(self, scales, zeros):
        with np.errstate(over="ignore"):
            return -(scales.astype(np.float32) * zeros).astype(scales.dtype)

    def group(self, params, inputs):
        return inputs if params["group_size"] == -1 else params["group_size"]

    def check_linear(self, params, linear):
        qmax = 2 ** params["bits"] - 1
        for name in ("int_weight", "zero_point"):
            if name in linear and linear[name].max() > qmax:
                raise ValueError(f"{name} above {qmax}")

    def op_pack(self, params, inputs):
        layout, bits = params["layout"], params["bits"]
        self.check_linear(params, inputs)
        codes, scales = inputs["int_weight"], inputs["scales"]
        zeros = inputs.get("zero_point")
        groups = scales.shape[1]
        padded = self.padded(groups, self.group(params, codes.shape[1]))
        offset = inputs.get("offset")
        if layout in OFFSETS and offset is None:
            offset = self.offset_of(scales, zeros)
            if not np.isfinite(offset).all():
                raise ValueError("offset")
        if layout == "gemm":
            tensors = {
                "qweight": self.to_stream(self.eights_in_order(codes.T), 4),
                "qzeros": self.to_stream(self.eights_in_order(zeros.T), 4),
                "scales": scales.T,
            }
        elif layout in OTHERS:
            tensors = self.pack_other(params, codes, scales, zeros, padded)
        elif layout in GEMV:
            tensors = {
                "qweight": self.to_stream(codes, 4),
                "qzeros": self.to_stream(self.pad(zeros, padded), 4),
                "scales": self.pad(scales, padded),
            }
        elif layout in ("gemv_fast", "llm-awq"):
            tensors = {"qweight": self.to_fast(codes), "scales": self.pad(scales, padded).T}
            tensors[OFFSETS[layout]] = self.pad(offset, padded).T
        elif layout == "mlx":
            tensors = {"weight": self.to_stream(codes, bits), "scales": scales, "biases": offset}
        elif layout == "pack-quantized":
            tensors = {"weight_packed": self.to_stream(codes, bits), "weight_scale": scales}
            tensors["weight_shape"] = self.shape_out(codes)
            if not params["symmetric"]:
                tensors["weight_zero_point"] = self.to_stream(np.ascontiguousarray(zeros.T), bits).T
        else:
            tensors = {
                "qweight": self.to_stream(codes, bits).T,
                "qzeros": self.gptq_zeros(zeros, bits, self.gptq_less(layout)),
                "scales": scales.T,
            }
        if "g_idx" in inputs:
            tensors[INDEX.get(layout, "g_idx")] = inputs["g_idx"]
        return {name: self.signed(array, layout) for name, array in tensors.items()}

    def signed(self, array, layout):
        array = np.ascontiguousarray(array)
        return array.view(np.int32) if array.dtype == np.uint32 and layout != "mlx" else array

    def expected_scales(self, params):
        layout, outputs, inputs = params["layout"], params["out_features"], params["in_features"]
        group = self.group(params, inputs)
        groups = -(-inputs // group)
        if layout in PADDED:
            groups = self.padded(groups, group)
        return (groups, outputs) if layout in BY_GROUP else (outputs, groups)

    def check_scales(self, scales, shape):
        if scales.shape != shape or not np.isfinite(scales).all():
            raise ValueError("scales")

    def op_unpack(self, params, inputs):
        layout, bits = params["layout"], params["bits"]
        n_in = params["in_features"]
        groups = -(-n_in // self.group(params, n_in))
        scales = inputs[SCALES.get(layout, "scales")]
        self.check_scales(scales, self.expected_scales(params))
        if layout in OTHERS:
            codes, scales, zeros = self.unpack_other(params, inputs, groups)
            return {"int_weight": codes, "scales": scales, "zero_point": zeros}
        by_output = scales.T if layout in BY_GROUP else scales
        linear = {"scales": by_output[:, :groups]}
        words = inputs[QWEIGHT.get(layout, "qweight")]
        linear["int_weight"] = self.unpack_codes(layout, words, bits, n_in)
        if layout in OFFSETS:
            offset = inputs[OFFSETS[layout]]
            linear["offset"] = (offset if layout == "mlx" else offset.T)[:, :groups]
        else:
            linear["zero_point"] = self.unpack_zeros(params, inputs, groups)
        index = INDEX.get(layout, "g_idx")
        if index in inputs:
            if inputs[index].max() >= groups:
                raise ValueError("g_idx")
            linear |= self.index_out(inputs[index])
        return {name: np.ascontiguousarray(array) for name, array in linear.items()}

    def index_out(self, index):
        return {"g_idx": index}

    def shape_out(self, codes):
        return np.array(codes.shape, dtype=np.int64)

    def unpack_codes(self, layout, words, bits, n_in):
        if layout == "gemm":
            codes = self.from_stream(words, 4, words.shape[1] * 8)
            return self.eights_back(codes).T
        if layout in ("gemv_fast", "llm-awq"):
            return self.from_fast(np.ascontiguousarray(words))
        if layout in ("gptq", "gptq_v2"):
            return self.from_stream(np.ascontiguousarray(words.T), bits, n_in)
        return self.from_stream(words, bits, n_in)

    def unpack_zeros(self, params, inputs, groups):
        layout, bits, outputs = params["layout"], params["bits"], params["out_features"]
        if layout == "gemm":
            return self.eights_back(self.from_stream(inputs["qzeros"], 4, outputs)).T
        if layout in GEMV:
            return self.from_stream(inputs["qzeros"], 4, groups)
        if layout in ("gptq", "gptq_v2"):
            return self.gptq_zeros_back(inputs["qzeros"], bits, outputs, self.gptq_less(layout))
        if params["symmetric"]:
            return np.full((outputs, groups), self.middle(bits), dtype=np.uint8)
        words = np.ascontiguousarray(inputs["weight_zero_point"].T)
        return self.from_stream(words, bits, outputs).T

    def middle(self, bits):
        return 2 ** (bits - 1)
