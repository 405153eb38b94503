"""The same linear in onnxruntime: MatMulNBits, with float32 or int8 activations (accuracy level 4)."""

import numpy as np
import onnxruntime
from linears import random_codes, times_by_tokens
from onnx import TensorProto, helper, numpy_helper
from result import options, report

given = options()
(n_out, n_in), group_size = given["shape"], given["group_size"]
codes, scales, zeros = random_codes(n_out, n_in, group_size)
pairs = codes.reshape(n_out, n_in // group_size, group_size // 2, 2)
padded = np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2))).reshape(n_out, -1, 2)
constants = {
    "B": pairs[..., 0] | pairs[..., 1] << 4,
    "scales": scales.ravel(),
    "zero_points": (padded[..., 0] | padded[..., 1] << 4).ravel(),
}
node = helper.make_node(
    "MatMulNBits", ["A", *constants], ["Y"], domain="com.microsoft", K=n_in, N=n_out, bits=4,
    block_size=group_size, accuracy_level=given["accuracy_level"],
)  # fmt: skip
graph = helper.make_graph(
    [node], "linear", [helper.make_tensor_value_info("A", TensorProto.FLOAT, ["tokens", n_in])],
    [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["tokens", n_out])],
    [numpy_helper.from_array(array, name) for name, array in constants.items()],
)  # fmt: skip
versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
model = helper.make_model(graph, opset_imports=versions, ir_version=10)
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = given["threads"]
session = onnxruntime.InferenceSession(
    model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
)
report(
    times=times_by_tokens(lambda x: session.run(None, {"A": x})[0], given),
    weight=sum(a.nbytes for a in constants.values()),
)
