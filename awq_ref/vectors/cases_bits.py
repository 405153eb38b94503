"""Level 0: what goes into words, and what comes out of them.

SHAPES       one row for each linear that is packed and unpacked
random_words random bits in place of words
bit_cases    all cases of the level
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.addresses import PLACES, WIDTHS
from awq_ref.vectors.case import Case, Expected
from awq_ref.vectors.draws import Draws
from awq_ref.vectors.linears import Shape, draw_linear, layout_params, linear_inputs, tensor_inputs
from awq_ref.vectors.oracle_bits import Linear, Tensors, pack, unpack

SOURCE = "vectors/oracle_bits.py"
ZEROS = ("ZeroPointZero", "ZeroPointMax")

_symmetric = partial(Shape, symmetric=True)

# (layout, name, shape, flags)
SHAPES: tuple[tuple[str, str, Shape, tuple[str, ...]], ...] = (
    ("gemm", "plain", Shape(16, 64), ("Basic", "NibbleOrder", "NibbleSign", *ZEROS)),
    ("gemm", "wide", Shape(8, 96, group_size=32), ("Transposed", "ManyGroups")),
    ("gemm", "many-outputs", Shape(64, 24, group_size=8), ("NibbleOrder", "Transposed", "SmallGroup")),
    ("gemm", "odd-inputs", Shape(24, 15, group_size=5), ("OddRows", "SmallGroup")),
    ("gemm", "whole-row", Shape(16, 20, group_size=-1), ("WholeRow",)),
    ("gemm", "symmetric", Shape(8, 32, symmetric=True), ("Symmetric", "NibbleSign")),
    ("gemv", "group-32", Shape(8, 96), ("Padding", "NibbleOrder", *ZEROS)),
    ("gemv", "group-64", Shape(16, 128, group_size=64), ("Padding", "ManyGroups")),
    ("gemv", "group-128", Shape(8, 256, group_size=128), ("Padding",)),
    ("gemv", "whole-row", Shape(8, 128, group_size=-1), ("WholeRow", "Padding")),
    ("gemv_fast", "group-32", Shape(8, 128), ("Interleaved", "FloatZeros", "Padding", *ZEROS)),
    ("gemv_fast", "group-64", Shape(16, 192, group_size=64), ("Interleaved", "Transposed")),
    ("gemv_fast", "offset", Shape(8, 64, group_size=64, offset=True), ("FloatZeros",)),
    ("llm-awq", "group-128", Shape(8, 256, group_size=128), ("Interleaved", "FloatZeros", "Padding")),
    ("llm-awq", "offset", Shape(16, 128, offset=True), ("FloatZeros", "Interleaved")),
    ("gptq", "plain", Shape(16, 64), ("GptqMinusOne", "GptqBorrow", *ZEROS)),
    ("gptq", "bits-2", Shape(32, 32, bits=2, group_size=16), ("GptqMinusOne", "GptqBorrow")),
    ("gptq", "bits-3", Shape(32, 64, bits=3), ("StraddlingCode", "GptqMinusOne", *ZEROS)),
    ("gptq", "bits-8", Shape(12, 32, bits=8, group_size=16), ("GptqMinusOne", "GptqBorrow", "OddRows")),
    ("gptq", "index", Shape(8, 64, group_size=16, index=True), ("GroupIndex",)),
    ("gptq", "symmetric", Shape(8, 40, group_size=8, symmetric=True), ("Symmetric", "GptqMinusOne")),
    ("gptq_v2", "plain", Shape(16, 64), ("Basic", "Transposed", *ZEROS)),
    ("gptq_v2", "bits-3", Shape(32, 32, bits=3, group_size=-1), ("StraddlingCode", "WholeRow")),
    ("gptq_v2", "index", Shape(8, 32, group_size=8, index=True), ("GroupIndex", "SmallGroup")),
    ("pack-quantized", "plain", Shape(16, 64), ("Basic", *ZEROS)),
    ("pack-quantized", "odd", Shape(5, 39, group_size=13), ("LastWord", "OddRows")),
    ("pack-quantized", "bits-2", Shape(7, 48, bits=2, group_size=16), ("LastWord",)),
    ("pack-quantized", "bits-3", Shape(11, 40, bits=3, group_size=20), ("StraddlingCode", "LastWord")),
    ("pack-quantized", "bits-8", Shape(6, 24, bits=8, group_size=8), ("LastWord",)),
    ("pack-quantized", "symmetric", Shape(4, 32, symmetric=True), ("Symmetric",)),
    ("pack-quantized", "whole-row", Shape(9, 33, group_size=-1), ("WholeRow", "LastWord")),
    ("pack-quantized", "float32", Shape(4, 32, scale_dtype="float32"), ("Basic",)),
    ("pack-quantized", "index", Shape(8, 48, group_size=16, index=True), ("GroupIndex",)),
    ("mlx", "plain", Shape(8, 64, scale_dtype="float32"), ("FloatZeros", *ZEROS)),
    ("mlx", "offset", Shape(6, 128, group_size=64, offset=True), ("FloatZeros", "OddRows")),
    ("mlx", "bits-3", Shape(5, 64, bits=3), ("StraddlingCode",)),
    ("mlx", "bits-2", Shape(4, 64, bits=2, group_size=64, offset=True), ("FloatZeros",)),
    ("mlx", "bits-8", Shape(3, 32, bits=8, offset=True), ("FloatZeros",)),
    ("llm-awq-v1", "group-32", Shape(8, 96), ("Padding", "NibbleSign", *ZEROS)),
    ("llm-awq-v1", "group-128", Shape(16, 256, group_size=128), ("Padding", "NibbleOrder")),
    ("marlin", "groups", _symmetric(64, 256, group_size=128), ("Tiles", "Symmetric", "NibbleSign")),
    ("marlin", "one-group", _symmetric(64, 128, group_size=128), ("Tiles", "WholeRow")),
    ("marlin", "whole-row", _symmetric(128, 48, group_size=-1), ("Tiles", "Transposed", "WholeRow")),
    ("qm_arm", "plain", _symmetric(5, 96, scale_dtype="float32"), ("PairedBytes", "OddRows")),
    ("qm_arm", "signs", _symmetric(4, 64, scale_dtype="float32", signs=True), ("NegativeScale",)),
    ("qm_x86", "plain", _symmetric(3, 192, scale_dtype="float32"), ("PairedBytes", "OddRows")),
    ("qm_x86", "signs", _symmetric(4, 64, scale_dtype="float32", signs=True), ("NegativeScale",)),
    ("qm_metal", "plain", _symmetric(5, 96, scale_dtype="float32"), ("PairedBytes", "OddRows")),
    ("qm_metal", "signs", _symmetric(4, 32, scale_dtype="float32", signs=True), ("NegativeScale",)),
    ("qm_cuda", "plain", _symmetric(3, 256, group_size=128), ("Padding", "NibbleOrder", "OddRows")),
    ("qm_cuda", "nine-groups", _symmetric(2, 1152, group_size=128, signs=True), ("Padding", "NegativeScale")),
    ("matmulnbits", "plain", Shape(5, 96), ("LastWord", "OddRows", *ZEROS)),
    ("matmulnbits", "bits-2", Shape(3, 192, bits=2, group_size=64), ("LastWord", "NibbleOrder")),
    ("matmulnbits", "bits-8", Shape(4, 48, bits=8, group_size=16), ("SmallGroup",)),
    ("matmulnbits", "float32", Shape(4, 64, scale_dtype="float32"), ("ManyGroups",)),
    ("matmulnbits", "symmetric", _symmetric(4, 64), ("Symmetric",)),
    ("matmulnbits", "whole-row", Shape(3, 64, group_size=-1), ("WholeRow", "LastWord")),
)
# Where a layout cannot hold the linear that the cases of all layouts have
OWN_SHAPES: dict[str, Shape] = {
    "marlin": _symmetric(64, 128, group_size=128),
    "qm_arm": _symmetric(16, 64, scale_dtype="float32"),
    "qm_x86": _symmetric(16, 64, scale_dtype="float32"),
    "qm_metal": _symmetric(16, 64, scale_dtype="float32"),
    "qm_cuda": _symmetric(8, 256, group_size=128),
}


def _tensor_outputs(tensors: Tensors) -> dict[str, Expected]:
    return {name: Expected(array) for name, array in tensor_inputs(tensors).items()}


def _linear_outputs(linear: Linear) -> dict[str, Expected]:
    return {name: Expected(array) for name, array in linear_inputs(linear).items()}


def _unpacked(tensors: Tensors, layout: str, linear: Linear) -> Linear:
    return unpack(
        tensors,
        layout,
        outputs=linear.outputs,
        inputs=linear.inputs,
        bits=linear.bits,
        group_size=linear.group_size,
        symmetric=linear.symmetric,
    )


def _pair(layout: str, name: str, shape: Shape, flags: tuple[str, ...]) -> Iterator[Case]:
    """Yield the two directions of one linear."""
    linear = draw_linear(Draws(f"bits {layout} {name}"), shape)
    tensors, params = pack(linear, layout), layout_params(layout, linear)
    where = f"{shape.outputs} x {shape.inputs}, {shape.bits} bits, group size {shape.group_size}"
    yield Case(
        f"L0/pack/{layout}-{name}",
        params,
        linear_inputs(linear),
        _tensor_outputs(tensors),
        f"Codes to words: {where}.",
        SOURCE,
        flags,
    )
    yield Case(
        f"L0/unpack/{layout}-{name}",
        params,
        tensor_inputs(tensors),
        _linear_outputs(_unpacked(tensors, layout, linear)),
        f"Words to codes: {where}.",
        SOURCE,
        flags,
    )


def random_words(draws: Draws, dtype: str, rows: list[Any]) -> list[Any]:
    """Return random bits for words that lie as these do: in rows, or in rows of blocks."""
    if isinstance(rows[0][0], list):
        return [random_words(draws, dtype, row) for row in rows]
    words = draws.words(len(rows), len(rows[0]), WIDTHS[dtype])
    return [[w % 2 ** WIDTHS[dtype] for w in row] for row in words] if dtype.startswith("uint") else words


def _random_words(layout: str) -> Case:
    """Return a case whose words are random bits: every one is a valid file."""
    shape = OWN_SHAPES.get(layout, Shape(16, 64, offset=PLACES[layout].offset is not None))
    name = f"L0/unpack/{layout}-random-words"
    draws = Draws(name)
    linear = draw_linear(draws, shape)
    tensors = pack(linear, layout)
    for tensor, (dtype, rows) in tensors.items():
        if dtype in WIDTHS and (not shape.symmetric or tensor == PLACES[layout].weight[0]):
            tensors[tensor] = (dtype, random_words(draws, dtype, rows))
    outputs = _linear_outputs(_unpacked(tensors, layout, linear))
    comment = "Random bits in every word: each pattern is valid and has one meaning."
    return Case(
        name,
        layout_params(layout, linear),
        tensor_inputs(tensors),
        outputs,
        comment,
        SOURCE,
        ("RandomWords",),
    )


def _borrow() -> Iterator[Case]:
    """Yield the zero points 0, 5, 0, 0, ... whose words borrow in GPTQ v1."""
    codes = [[(o + i) % 16 for i in range(8)] for o in range(8)]
    zeros = [[0], [5], [0], [0], [15], [0], [1], [0]]
    linear = Linear(codes, [[1.0]] * 8, zeros, None, 4, -1)
    for op in ("pack", "unpack"):
        tensors = pack(linear, "gptq")
        packed, unpacked = tensor_inputs(tensors), linear_inputs(linear)
        inputs, outputs = (unpacked, packed) if op == "pack" else (packed, unpacked)
        yield Case(
            f"L0/{op}/gptq-borrow",
            layout_params("gptq", linear),
            inputs,
            {name: Expected(array) for name, array in outputs.items()},
            "Zero points 0 5 0 0 15 0 1 0 in one word: less 1 in every field at once, the word borrows.",
            SOURCE,
            ("GptqBorrow", "GptqMinusOne", "ZeroPointZero"),
        )


def _replaced(inputs: dict[str, AnyArray], name: str, array: Any) -> dict[str, AnyArray]:
    return {**inputs, name: array}


def _invalid() -> Iterator[Case]:
    """Yield inputs that must be refused."""
    for layout in PLACES:
        shape = OWN_SHAPES.get(layout, Shape(8, 128, group_size=64))
        linear = draw_linear(Draws(f"invalid {layout}"), shape)
        params, tensors = layout_params(layout, linear), tensor_inputs(pack(linear, layout))
        scales = PLACES[layout].scales
        broken = tensors[scales].copy()
        broken[0, 0] = np.nan
        rows = [
            ("nan-scale", _replaced(tensors, scales, broken), "A scale that is NaN.", "NotFinite"),
            (
                "short-scales",
                _replaced(tensors, scales, tensors[scales][:-1]),
                "One row of scales is missing.",
                "BadShape",
            ),
        ]
        for name, inputs, comment, flag in rows:
            yield _refused(f"unpack/{layout}-invalid-{name}", params, inputs, comment, flag)


def _refused(
    name: str, params: dict[str, Any], inputs: dict[str, AnyArray], comment: str, *flags: str
) -> Case:
    """Return a case whose inputs must be refused."""
    return Case(f"L0/{name}", params, inputs, {}, comment, SOURCE, flags)


def _invalid_codes() -> Iterator[Case]:
    linear = draw_linear(Draws("invalid codes"), Shape(8, 32, group_size=16))
    inputs, params = linear_inputs(linear), layout_params("gemm", linear)
    codes, zeros = inputs["int_weight"].copy(), inputs["zero_point"].copy()
    codes[3, 5], zeros[2, 1] = 16, 16
    broken = _replaced(inputs, "int_weight", codes)
    yield _refused("pack/gemm-invalid-code", params, broken, "The code 16 in 4 bits.", "BadCode")
    broken = _replaced(inputs, "zero_point", zeros)
    yield _refused("pack/gemm-invalid-zero", params, broken, "The zero point 16 in 4 bits.", "BadCode")


def _invalid_offset() -> Case:
    linear = draw_linear(Draws("invalid offset"), Shape(8, 128, group_size=64))
    large = np.full((8, 2), 60000.0, dtype=np.float16)
    inputs = _replaced(linear_inputs(linear), "scales", large)
    comment = "The product of scale and zero point does not fit float16."
    params = layout_params("gemv_fast", linear)
    return _refused("pack/gemv_fast-invalid-offset", params, inputs, comment, "FloatZeros", "NotFinite")


def _invalid_index() -> Case:
    linear = draw_linear(Draws("invalid codes"), Shape(8, 32, group_size=16))
    tensors = tensor_inputs(pack(replace(linear, index=[i // 16 for i in range(32)]), "gptq"))
    index = tensors["g_idx"].copy()
    index[7] = 2
    inputs, params = _replaced(tensors, "g_idx", index), layout_params("gptq", linear)
    comment = "The group 2, of two groups."
    return _refused("unpack/gptq-invalid-index", params, inputs, comment, "GroupIndex", "BadShape")


def _invalid_constant() -> Case:
    linear = draw_linear(Draws("invalid constant"), OWN_SHAPES["qm_arm"])
    inputs = tensor_inputs(pack(linear, "qm_arm"))
    broken = _replaced(inputs, "zero_point_int4", np.zeros(1, dtype=np.float32))
    comment = "A zero point of 0, which would make a file of another kind."
    return _refused(
        "unpack/qm_arm-invalid-zero-point", layout_params("qm_arm", linear), broken, comment, "Symmetric"
    )


def bit_cases() -> Iterator[Case]:
    """Yield every case of level 0."""
    for row in SHAPES:
        yield from _pair(*row)
    for layout in PLACES:
        yield _random_words(layout)
    yield from _borrow()
    yield from _invalid()
    yield from _invalid_codes()
    yield _invalid_offset()
    yield _invalid_index()
    yield _invalid_constant()
