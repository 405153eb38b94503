"""The layouts in which files keep a quantized linear: one row of LAYOUTS each.

    LAYOUTS         name -> Layout
    FOLDER_LAYOUTS  the names of those that a checkpoint folder may hold
    why_not         the reason why a layout cannot hold a linear, or None
    pack_linear     QuantizedLinear -> arrays, keyed by the end of the tensor's name
    unpack_linear   the exact inverse

A bias is no part of a layout: whoever writes the file stores it beside the tensors.
To add a layout: a module with its two functions, a row here, its golden words in the tests.
Sources: AutoAWQ ("gemm", "gemv", "gemv_fast", "marlin"); llm-awq; AutoGPTQ and GPTQModel ("gptq", "gptq_v2");
compressed-tensors ("pack-quantized"); MLX; TinyChatEngine ("qm_arm" and others); onnxruntime ("matmulnbits"); ggml
("q4_0", "q4_1", "q8_0").
"""

from collections.abc import Mapping
from functools import partial
from typing import Literal

from awq_ref.checks import require_one_of
from awq_ref.dtypes import AnyArray
from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.pack import (
    gemm,
    gemv,
    gemv_fast,
    gguf,
    gptq,
    marlin,
    matmulnbits,
    mlx,
    pack_quantized,
    tinychat_engine,
)
from awq_ref.pack.layout import Layout
from awq_ref.spec import BITS, QuantizedLinear, QuantSpec, ScaleDtype

HALF: tuple[ScaleDtype, ...] = ("float16",)


def _gemv(name: str, file: Literal["folder"] | None = "folder") -> Layout:
    """Return the row of a layout of words in sequence, padded as AutoAWQ's matrix-vector kernel reads them."""
    return Layout(
        name,
        (4,),
        gemv.tensor_names,
        partial(gemv.obstacle, name=name),
        gemv.pack,
        partial(gemv.unpack, name=name),
        scale_dtypes=HALF,
        file=file,
    )


def _qm(name: str, distance: int) -> Layout:
    """Return the row of a layout of TinyChatEngine, whose bytes hold codes so far from each other."""
    return Layout(
        name,
        (4,),
        tinychat_engine.tensor_names,
        partial(tinychat_engine.obstacle, name=name, distance=distance),
        partial(tinychat_engine.pack, distance=distance),
        partial(tinychat_engine.unpack, name=name, distance=distance),
        scales=tinychat_engine.SCALES,
        scale_dtypes=("float32",),
        symmetric_alone=True,
        file=None,
    )


def _fast(name: str, zeros: str) -> Layout:
    """Return the row of a layout of 16-bit words, whose scaled zero points go by this name."""
    return Layout(
        name,
        (4,),
        partial(gemv_fast.tensor_names, zeros=zeros),
        partial(gemv_fast.obstacle, name=name),
        partial(gemv_fast.pack, zeros=zeros),
        partial(gemv_fast.unpack, name=name, zeros=zeros),
        scale_dtypes=HALF,
        holds=("offset",),
    )


def _gptq(name: str, stored_less: int) -> Layout:
    """Return the row of a layout of GPTQ, which stores zero points less so much."""
    return Layout(
        name,
        BITS,
        gptq.tensor_names,
        partial(gptq.obstacle, name=name),
        partial(gptq.pack, stored_less=stored_less),
        partial(gptq.unpack, name=name, stored_less=stored_less),
        scale_dtypes=HALF,
        optional=("g_idx",),
        holds=("input_order",),
    )


def _gguf(name: str) -> Layout:
    """Return the row of a type of GGUF's blocks, whose scales stand within the one tensor."""
    kind = gguf.KINDS[name]
    return Layout(
        name,
        (kind.bits,),
        gguf.tensor_names,
        partial(gguf.obstacle, name=name),
        partial(gguf.pack, name=name),
        partial(gguf.unpack, name=name),
        scales="weight",
        scale_dtypes=HALF,
        symmetric_alone=not kind.offset,
        holds=("offset",) if kind.offset else (),
        file=None,
    )


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("gemm", (4,), gemm.tensor_names, gemm.obstacle, gemm.pack, gemm.unpack, scale_dtypes=HALF),
        _gemv("gemv"),
        _fast("gemv_fast", "qzeros"),
        _fast("llm-awq", "scaled_zeros"),
        _gptq("gptq", 1),
        _gptq("gptq_v2", 0),
        Layout(
            "pack-quantized",
            BITS,
            pack_quantized.tensor_names,
            pack_quantized.obstacle,
            pack_quantized.pack,
            pack_quantized.unpack,
            scales="weight_scale",
            optional=("weight_g_idx",),
            holds=("input_order",),
        ),
        Layout("mlx", BITS, mlx.tensor_names, mlx.obstacle, mlx.pack, mlx.unpack, holds=("offset",)),
        _gemv("llm-awq-v1", file=None),
        Layout(
            "marlin",
            (4,),
            marlin.tensor_names,
            marlin.obstacle,
            marlin.pack,
            marlin.unpack,
            scale_dtypes=HALF,
            symmetric_alone=True,
            file=None,
        ),
        _qm("qm_arm", 16),
        _qm("qm_x86", 32),
        _qm("qm_metal", 4),
        Layout(
            "qm_cuda",
            (4,),
            tinychat_engine.tensor_names,
            tinychat_engine.obstacle_cuda,
            tinychat_engine.pack_cuda,
            tinychat_engine.unpack_cuda,
            scales=tinychat_engine.SCALES,
            scale_dtypes=HALF,
            symmetric_alone=True,
            file=None,
        ),
        Layout(
            "matmulnbits",
            (2, 4, 8),
            matmulnbits.tensor_names,
            matmulnbits.obstacle,
            matmulnbits.pack,
            matmulnbits.unpack,
            file=None,
        ),
        *map(_gguf, gguf.KINDS),
    )
}
FOLDER_LAYOUTS = tuple(name for name, row in LAYOUTS.items() if row.file == "folder")


def why_not(layout: str, out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return the reason why a layout cannot hold a linear of this size, or None if it can.

    Raises
    ------
    RangeError
        If layout is not a key of LAYOUTS.
    """
    require_one_of("why_not", "layout", layout, LAYOUTS)
    return LAYOUTS[layout].why_not(out_features, in_features, spec)


def pack_linear(linear: QuantizedLinear, layout: str) -> dict[str, AnyArray]:
    """Return the tensors that keep a quantized linear in a file.

    Parameters
    ----------
    linear : QuantizedLinear
        Its bias is left out.
    layout : str
        A key of LAYOUTS.

    Returns
    -------
    tensors : dict of str to array
        Keyed by the end of the tensor's name, as docs/layouts.md lists them; gemm: qweight int32 (in, out / 8), qzeros
        int32 (n_groups, out / 8), scales float16 (n_groups, out).

    Raises
    ------
    RangeError
        If layout is not a key of LAYOUTS.
    UnsupportedError
        If the layout cannot hold this linear, or has no place for its offset or the order of its inputs; the message
        says why.
    FormatError
        If a symmetric linear has a zero point other than 2**(bits-1).
    """
    who = "pack_linear"
    require_one_of(who, "layout", layout, LAYOUTS)
    reason = LAYOUTS[layout].why_not(linear.out_features, linear.in_features, linear.spec)
    if reason is not None:
        raise UnsupportedError(
            f"{who}: the layout must be able to hold the linear; {reason}. Try another layout."
        )
    field = LAYOUTS[layout].no_place_for(linear)
    if field is not None:
        raise UnsupportedError(
            f"{who}: {layout} has no place for the {field} of a linear. Try a layout that has it, or quantize anew."
        )
    middle = linear.spec.symmetric_zero_point
    if linear.spec.symmetric and linear.offset is None and (linear.zero_point != middle).any():
        raise FormatError(
            f"{who}: a symmetric linear must have the zero point {middle}; "
            f"got {linear.zero_point.min()} to {linear.zero_point.max()}. Describe it as asymmetric."
        )
    return LAYOUTS[layout].pack(linear)


def unpack_linear(tensors: Mapping[str, AnyArray], spec: QuantSpec, layout: str) -> QuantizedLinear:
    """Return the quantized linear that a file's tensors hold: the inverse of `pack_linear`, bit for bit.

    Parameters
    ----------
    tensors : mapping of str to array
        Keyed by the end of the tensor's name, as `pack_linear` returns them.
    spec : QuantSpec
        From the file's configuration; scale_dtype is the dtype of the scales given.
    layout : str
        A key of LAYOUTS.

    Returns
    -------
    linear : QuantizedLinear
        Without a bias.

    Raises
    ------
    RangeError
        If layout is not a key of LAYOUTS.
    FormatError
        If a tensor is missing or unknown to the layout, has a wrong dtype or shape, or holds values that the
        configuration excludes; the tensor is named.
    """
    who = "unpack_linear"
    require_one_of(who, "layout", layout, LAYOUTS)
    row = LAYOUTS[layout]
    if spec.bits not in row.bits:
        raise FormatError(f"{who}: {layout} must have {row.widths} bits; got {spec.bits}.")
    if row.symmetric_alone and not spec.symmetric:
        raise FormatError(f"{who}: {layout} stores no zero points; the spec must say symmetric=True.")
    names = row.tensor_names(spec)
    missing = sorted(set(names) - set(tensors))
    unknown = sorted(set(tensors) - set(names) - set(row.optional))
    if missing or unknown:
        raise FormatError(
            f"{who}: {layout} must have the tensors {', '.join(names)}; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}. Check the configuration's bits, symmetric and format."
        )
    return row.unpack(tensors, spec)
