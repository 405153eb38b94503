"""AutoAWQ's own packers, its dequantization of gemm and its quantizer, as a backend.

The modules of the package `awq` are imported without its `__init__`, which wants an old transformers: only torch is
needed, and the folder `awq` of the source distribution on the path.
"""

import ast
import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch

SPEC = importlib.util.find_spec("awq")
if SPEC is None or not SPEC.submodule_search_locations:
    raise ImportError("the folder awq of AutoAWQ's source must be on the path")
FOLDER = next(iter(SPEC.submodule_search_locations))
for name in ("awq", "awq.modules", "awq.modules.linear", "awq.utils"):
    package = types.ModuleType(name)
    package.__path__ = [f"{FOLDER}{name.removeprefix('awq').replace('.', '/')}"]
    sys.modules[name] = package
sys.modules["awq.utils.utils"] = types.ModuleType("awq.utils.utils")  # it wants accelerate, for this alone:
sys.modules["awq.utils.utils"].get_best_device = lambda: "cpu"


def method_of(path, name):
    """One function of a module that cannot be imported here, as it stands in its source."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    node = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    names = {"torch": torch, "nn": torch.nn, "List": list, "Dict": dict}
    exec(compile(ast.Module([node], []), path, "exec"), names)
    return names[name]


packing = importlib.import_module("awq.utils.packing_utils")
PACKERS = {
    "gemm": importlib.import_module("awq.modules.linear.gemm").WQLinear_GEMM,
    "gemv": importlib.import_module("awq.modules.linear.gemv").WQLinear_GEMV,
    "marlin": importlib.import_module("awq.modules.linear.marlin").WQLinear_Marlin,
    "gemv_fast": importlib.import_module("awq.modules.linear.gemv_fast").WQLinear_GEMVFast,
}

NAME, VERSION = "AutoAWQ", "0.2.9"


def pack(params, inputs):
    layout = params["layout"]
    if layout not in PACKERS or "zero_point" not in inputs or params["symmetric"] != (layout == "marlin"):
        raise NotImplementedError(layout)
    codes, scales, zeros = (torch.from_numpy(inputs[n]) for n in ("int_weight", "scales", "zero_point"))
    if codes.max() > 15 or zeros.max() > 15 or scales.max() > 4000:
        raise NotImplementedError("its packer makes the codes itself, and checks no values")
    size = codes.shape[1] // scales.shape[1]
    scales, zeros = scales.float(), zeros.float()
    linear = torch.nn.Linear(codes.shape[1], codes.shape[0], bias=False)
    steps = codes.float() - zeros.repeat_interleave(size, dim=1)
    linear.weight.data = steps * scales.repeat_interleave(size, dim=1)
    if layout == "gemm":  # which takes both (groups, outputs)
        scales, zeros = scales.T.contiguous(), zeros.T.contiguous()
    stored = None if layout == "marlin" else zeros
    packed = PACKERS[layout].from_linear(linear, 4, size, scales=scales, zeros=stored)
    names = ("qweight", "qzeros", "scales") if stored is not None else ("qweight", "scales")
    return {name: getattr(packed, name).numpy() for name in names}


def unpack(params, inputs):
    if params["layout"] != "gemm" or not np.isfinite(inputs["scales"]).all():
        raise NotImplementedError(params["layout"])
    if len(inputs["scales"]) != len(inputs["qzeros"]):
        raise NotImplementedError("it checks no shapes")
    words = (torch.from_numpy(inputs[n]) for n in ("qweight", "qzeros"))
    codes, zeros = packing.reverse_awq_order(*packing.unpack_awq(*words, 4), 4)
    if codes.shape != (params["in_features"], params["out_features"]):
        raise ValueError("shape")
    return {
        "int_weight": (codes.T & 15).numpy().astype(np.uint8),
        "zero_point": (zeros.T & 15).numpy().astype(np.uint8),
        "scales": inputs["scales"].T,
    }


def dequantize_packed(params, inputs):
    if params["layout"] != "gemm":
        raise NotImplementedError(params["layout"])
    qweight, qzeros, scales = (torch.from_numpy(inputs[n]) for n in ("qweight", "qzeros", "scales"))
    weight = packing.dequantize_gemm(qweight, qzeros, scales.float(), 4, params["group_size"])
    return {"weight": weight.T.numpy()}


def quantize_linear(params, inputs):
    """Its quantizer, wherever the published range is asked for or is the same, with scales as they are computed."""
    weight = inputs["weight"]
    size = weight.shape[1] if params["group_size"] == -1 else params["group_size"]
    groups = weight.reshape(len(weight), -1, size)
    straddles = (groups.min(axis=2) <= 0).all() and (groups.max(axis=2) >= 0).all()
    same_range = params["range_rule"] == "minmax" or straddles
    if (
        not np.isfinite(weight).all()
        or params["scale_dtype"] != "float32"
        or "clip" in inputs
        or not (same_range or params["symmetric"])
    ):
        raise NotImplementedError("scales in float32 alone, no clip")
    quantizer = method_of(f"{FOLDER}/quantize/quantizer.py", "pseudo_quantize_tensor")
    choices = types.SimpleNamespace(group_size=size, zero_point=not params["symmetric"], w_bit=params["bits"])
    rounded, scales, zeros = quantizer(choices, torch.from_numpy(weight))
    if zeros is None:  # its integers have a sign
        zeros = torch.full_like(scales, 2 ** (params["bits"] - 1))
    steps = rounded.reshape(groups.shape) / scales[:, :, None]
    codes = torch.round(steps + zeros[:, :, None]).reshape(weight.shape)
    arrays = {"scales": scales, "zero_point": zeros.to(torch.uint8), "int_weight": codes.to(torch.uint8)}
    return {name: array.numpy() for name, array in arrays.items()}


def search(weight, x, mean, bits, size):
    """Its search of channel scales, in which every alpha's scales and losses are written down."""
    path = f"{FOLDER}/quantize/quantizer.py"
    tried, losses = [], []
    choices = types.SimpleNamespace(group_size=size, zero_point=True, w_bit=bits)
    quantizer, loss = method_of(path, "pseudo_quantize_tensor"), method_of(path, "_compute_loss")
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.clone()

    def quantized(w):
        tried.append(w / weight)
        return quantizer(choices, w)

    def measured(*outputs):
        losses.append(loss(types.SimpleNamespace(max_chunk_memory=1 << 30), *outputs))
        return losses[-1]

    self = types.SimpleNamespace(
        duo_scaling=False,
        pseudo_quantize_tensor=quantized,
        _module_forward=lambda x, module, kwargs: module(x),
        _compute_loss=measured,
    )
    with torch.no_grad():
        best = method_of(path, "_compute_best_scale")(
            self, x, torch.ones_like(mean), mean, linear, [linear], linear(x)
        )
    return [scales[0] for scales in tried], losses, best


def step_of(alpha):
    if round(alpha * 20) / 20 != alpha or alpha >= 1:
        raise NotImplementedError("it tries 0, 0.05, ... 0.95")
    return round(alpha * 20)


def channel_scales(params, inputs):
    mean = torch.from_numpy(inputs["act_mean_abs"])
    if params["formula"] != "llm-awq":
        raise NotImplementedError(params["formula"])
    step = step_of(params["alpha"])
    tried, _, _ = search(torch.ones(1, len(mean)), torch.ones(1, len(mean)), mean, 4, len(mean))
    return {"channel_scales": tried[step].numpy()}


def search_scales(params, inputs):
    """On inputs that have the Gram matrix of the case: sqrt(n) times its Cholesky factor, transposed."""
    steps = [step_of(alpha) for alpha in params["alphas"]]
    asked = (params["formula"], params["range_rule"], params["scale_dtype"], params["symmetric"])
    if asked != ("llm-awq", "minmax", "float32", False) or steps != list(range(20)):
        raise NotImplementedError("its own formula, range and grid alone")
    factor = np.linalg.cholesky(inputs["gram"].astype(np.float64)).T
    x = torch.from_numpy((np.sqrt(len(factor)) * factor).astype(np.float32))
    weight, mean = (torch.from_numpy(inputs[name]) for name in ("weight", "act_mean_abs"))
    tried, losses, best = search(weight, x, mean, params["bits"], params["group_size"])
    distances = [float((scales - best).abs().max()) for scales in tried]
    choice = distances.index(min(distances))
    return {"losses": np.array(losses, dtype=np.float64), "choice": np.array(choice, dtype=np.int64)}


OPS = {
    f.__name__: f for f in (pack, unpack, dequantize_packed, quantize_linear, channel_scales, search_scales)
}


def answer(request):
    if request["op"] not in OPS:
        raise NotImplementedError(request["op"])
    return OPS[request["op"]](request["params"], request["inputs"])
