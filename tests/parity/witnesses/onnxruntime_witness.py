"""onnxruntime's MatMulNBits on a CPU: products with weights of integers, scales and zero points, and what it reads."""

from importlib.metadata import version

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

NAME, VERSION = "onnxruntime", version("onnxruntime")
IN_FLOAT32 = 1  # accuracy_level


def packed(codes, bits):
    """Codes (..., n) to bytes (..., n * bits / 8), the first in the lowest bits; n is filled up with zeros."""
    per_byte = 8 // bits
    n = -(-codes.shape[-1] // per_byte) * per_byte
    full = np.zeros((*codes.shape[:-1], n), dtype=np.uint8)
    full[..., : codes.shape[-1]] = codes
    fields = full.reshape(*codes.shape[:-1], n // per_byte, per_byte)
    shifts = (bits * np.arange(per_byte, dtype=np.uint8)).astype(np.uint8)
    return np.bitwise_or.reduce(fields << shifts, axis=-1)


def run(x, constants, n_out, bits, size):
    """X times the weight of these constants, transposed."""
    n_in = x.shape[1]
    node = helper.make_node(
        "MatMulNBits",
        ["x", *constants],
        ["y"],
        domain="com.microsoft",
        K=n_in,
        N=n_out,
        bits=bits,
        block_size=size,
        accuracy_level=IN_FLOAT32,
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (len(x), n_out))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def product(x, codes, scales, zeros, bits):
    n_out, n_in = codes.shape
    size = n_in // scales.shape[1]
    constants = {
        "B": packed(codes.reshape(n_out, -1, size), bits),
        "scales": scales.astype(np.float32).reshape(-1),
        "zero_points": packed(zeros, bits).reshape(-1),
    }
    return run(x, constants, n_out, bits, size)


def unpack(params, inputs):
    """What its kernel takes the bytes for: the identity times the weight, with scales of 1."""
    if params["layout"] != "matmulnbits":
        raise NotImplementedError(params["layout"])
    n_out, n_in, bits = params["out_features"], params["in_features"], params["bits"]
    size = n_in if params["group_size"] == -1 else params["group_size"]
    scales = inputs["scales"]
    if scales.shape != (n_out, n_in // size) or not np.isfinite(scales).all():
        raise NotImplementedError("it checks no values, and of shapes the number of elements alone")
    constants = {"B": inputs["B"], "scales": np.ones(scales.size, dtype=np.float32)}
    stored = {name: inputs[name].reshape(-1) for name in ("zero_points",) if name in inputs}
    none = {"zero_points": packed(np.zeros(scales.shape, dtype=np.uint8), bits).reshape(-1)}
    x = np.eye(n_in, dtype=np.float32)
    codes = run(x, {**constants, **none}, n_out, bits, size).T
    steps = run(x, {**constants, **stored}, n_out, bits, size).T
    zeros = (codes - steps)[:, ::size]
    return {"int_weight": codes.astype(np.uint8), "zero_point": zeros.astype(np.uint8), "scales": scales}


def answer(request):
    params, inputs = request["params"], request["inputs"]
    if request["op"] == "unpack":
        return unpack(params, inputs)
    if request["op"] != "matmul" or {"offset", "g_idx"} & set(inputs) or params["precision"] != "float32":
        raise NotImplementedError(request["op"])
    if not all(np.isfinite(inputs[name]).all() for name in ("x", "bias") if name in inputs):
        raise NotImplementedError("it checks no values")
    size = inputs["int_weight"].shape[1] // inputs["scales"].shape[1]
    if size < 16 or size & (size - 1) or params["bits"] not in (2, 4, 8):
        raise NotImplementedError(f"groups of {size}, {params['bits']} bits")
    y = product(*(inputs[n] for n in ("x", "int_weight", "scales", "zero_point")), params["bits"])
    return {"y": y + inputs["bias"] if "bias" in inputs else y}
