"""MLX on a CPU: its affine layout, its quantized product, its operators."""

from importlib.metadata import version

import mlx.core as mx
import numpy as np

NAME, VERSION = "MLX", version("mlx")


def grid(params):
    return {"group_size": params["group_size"], "bits": params["bits"]}


def require_mlx(params, inputs):
    if params["layout"] != "mlx" or not np.isfinite(inputs["scales"]).all():
        raise NotImplementedError(params["layout"])


def weight(params, inputs):
    words, scales, biases = (mx.array(inputs[n]) for n in ("weight", "scales", "biases"))
    return np.array(
        mx.dequantize(words, scales.astype(mx.float32), biases.astype(mx.float32), **grid(params))
    )


def unpack(params, inputs):
    """Its codes, as the weights under scales of 1 and biases of 0."""
    require_mlx(params, inputs)
    shape = (params["out_features"], params["in_features"] // params["group_size"])
    if inputs["scales"].shape != shape:
        raise NotImplementedError("it checks no shapes")
    plain = {"scales": np.ones(shape, dtype=np.float32), "biases": np.zeros(shape, dtype=np.float32)}
    codes = weight(params, {**inputs, **plain})
    return {"int_weight": codes.astype(np.uint8), "scales": inputs["scales"], "offset": inputs["biases"]}


def dequantize_packed(params, inputs):
    require_mlx(params, inputs)
    return {"weight": weight(params, inputs)}


def matmul_packed(params, inputs):
    require_mlx(params, inputs)
    words, scales, biases = (mx.array(inputs[n]) for n in ("weight", "scales", "biases"))
    floats = (scales.astype(mx.float32), biases.astype(mx.float32))
    y = mx.quantized_matmul(mx.array(inputs["x"]), words, *floats, transpose=True, **grid(params))
    return {"y": np.array(y)}


def rms_norm(params, inputs):
    y = mx.fast.rms_norm(mx.array(inputs["x"]), mx.array(inputs["weight"]), params["eps"])
    return {"y": np.array(y)}


def layer_norm(params, inputs):
    arrays = (mx.array(inputs[n]) for n in ("x", "weight", "bias"))
    return {"y": np.array(mx.fast.layer_norm(*arrays, params["eps"]))}


def rope(params, inputs):
    if params["rope_type"] not in ("default", "linear"):
        raise NotImplementedError("mx.fast.rope scales all frequencies alike")
    rows = []
    for row, position in zip(inputs["x"], inputs["positions"], strict=True):
        y = mx.fast.rope(
            mx.array(row)[:, None],  # (heads, 1, head_dim)
            params["rotary_dim"],
            traditional=params["pairing"] == "neighbours",
            base=params["theta"],
            scale=1.0 / params.get("factor", 1.0),
            offset=int(position),
        )
        rows.append(np.array(y)[:, 0])
    return {"y": np.stack(rows)}


def attention(params, inputs):
    if params["window"] or params["cap"]:
        raise NotImplementedError("window, cap")
    q, k, v = (mx.array(inputs[n].transpose(1, 0, 2)[None]) for n in ("q", "k", "v"))
    tokens, columns = q.shape[2], k.shape[2]
    seen = np.arange(columns)[None, :] <= np.arange(tokens)[:, None] + columns - tokens
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=params["scale"], mask=mx.array(seen))
    return {"y": np.array(y)[0].transpose(1, 0, 2)}


OPS = {
    f.__name__: f for f in (unpack, dequantize_packed, matmul_packed, rms_norm, layer_norm, rope, attention)
}


def answer(request):
    if request["op"] not in OPS:
        raise NotImplementedError(request["op"])
    return OPS[request["op"]](request["params"], request["inputs"])
