"""The gguf package (llama.cpp's NumPy code): its Q4_0 and Q4_1 blocks are groups of 32 weights in 4 bits."""

from importlib.metadata import version

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

NAME, VERSION = "gguf", version("gguf")


def blocks(codes):
    """Bytes of blocks of 32 codes: code i in the low nibble of byte i, code i + 16 in the high one."""
    halves = codes.reshape(-1, 2, 16)
    return (halves[:, 0] | halves[:, 1] << 4).astype(np.uint8)


def answer(request):
    params, inputs = request["params"], request["inputs"]
    fits = request["op"] == "dequantize" and params["bits"] == 4 and params["group_size"] == 32
    if not fits or inputs["scales"].dtype != np.float16 or params["weight_dtype"] != "float32":
        raise NotImplementedError(request["op"])
    parts = [inputs["scales"].reshape(-1, 1)]
    if "offset" in inputs:
        kind = GGMLQuantizationType.Q4_1
        parts.append(inputs["offset"].reshape(-1, 1))
    elif (inputs["zero_point"] == 8).all():
        kind = GGMLQuantizationType.Q4_0
    else:
        raise NotImplementedError("zero points that are integers")
    data = np.concatenate([*(part.view(np.uint8) for part in parts), blocks(inputs["int_weight"])], axis=1)
    return {"weight": dequantize(data, kind).reshape(inputs["int_weight"].shape)}
