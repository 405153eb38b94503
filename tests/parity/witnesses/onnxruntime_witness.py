"""onnxruntime's MatMulNBits on a CPU: products with weights of integers, scales and zero points."""

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


def product(x, codes, scales, zeros, bits):
    n_out, n_in = codes.shape
    size = n_in // scales.shape[1]
    constants = {
        "B": packed(codes.reshape(n_out, -1, size), bits),
        "scales": scales.astype(np.float32).reshape(-1),
        "zero_points": packed(zeros, bits).reshape(-1),
    }
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


def answer(request):
    params, inputs = request["params"], request["inputs"]
    if request["op"] != "matmul" or {"offset", "g_idx"} & set(inputs) or params["precision"] != "float32":
        raise NotImplementedError(request["op"])
    if not all(np.isfinite(inputs[name]).all() for name in ("x", "bias") if name in inputs):
        raise NotImplementedError("it checks no values")
    size = inputs["int_weight"].shape[1] // inputs["scales"].shape[1]
    if size < 16 or size & (size - 1) or params["bits"] not in (2, 4, 8):
        raise NotImplementedError(f"groups of {size}, {params['bits']} bits")
    y = product(*(inputs[n] for n in ("x", "int_weight", "scales", "zero_point")), params["bits"])
    return {"y": y + inputs["bias"] if "bias" in inputs else y}
