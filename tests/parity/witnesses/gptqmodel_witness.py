"""GPTQModel's packer and unpacking of the layouts gptq_v2 and gptq, as a backend.

Its functions are taken from the source distribution one by one: the package itself wants compiled kernels.
"""

import ast
import contextlib
import importlib.util
import math
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

SPEC = importlib.util.find_spec("gptqmodel")
if SPEC is None or not SPEC.submodule_search_locations:
    raise ImportError("the folder gptqmodel of GPTQModel's source must be on the path")
FOLDER = Path(next(iter(SPEC.submodule_search_locations)))
NAME, VERSION = "GPTQModel", "7.7.0"


class Module(nn.Module):
    """What its functions ask of the module that they are methods of."""

    def __init__(self, bits, features, **buffers):
        super().__init__()
        self.bits, self.maxq, self.planar = bits, 2**bits - 1, False
        self.in_features, self.out_features = features
        self.pack_dtype_bits, self.pack_factor = 32, 32 // bits
        self.pack_dtype, self.pack_np_dtype, self.pack_np_math_dtype = torch.int32, np.int32, np.uint32
        for name, value in buffers.items():
            self.register_buffer(name, value)

        self.dequant_dtype = torch.int32
        self.enable_wf_unsqueeze = True

    def _init_wf_unsqueeze_buffers(self):
        init_wf(self)

    def _wf_device(self):
        return torch.device("cpu")

    def _dequantize_from_codes(self, weight, zeros, num_itr):
        return weight, zeros

    def qzero_format(self, **told):
        """It is told which format its zero points have now."""


NAMES = {
    "BaseQuantLinear": Module,
    "QuantizeConfig": object,
    "THREADPOOLCTL": types.SimpleNamespace(threadpool_limits=lambda n: contextlib.nullcontext()),
    "_ConvNd": nn.modules.conv._ConvNd,
    "log": None,
    "math": math,
    "nn": nn,
    "np": np,
    "t": torch,
    "torch": torch,
    "transformers": types.SimpleNamespace(pytorch_utils=types.SimpleNamespace(Conv1D=type("Conv1D", (), {}))),
}
NAMES["log"] = types.SimpleNamespace(info=types.SimpleNamespace(once=lambda text: None))


def taken(path, name):
    """One function of a module that cannot be imported here, as it stands in its source."""
    tree = ast.parse((FOLDER / path).read_text(encoding="utf-8"))
    node = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    node.decorator_list = []
    exec(compile(ast.Module([node], []), path, "exec"), NAMES)
    return NAMES[name]


pack_original = taken("nn_modules/qlinear/__init__.py", "pack_original")
for helper in ("_torch_right_shift", "_torch_left_shift"):
    taken("nn_modules/qlinear/__init__.py", helper)
init_wf = taken("nn_modules/qlinear/__init__.py", "_init_wf_unsqueeze_buffers")
dequantize_weight = taken("nn_modules/qlinear/__init__.py", "dequantize_weight")
v2_to_v1 = taken("utils/model.py", "convert_gptq_v2_to_v1_format_module")
v1_to_v2 = taken("utils/model.py", "convert_gptq_v1_to_v2_format_module")


def admitted(params):
    if params["layout"] not in ("gptq", "gptq_v2") or (params["layout"], params["bits"]) == ("gptq", 3):
        raise NotImplementedError(params["layout"])


def pack(params, inputs):
    admitted(params)
    if (
        "zero_point" not in inputs
        or max(inputs["int_weight"].max(), inputs["zero_point"].max()) >= 2 ** params["bits"]
    ):
        raise NotImplementedError("it makes the codes itself, and checks none")
    codes, scales, zeros = (torch.from_numpy(inputs[n]) for n in ("int_weight", "scales", "zero_point"))
    size = params["in_features"] if params["group_size"] == -1 else params["group_size"]
    index = torch.from_numpy(inputs["g_idx"]) if "g_idx" in inputs else torch.arange(codes.shape[1]) // size
    linear = nn.Linear(codes.shape[1], codes.shape[0], bias=False)
    steps = codes.double() - zeros.double()[:, index.long()]  # in float64: its quotient is the code
    linear.weight.data = steps * scales.double()[:, index.long()]
    module = Module(params["bits"], (codes.shape[1], codes.shape[0]))
    pack_original(module, linear, scales.double(), zeros.double(), index.long())
    if params["layout"] == "gptq":
        v2_to_v1(module, types.SimpleNamespace(bits=module.bits, pack_dtype=torch.int32))
    arrays = {name: getattr(module, name).numpy() for name in ("qweight", "qzeros", "scales")}
    return {**arrays, "g_idx": inputs["g_idx"]} if "g_idx" in inputs else arrays


def unpack(params, inputs):
    """Its dequantization, stopped where it has codes and zero points and is about to multiply."""
    admitted(params)
    tensors = {n: torch.from_numpy(inputs[n]) for n in ("qweight", "qzeros", "scales")}
    features, bits = (params["in_features"], params["out_features"]), params["bits"]
    groups, per_word = -(-features[0] // params["group_size"]) if params["group_size"] > 0 else 1, 32 / bits
    shapes = ((features[0] / per_word, features[1]), (groups, features[1] / per_word), (groups, features[1]))
    if [tuple(a.shape) for a in tensors.values()] != [*shapes] or not tensors["scales"].isfinite().all():
        raise NotImplementedError("it checks nothing")
    if "g_idx" in inputs and not (0 <= inputs["g_idx"].min() and inputs["g_idx"].max() < groups):
        raise NotImplementedError("it checks nothing")
    module = Module(bits, features, **tensors)
    if params["layout"] == "gptq":
        v1_to_v2(module, bits, torch.int32)
    codes, zeros = dequantize_weight(module)
    arrays = {"int_weight": codes.T, "zero_point": zeros.T, "scales": module.scales.T}
    kinds = {"scales": np.float16}
    outputs = {name: array.numpy().astype(kinds.get(name, np.uint8)) for name, array in arrays.items()}
    return {**outputs, "g_idx": inputs["g_idx"]} if "g_idx" in inputs else outputs


OPS = {f.__name__: f for f in (pack, unpack)}


def answer(request):
    if request["op"] not in OPS:
        raise NotImplementedError(request["op"])
    return OPS[request["op"]](request["params"], request["inputs"])
