"""Levels 1 to 3 of the second backend: weights, integers, products."""

import numpy as np
from mutants.textbook_integers import Integers

F32 = np.float32


class Products(Integers):
    # ---- L1 ----

    def group_index(self, inputs, n_in, groups):
        if "g_idx" in inputs:
            return inputs["g_idx"]
        return np.arange(n_in, dtype=np.int64) // (n_in // groups)

    def steps(self, codes, zeros):
        return codes.astype(np.int32) - zeros.astype(np.int32)

    def weight(self, inputs, dtype=F32):
        codes, scales = inputs["int_weight"], inputs["scales"]
        index = self.group_index(inputs, codes.shape[1], scales.shape[1])
        delta = scales.astype(F32)[:, index]
        if "offset" in inputs:
            return (codes * delta + inputs["offset"].astype(F32)[:, index]).astype(dtype)
        return (self.steps(codes, inputs["zero_point"][:, index]) * delta).astype(dtype)

    def check(self, params, inputs):
        if "int_weight" in inputs:
            self.check_linear(params, inputs)
        for name in ("x", "bias", "scales", "offset"):
            if name in inputs and not np.isfinite(inputs[name]).all():
                raise ValueError(name)

    def op_dequantize(self, params, inputs):
        self.check(params, inputs)
        return {"weight": self.weight(inputs, params["weight_dtype"])}

    def op_dequantize_packed(self, params, inputs):
        return {"weight": self.weight(self.op_unpack(params, inputs), params["weight_dtype"])}

    # ---- L2 ----

    def round(self, x):
        return np.rint(x)

    def split(self, weight, params):
        return weight.reshape(len(weight), -1, self.group(params, weight.shape[1]))

    def extremes(self, groups, params):
        low, high = groups.min(axis=2), groups.max(axis=2)
        if params["range_rule"] == "zero":
            low, high = np.minimum(low, F32(0)), np.maximum(high, F32(0))
        return low, high

    def symmetric_steps(self, bits):
        return F32(2 ** (bits - 1) - 1)

    def delta(self, low, high, params):
        bits, floor = params["bits"], F32(self.range_floor)
        if params["symmetric"]:
            return (np.maximum(np.maximum(-low, high), floor) / self.symmetric_steps(bits)).astype(F32)
        return (np.maximum(high - low, floor) / F32(2**bits - 1)).astype(F32)

    def stored(self, delta, dtype):
        with np.errstate(over="ignore"):
            scales = delta.astype(dtype)
        if not np.isfinite(scales).all():
            raise ValueError("a scale does not fit")
        return scales

    def used(self, scales, delta):
        """The scale that codes are computed from."""
        return scales.astype(F32)

    def zero_point(self, low, used, qmax):
        with np.errstate(over="ignore"):
            return np.clip(-self.round(low / used), 0, qmax).astype(np.uint8)

    def grid(self, weight, params):
        low, high = self.extremes(self.split(weight, params), params)
        with np.errstate(over="ignore"):
            delta = self.delta(low, high, params)
        scales = self.stored(delta, params["scale_dtype"])
        used = self.used(scales, delta)
        if params["symmetric"]:
            return scales, np.full(scales.shape, self.middle(params["bits"]), dtype=np.uint8), used
        return scales, self.zero_point(low, used, 2 ** params["bits"] - 1), used

    def codes(self, weight, used, zeros, params):
        groups = self.split(weight, params)
        with np.errstate(over="ignore"):
            shifted = self.shifted(groups / used[:, :, None], zeros[:, :, None].astype(F32))
        codes = np.clip(shifted, 0, 2 ** params["bits"] - 1)
        return codes.astype(np.uint8).reshape(weight.shape)

    def shifted(self, quotient, zeros):
        return self.round(quotient) + zeros

    def clamped(self, inputs, params):
        weight = inputs["weight"]
        if not np.isfinite(weight).all():
            raise ValueError("weight")
        if "clip" not in inputs:
            return weight
        if not (inputs["clip"] >= 0).all():
            raise ValueError("clip")
        limit = inputs["clip"][:, :, None]
        return np.clip(self.split(weight, params), -limit, limit).reshape(weight.shape)

    def op_choose_grid(self, params, inputs):
        scales, zeros, _ = self.grid(self.clamped(inputs, params), params)
        return {"scales": scales, "zero_point": zeros}

    def op_quantize(self, params, inputs):
        scales, zeros = inputs["scales"], inputs["zero_point"]
        if not (scales > 0).all() or not np.isfinite(scales).all() or zeros.max() >= 2 ** params["bits"]:
            raise ValueError("grid")
        return {"int_weight": self.codes(inputs["weight"], scales.astype(F32), zeros, params)}

    def op_quantize_linear(self, params, inputs):
        weight = self.clamped(inputs, params)
        scales, zeros, used = self.grid(weight, params)
        codes = self.codes(self.weight_to_code(weight, inputs), used, zeros, params)
        return {"scales": scales, "zero_point": zeros, "int_weight": codes}

    def weight_to_code(self, clamped, inputs):
        return clamped

    # ---- L3 ----

    def product(self, x, weight):
        return x.astype(F32) @ weight.T

    def op_matmul(self, params, inputs):
        self.check(params, inputs)
        y = self.product(inputs["x"], self.weight(inputs))
        return {"y": self.with_bias(y, inputs)}

    def with_bias(self, y, inputs):
        return y + inputs["bias"] if "bias" in inputs else y

    def op_matmul_packed(self, params, inputs):
        return {"y": self.product(inputs["x"], self.weight(self.op_unpack(params, inputs)))}

    def act_scale(self, groups):
        return (np.abs(groups).max(axis=2) / F32(127)).astype(F32)

    def act_codes(self, x, size):
        groups = x.reshape(len(x), -1, size)
        scales = self.act_scale(groups)
        safe = np.where(scales == 0, F32(1), scales)[:, :, None]
        return np.clip(self.round(groups / safe), -127, 127).astype(np.int8), scales

    def op_quantize_activations(self, params, inputs):
        self.check(params, inputs)
        codes, scales = self.act_codes(inputs["x"], params["act_group_size"])
        return {"act_codes": codes.reshape(inputs["x"].shape), "act_scales": scales}

    def op_matmul_w4a8(self, params, inputs):
        codes, act_scales = self.act_codes(inputs["x"], params["act_group_size"])  # (T, n, size), (T, n)
        weight, scales, zeros = inputs["int_weight"], inputs["scales"], inputs["zero_point"]
        blocks = (len(weight), codes.shape[1], codes.shape[2])
        owner = np.arange(blocks[1], dtype=np.int64) * scales.shape[1] // blocks[1]
        steps = self.steps(weight.reshape(blocks), zeros[:, owner, None])
        dots = np.einsum("tnk,onk->ton", codes.astype(np.int64), steps.astype(np.int64))
        factors = scales.astype(np.float64)[:, owner] * act_scales.astype(np.float64)[:, None, :]
        return {"y": (dots * factors).sum(axis=2)}
