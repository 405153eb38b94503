"""Level 1: what the codes mean.

dequantize_cases   all cases of the level
"""

from collections.abc import Iterator
from fractions import Fraction

from awq_ref.vectors.case import Case, Expected, exact, within_bound
from awq_ref.vectors.draws import Draws
from awq_ref.vectors.linears import Shape, draw_linear, layout_params, linear_inputs, tensor_inputs
from awq_ref.vectors.oracle_bits import Linear, offsets_of, pack
from awq_ref.vectors.oracle_quantize import weight_of
from awq_ref.vectors.rounding import FORMATS

SOURCE = "vectors/oracle_quantize.py"
UNITS = {"float16": (2.0**-11, 2.0**-25), "float32": (2.0**-24, 2.0**-150)}  # of the result, and below normal
WHY = (
    "u (|q s| + |q s + o|) and half the smallest number, twice: admits a fused multiply-add and two roundings"
)

# (name, shape, dtype of the weight, flags)
SHAPES: tuple[tuple[str, Shape, str, tuple[str, ...]], ...] = (
    ("plain", Shape(8, 64), "float32", ("Basic", "ZeroPointZero", "ZeroPointMax", "ManyGroups")),
    ("bits-2", Shape(4, 32, bits=2, group_size=8), "float32", ("ManyGroups",)),
    ("bits-3", Shape(5, 48, bits=3, group_size=16), "float32", ("OddRows", "ManyGroups")),
    ("bits-8", Shape(4, 32, bits=8, group_size=16), "float32", ("ManyGroups",)),
    ("symmetric", Shape(6, 32, symmetric=True), "float32", ("Symmetric",)),
    ("whole-row", Shape(3, 40, group_size=-1), "float32", ("WholeRow", "OddRows")),
    ("float32-scales", Shape(4, 64, scale_dtype="float32"), "float32", ("Basic",)),
    ("float16", Shape(8, 64, group_size=16), "float16", ("Float16Result", "ManyGroups")),
    ("index", Shape(4, 64, group_size=16, index=True), "float32", ("GroupIndex",)),
    ("offset", Shape(8, 64, offset=True), "float32", ("FloatZeros",)),
    ("offset-float16", Shape(8, 64, group_size=64, offset=True), "float16", ("FloatZeros", "Float16Result")),
)
# (layout, shape)
PACKED: tuple[tuple[str, Shape], ...] = (
    ("gemm", Shape(16, 64)),
    ("gemv", Shape(8, 64)),
    ("gemv_fast", Shape(8, 128)),
    ("llm-awq", Shape(8, 128, group_size=64)),
    ("gptq", Shape(16, 64, index=True)),
    ("gptq_v2", Shape(32, 64, bits=3)),
    ("pack-quantized", Shape(9, 40, bits=3, group_size=8)),
    ("mlx", Shape(6, 64, scale_dtype="float32")),
)


def dequantized(linear: Linear, dtype: str) -> Expected:
    """Return the weights that a linear stands for."""
    pairs = [[weight_of(linear, o, i) for i in range(linear.inputs)] for o in range(linear.outputs)]
    if linear.offsets is None:
        rounded = FORMATS[dtype]
        return exact([[float(rounded(product)) for product, _ in row] for row in pairs], dtype)
    unit, tiny = UNITS[dtype]
    values = [[float(product + offset) for product, offset in row] for row in pairs]
    bounds = [
        [
            unit * (abs(float(product)) + abs(float(product + offset))) * (1 + 2 * unit) + 2 * tiny
            for product, offset in row
        ]
        for row in pairs
    ]
    return within_bound(values, bounds, WHY)


def _params(linear: Linear, dtype: str) -> dict[str, object]:
    return {"bits": linear.bits, "group_size": linear.group_size, "weight_dtype": dtype}


def _special(name: str, scales: list[float], dtype: str, flags: tuple[str, ...], comment: str) -> Case:
    """Return a case of all 16 codes under given scales, one group a row."""
    linear = Linear(
        [list(range(16))] * len(scales),
        [[s] for s in scales],
        [[z % 16] for z in range(7, 7 + len(scales))],
        None,
        4,
        16,
    )
    outputs = {"weight": dequantized(linear, dtype)}
    return Case(
        f"L1/dequantize/{name}",
        _params(linear, dtype),
        linear_inputs(linear),
        outputs,
        comment,
        SOURCE,
        flags,
    )


def _with_stored_offsets(linear: Linear, layout: str) -> Linear:
    """Return what the layout's tensors mean: stored products in place of zero points, where it has them."""
    if layout not in ("gemv_fast", "llm-awq", "mlx"):
        return linear
    offsets = offsets_of(linear)
    return Linear(
        linear.codes, linear.scales, None, offsets, linear.bits, linear.group_size, linear.scale_dtype
    )


def _packed(layout: str, shape: Shape) -> Case:
    name = f"L1/dequantize_packed/{layout}"
    linear = draw_linear(Draws(name), shape)
    params = {**layout_params(layout, linear), "weight_dtype": "float32"}
    outputs = {"weight": dequantized(_with_stored_offsets(linear, layout), "float32")}
    comment = "From the words to the weights in one step."
    flags = ("Transposed", "NibbleOrder", "ZeroPointZero", "ZeroPointMax", "ManyGroups")
    return Case(name, params, tensor_inputs(pack(linear, layout)), outputs, comment, SOURCE, flags)


def _invalid() -> Iterator[Case]:
    """Yield inputs that must be refused."""
    linear = draw_linear(Draws("dequantize invalid"), Shape(3, 16, group_size=8))
    rows = (("code", "int_weight", 16, "BadCode"), ("zero", "zero_point", 16, "BadCode"))
    for name, array, value, flag in (*rows, ("nan-scale", "scales", float("nan"), "NotFinite")):
        inputs = linear_inputs(linear)
        inputs[array] = inputs[array].copy()
        inputs[array][1, 1] = value
        params = _params(linear, "float32")
        comment = f"One element of {array} is {value}."
        yield Case(f"L1/dequantize/invalid-{name}", params, inputs, {}, comment, SOURCE, (flag,))


def dequantize_cases() -> Iterator[Case]:
    """Yield every case of level 1."""
    for name, shape, dtype, flags in SHAPES:
        linear = draw_linear(Draws(f"dequantize {name}"), shape)
        outputs = {"weight": dequantized(linear, dtype)}
        comment = f"{shape.bits} bits, group size {shape.group_size}; the last group's scale is 8 times the others'."
        yield Case(
            f"L1/dequantize/{name}",
            _params(linear, dtype),
            linear_inputs(linear),
            outputs,
            comment,
            SOURCE,
            flags,
        )
    tiny = [float(Fraction(n, 2**24)) for n in (1, 3, 11, 1023, 1025)]
    subnormal = ("ScaleSubnormal",)
    yield _special("subnormal-scales", tiny, "float32", subnormal, "Scales below 2^-14 are numbers too.")
    yield _special(
        "subnormal-float16",
        tiny,
        "float16",
        (*subnormal, "Float16Result"),
        "The weights are subnormal as well.",
    )
    yield _special("largest-scale", [65504.0, 4096.0], "float32", ("Basic",), "The largest scale of float16.")
    for row in PACKED:
        yield _packed(*row)
    yield from _invalid()
