"""compressed-tensors: its packer, its decompressor, and its converter of AutoAWQ's gemm, as a backend."""

from importlib.metadata import version

import numpy as np
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

NAME, VERSION = "compressed-tensors", version("compressed-tensors")


def signed(codes, bits):
    return torch.from_numpy(codes.astype(np.int16) - 2 ** (bits - 1)).to(torch.int8)


def unsigned(codes, bits):
    return (codes.to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8).numpy()


def pack(params, inputs):
    if params["layout"] != "pack-quantized":
        raise NotImplementedError(params["layout"])
    bits = params["bits"]
    tensors = {
        "weight_packed": pack_to_int32(signed(inputs["int_weight"], bits), bits).numpy(),
        "weight_scale": inputs["scales"],
        "weight_shape": np.array(inputs["int_weight"].shape, dtype=np.int64),
    }
    if not params["symmetric"]:
        zeros = pack_to_int32(signed(inputs["zero_point"], bits), bits, packed_dim=0)
        tensors["weight_zero_point"] = zeros.contiguous().numpy()
    if "g_idx" in inputs:
        tensors["weight_g_idx"] = inputs["g_idx"]
    return tensors


def unpack_gemm(params, inputs):
    if not np.isfinite(inputs["scales"]).all() or len(inputs["scales"]) != len(inputs["qzeros"]):
        raise NotImplementedError("it checks no values")
    qweight, scales, qzeros = (torch.from_numpy(inputs[n]) for n in ("qweight", "scales", "qzeros"))
    converter = AutoAWQConverter(group_size=params["group_size"])
    codes, scales, zeros = converter._convert_gemm_module(qweight, scales, qzeros)
    return {
        "int_weight": unsigned(codes, 4),
        "scales": scales.numpy(),
        "zero_point": unsigned(zeros, 4),
    }


def unpack(params, inputs):
    if params["layout"] == "gemm":
        return unpack_gemm(params, inputs)
    if params["layout"] != "pack-quantized" or "nan" in str(inputs["weight_scale"].max()):
        raise NotImplementedError(params["layout"])
    bits, shape = params["bits"], torch.Size((params["out_features"], params["in_features"]))
    scales = inputs["weight_scale"]
    if len(scales) != shape[0]:
        raise NotImplementedError("it checks no shapes of scales")
    codes = unpack_from_int32(torch.from_numpy(inputs["weight_packed"]), bits, shape)
    outputs = {"int_weight": unsigned(codes, bits), "scales": scales}
    if params["symmetric"]:
        outputs["zero_point"] = np.full(scales.shape, 2 ** (bits - 1), dtype=np.uint8)
    else:
        words = torch.from_numpy(inputs["weight_zero_point"])
        zeros = unpack_from_int32(words, bits, torch.Size(scales.shape), packed_dim=0)
        outputs["zero_point"] = unsigned(zeros, bits)
    if "weight_g_idx" in inputs:
        outputs["g_idx"] = inputs["weight_g_idx"]
    return outputs


def dequantize_packed(params, inputs):
    if params["layout"] != "pack-quantized" or "weight_g_idx" in inputs:
        raise NotImplementedError(params["layout"])
    arguments = QuantizationArgs(
        num_bits=params["bits"],
        symmetric=params["symmetric"],
        strategy="group",
        group_size=params["group_size"],
    )
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    tensors["weight_scale"] = tensors["weight_scale"].float()
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    return {"weight": PackedQuantizationCompressor.decompress(tensors, scheme)["weight"].numpy()}


OPS = {f.__name__: f for f in (pack, unpack, dequantize_packed)}


def answer(request):
    if request["op"] not in OPS:
        raise NotImplementedError(request["op"])
    return OPS[request["op"]](request["params"], request["inputs"])
