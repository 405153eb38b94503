"""The package as a backend: its fast paths, held to the vectors like anyone's.

    answer     request -> outputs; `awq-ref conform --python awq_ref.vectors.backend`
    NAME, VERSION

Inputs arrive as the neutral arrays of docs/conformance.md#operations and become this package's records here. The
operations on models are in `awq_ref.vectors.backend_model`, those of the search in `awq_ref.vectors.backend_search`.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from awq_ref.checks import require_finite
from awq_ref.dtypes import F32, AnyArray, AnyFloat
from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.matmul import to_operator
from awq_ref.pack import LAYOUTS, pack_linear, unpack_linear
from awq_ref.pack.group_index import index_of, regroup
from awq_ref.quantize import choose_grid, dequantize_linear, quantize, quantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec
from awq_ref.vectors.backend_model import MODEL_OPS
from awq_ref.vectors.backend_search import SEARCH_OPS, scale_dtype, spec_of

NAME = "awq_ref"
VERSION = "1"

Params: TypeAlias = Mapping[str, Any]
Arrays: TypeAlias = Mapping[str, AnyArray]
Outputs: TypeAlias = dict[str, AnyArray]


def _require_finite(inputs: Arrays) -> None:
    """Refuse NaN and infinity in floats: the decoder itself does not look at every activation."""
    for name in ("x", "bias", "scales", "offset"):
        if name in inputs:
            require_finite("request", name, inputs[name])


def _linear(params: Params, inputs: Arrays) -> QuantizedLinear:
    """Return the linear of a request: integers, scales, zero points or offsets, groups of any columns."""
    codes, scales = inputs["int_weight"], inputs["scales"]
    _require_finite({name: inputs[name] for name in ("scales", "offset") if name in inputs})
    spec = QuantSpec(
        params["bits"], params["group_size"], params.get("symmetric", False), scale_dtype=scale_dtype(scales)
    )
    if "offset" in inputs:
        zeros = np.zeros(scales.shape, dtype=np.uint8)
        return QuantizedLinear(codes, scales, zeros, spec, offset=inputs["offset"])
    if "g_idx" not in inputs:
        return QuantizedLinear(codes, scales, inputs["zero_point"], spec)
    index = inputs["g_idx"]
    return regroup(codes, scales, inputs["zero_point"], spec, index=index, layout="request", name="g_idx")


def _unpacked(params: Params, inputs: Arrays) -> QuantizedLinear:
    layout = LAYOUTS[params["layout"]]
    if layout.scales not in inputs:
        raise FormatError(f"unpack: {layout.name} must have the tensor {layout.scales}; it is missing.")
    tensors = {name: array for name, array in inputs.items() if name not in ("x", "bias")}
    stored = inputs[layout.scales]  # or the tensor that has the scales within
    spec = QuantSpec(
        params["bits"],
        params["group_size"],
        params["symmetric"],
        scale_dtype=scale_dtype(stored) if stored.dtype.kind == "f" else layout.scale_dtypes[0],
    )
    linear = unpack_linear(tensors, spec, layout.name)
    if (linear.out_features, linear.in_features) != (params["out_features"], params["in_features"]):
        raise FormatError(
            f"unpack: the tensors must hold {params['out_features']} x {params['in_features']} codes; got "
            f"{linear.out_features} x {linear.in_features}."
        )
    return linear


def _pack(params: Params, inputs: Arrays) -> Outputs:
    tensors = pack_linear(_linear(params, inputs), params["layout"])
    if "g_idx" not in inputs:
        tensors.pop("g_idx", None)
    return tensors


def _unpack(params: Params, inputs: Arrays) -> Outputs:
    linear = _unpacked(params, inputs)
    codes = linear.int_weight
    if linear.input_order is not None:
        codes = np.empty_like(codes)
        codes[:, linear.input_order] = linear.int_weight
    outputs: Outputs = {"int_weight": codes, "scales": linear.scales}
    if linear.offset is None:
        outputs["zero_point"] = linear.zero_point
    else:
        outputs["offset"] = linear.offset
    if "g_idx" in inputs or "weight_g_idx" in inputs:
        outputs["g_idx"] = index_of(linear)
    return outputs


def _dequantized(linear: QuantizedLinear, params: Params) -> Outputs:
    return {"weight": dequantize_linear(linear).astype(params["weight_dtype"])}


def _choose_grid(params: Params, inputs: Arrays) -> Outputs:
    scales, zero_point = choose_grid(inputs["weight"], spec=spec_of(params), clip=inputs.get("clip"))
    return {"scales": scales, "zero_point": zero_point}


def _quantize(params: Params, inputs: Arrays) -> Outputs:
    scales = inputs["scales"]
    spec = QuantSpec(params["bits"], params["group_size"], scale_dtype=scale_dtype(scales))
    return {"int_weight": quantize(inputs["weight"], scales, inputs["zero_point"], spec=spec)}


def _quantize_linear(params: Params, inputs: Arrays) -> Outputs:
    linear = quantize_linear(inputs["weight"], spec=spec_of(params), clip=inputs.get("clip"))
    return {
        "scales": linear.scales,
        "zero_point": linear.zero_point,
        "int_weight": linear.int_weight,
    }


def _multiplied(linear: QuantizedLinear, inputs: Arrays) -> Outputs:
    """Multiply as the decoder does, packed; what no packed product takes becomes codes or floats by itself."""
    _require_finite(inputs)
    y: AnyFloat = to_operator(linear, "packed")(inputs["x"].astype(np.float32))
    return {"y": y + inputs["bias"] if "bias" in inputs else y}


def _activation_codes(x: F32, group: int) -> tuple[AnyArray, F32]:
    """Return int8 codes (T, n, group) and float32 scales (T, n) of activations (T, I)."""
    groups = x.reshape(len(x), -1, group)
    scales = (np.abs(groups).max(axis=2) / np.float32(127)).astype(np.float32)
    divisor = np.where(scales == 0, np.float32(1), scales)
    codes = np.clip(np.rint(groups / divisor[:, :, None]), -127, 127)
    codes[scales == 0] = 0
    return codes.astype(np.int8), scales


def _quantize_activations(params: Params, inputs: Arrays) -> Outputs:
    _require_finite(inputs)
    codes, scales = _activation_codes(inputs["x"], params["act_group_size"])
    return {"act_codes": codes.reshape(inputs["x"].shape), "act_scales": scales}


def _matmul_w4a8(params: Params, inputs: Arrays) -> Outputs:
    """Integer products of whole groups, then scales: the package's decoder has no such path of its own."""
    _require_finite(inputs)
    codes, act_scales = _activation_codes(inputs["x"], params["act_group_size"])
    n_tokens, n, size = codes.shape
    linear = _linear(params, inputs)
    repeat = n // linear.n_groups
    steps = linear.int_weight.astype(np.int32).reshape(linear.out_features, n, size)
    steps -= np.repeat(linear.zero_point.astype(np.int32), repeat, axis=1)[:, :, None]
    dots = np.einsum("ogk,tgk->tog", steps, codes.astype(np.int32))  # (T, O, n)
    scales = np.repeat(linear.scales.astype(np.float32), repeat, axis=1)  # (O, n)
    y = (dots.astype(np.float32) * scales * act_scales[:, None, :]).sum(axis=2)
    return {"y": y.reshape(n_tokens, linear.out_features)}


OPS: dict[str, Callable[[Params, Arrays], Outputs]] = {
    "pack": _pack,
    "unpack": _unpack,
    "dequantize": lambda params, inputs: _dequantized(_linear(params, inputs), params),
    "dequantize_packed": lambda params, inputs: _dequantized(_unpacked(params, inputs), params),
    "choose_grid": _choose_grid,
    "quantize": _quantize,
    "quantize_linear": _quantize_linear,
    "matmul": lambda params, inputs: _multiplied(_linear(params, inputs), inputs),
    "matmul_packed": lambda params, inputs: _multiplied(_unpacked(params, inputs), inputs),
    "quantize_activations": _quantize_activations,
    "matmul_w4a8": _matmul_w4a8,
    **SEARCH_OPS,
    **MODEL_OPS,
}


def answer(request: Mapping[str, Any]) -> Outputs:
    """Return the outputs of a request.

    Raises
    ------
    UnsupportedError
        If the operation or the layout is not known.
    ValueError, TypeError
        If the inputs are not allowed.
    """
    op, params = request["op"], request["params"]
    if op not in OPS or params.get("layout", "gemm") not in LAYOUTS:
        raise UnsupportedError(f"{op}: is no operation or layout that awq_ref has.")
    return OPS[op](params, request["inputs"])
