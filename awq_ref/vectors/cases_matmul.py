"""Level 3: activations times quantized weights.

matmul_cases   all cases of the level
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.case import Case, Expected, exact, within_bound
from awq_ref.vectors.draws import Draws, Table
from awq_ref.vectors.linears import Shape, draw_linear, layout_params, linear_inputs, tensor_inputs
from awq_ref.vectors.oracle_bits import Linear, offsets_of, pack
from awq_ref.vectors.oracle_matmul import WHY, activation_codes, multiply, multiply_w4a8

SOURCE = "vectors/oracle_matmul.py"
MARGIN = Fraction(1, 2**12)


@dataclass(frozen=True)
class Product:
    """One product: tokens, the linear, how it is computed, and what is special about x."""

    name: str
    tokens: int
    shape: Shape
    flags: tuple[str, ...]
    precision: str = "float32"
    bias: bool = False
    x: str = "plain"


PRODUCTS: tuple[Product, ...] = (
    Product("one-token", 1, Shape(8, 64), ("Basic", "LastGroup")),
    Product("batch", 5, Shape(12, 64), ("Batch", "Transposed", "LastGroup")),
    Product("bias", 2, Shape(6, 32), ("Bias",), bias=True),
    Product("many-tokens", 33, Shape(5, 32, group_size=16), ("Batch",)),
    Product("bits-2", 2, Shape(7, 64, bits=2), ("Basic", "OddRows")),
    Product("bits-3", 2, Shape(7, 64, bits=3), ("Basic", "OddRows")),
    Product("bits-8", 2, Shape(4, 64, bits=8), ("Basic",)),
    Product("symmetric", 2, Shape(8, 64, symmetric=True), ("Symmetric",)),
    Product("whole-row", 2, Shape(5, 40, group_size=-1), ("WholeRow",)),
    Product("small-groups", 2, Shape(4, 32, group_size=4), ("SmallGroup", "ManyGroups")),
    Product("offset", 3, Shape(8, 64, offset=True), ("FloatZeros",)),
    Product("index", 2, Shape(8, 64, group_size=16, index=True), ("GroupIndex",)),
    Product("cancellation", 2, Shape(8, 64), ("Cancellation",), x="cancelling"),
    Product("long-sum", 1, Shape(3, 2048, group_size=128), ("LongSum",), x="large"),
    Product("float16-weights", 3, Shape(8, 64), ("Float16Result",), precision="float16_weights"),
    Product("float16", 3, Shape(8, 64), ("HalfAccumulate",), precision="float16"),
    Product("float16-one-token", 1, Shape(6, 32), ("HalfAccumulate",), precision="float16", bias=True),
)
PACKED: tuple[tuple[str, Shape], ...] = (
    ("gemm", Shape(16, 96)),
    ("gemv", Shape(8, 64)),
    ("gemv_fast", Shape(8, 128)),
    ("llm-awq", Shape(8, 128, group_size=64)),
    ("gptq", Shape(16, 64)),
    ("gptq_v2", Shape(32, 64, bits=3)),
    ("pack-quantized", Shape(9, 48, group_size=16)),
    ("mlx", Shape(6, 64)),
)


def draw_x(draws: Draws, kind: str, tokens: int, inputs: int, *, half: bool) -> Table:
    """Return activations: plain, nearly cancelling in pairs, or so large that float16 sums overflow."""
    draw = draws.halves if half else draws.floats
    if kind == "large":
        return [[abs(value) * 64.0 for value in row] for row in draw(tokens, inputs)]
    x = draw(tokens, inputs)
    if kind == "cancelling":
        for row in x:
            row[1::2] = [-value for value in row[::2]]
    return x


def _product_case(product: Product) -> Case:
    name = f"L3/matmul/{product.name}"
    draws, half = Draws(name), product.precision != "float32"
    linear = draw_linear(draws, product.shape)
    x = draw_x(draws, product.x, product.tokens, product.shape.inputs, half=half)
    bias = draws.halves(1, linear.outputs)[0] if product.bias else None
    y, bound = multiply(x, linear, bias, product.precision)
    inputs: dict[str, AnyArray] = {
        "x": np.array(x, dtype=np.float16 if half else np.float32),
        **linear_inputs(linear),
    }
    if bias is not None:
        inputs["bias"] = np.array(bias, dtype=np.float32)
    params = {"bits": linear.bits, "group_size": linear.group_size, "precision": product.precision}
    comment = (
        f"{product.tokens} tokens, {linear.outputs} x {linear.inputs}, {linear.bits} bits; x {product.x}."
    )
    outputs = {"y": within_bound(y, bound, WHY[product.precision])}
    return Case(name, params, inputs, outputs, comment, SOURCE, product.flags)


def _packed_case(layout: str, shape: Shape) -> Case:
    name = f"L3/matmul_packed/{layout}"
    draws = Draws(name)
    linear = draw_linear(draws, shape)
    x = draws.floats(3, shape.inputs)
    tensors = pack(linear, layout)
    meant = linear
    if layout in ("gemv_fast", "llm-awq", "mlx"):
        meant = Linear(linear.codes, linear.scales, None, offsets_of(linear), linear.bits, linear.group_size)
    y, bound = multiply(x, meant, None, "float32")
    inputs = {"x": np.array(x, dtype=np.float32), **tensor_inputs(tensors)}
    params = {**layout_params(layout, linear), "precision": "float32"}
    outputs: dict[str, Expected] = {"y": within_bound(y, bound, WHY["float32"])}
    flags = ("NibbleOrder", "Transposed", "LastGroup", "ZeroPointZero", "ZeroPointMax")
    return Case(name, params, inputs, outputs, "Straight from the words of a file.", SOURCE, flags)


def _draw_activations(name: str, tokens: int, inputs: int, size: int) -> Table:
    """Return activations whose quotients keep their distance from ties; token 0 begins with a group of zeros."""
    for attempt in range(1000):
        draws = Draws(f"{name} {attempt}")
        x = draws.floats(tokens, inputs)
        x[0][:size] = [0.0] * size
        if activation_codes(x, size)[2] >= MARGIN:
            return x
    raise AssertionError(f"{name}: no draw keeps its distance from ties")


def _activation_cases() -> Iterator[Case]:
    for tokens, inputs, size in ((2, 64, 32), (3, 48, 16), (1, 128, 128)):
        name = f"L3/quantize_activations/group-{size}"
        x = _draw_activations(name, tokens, inputs, size)
        codes, scales, _ = activation_codes(x, size)
        yield Case(
            name,
            {"act_group_size": size},
            {"x": np.array(x, dtype=np.float32)},
            {"act_codes": exact(codes, "int8"), "act_scales": exact(scales, "float32")},
            "int8 activations by group, no quotient within 2^-12 of a tie; the first group is zero.",
            SOURCE,
            ("ActivationGroups", "ActivationZero"),
        )
    ties = [[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]]
    codes, scales, _ = activation_codes(ties, 8)
    yield Case(
        "L3/quantize_activations/ties",
        {"act_group_size": 8},
        {"x": np.array(ties, dtype=np.float32)},
        {"act_codes": exact(codes, "int8"), "act_scales": exact(scales, "float32")},
        "The scale is 1: halves go to the even code.",
        SOURCE,
        ("RoundingTie", "ActivationGroups"),
    )


def _subnormal_activations() -> Case:
    """Return activations so small that their scale is the smallest float32, and a quotient leaves int8."""
    x = [[190 * 2.0**-149, -190 * 2.0**-149, 100 * 2.0**-149, 0.0]]
    codes, scales, _ = activation_codes(x, 4)
    return Case(
        "L3/quantize_activations/subnormal",
        {"act_group_size": 4},
        {"x": np.array(x, dtype=np.float32)},
        {"act_codes": exact(codes, "int8"), "act_scales": exact(scales, "float32")},
        "190 / 127 is stored as 1, so 190 would be a code; it is held to 127.",
        SOURCE,
        ("ActivationGroups", "ScaleSubnormal"),
    )


def _invalid() -> Iterator[Case]:
    """Yield inputs that must be refused."""
    linear = draw_linear(Draws("matmul invalid"), Shape(4, 32))
    x, bias = np.ones((2, 32), dtype=np.float32), np.zeros(4, dtype=np.float32)
    for name, array, value in (("nan-x", "x", np.nan), ("inf-x", "x", np.inf), ("nan-bias", "bias", np.nan)):
        inputs = {"x": x, **linear_inputs(linear), "bias": bias}
        inputs[array] = inputs[array].copy()
        inputs[array].reshape(-1)[3] = value
        params = {"bits": 4, "group_size": 32, "precision": "float32"}
        comment = f"One element of {array} is {value}."
        yield Case(f"L3/matmul/invalid-{name}", params, inputs, {}, comment, SOURCE, ("NotFinite",))
    broken = x.copy()
    broken[1, 30] = np.nan
    name, comment = "L3/quantize_activations/invalid-nan", "A NaN has no code."
    yield Case(name, {"act_group_size": 16}, {"x": broken}, {}, comment, SOURCE, ("NotFinite",))


def _w4a8_cases() -> Iterator[Case]:
    rows = (
        ("tinychat", 2, Shape(8, 128, group_size=32, symmetric=True), 32),
        ("zero-points", 2, Shape(6, 128, group_size=64), 32),
        ("one-token", 1, Shape(8, 128, group_size=128), 128),
        ("bits-8", 3, Shape(5, 64, bits=8, group_size=32), 16),
    )
    for short, tokens, shape, size in rows:
        name = f"L3/matmul_w4a8/{short}"
        linear = draw_linear(Draws(name), shape)
        x = _draw_activations(name, tokens, shape.inputs, size)
        y, bound = multiply_w4a8(x, linear, size)
        params = {"bits": linear.bits, "group_size": linear.group_size, "act_group_size": size}
        inputs = {"x": np.array(x, dtype=np.float32), **linear_inputs(linear)}
        flags = ("ActivationGroups", "ActivationZero", "LastGroup", "Batch")
        comment = f"Integer sums over {size} inputs, weights in groups of {shape.group_size}."
        yield Case(name, params, inputs, {"y": within_bound(y, bound, WHY["w4a8"])}, comment, SOURCE, flags)


def matmul_cases() -> Iterator[Case]:
    """Yield every case of level 3."""
    for product in PRODUCTS:
        yield _product_case(product)
    for row in PACKED:
        yield _packed_case(*row)
    yield from _activation_cases()
    yield _subnormal_activations()
    yield from _w4a8_cases()
    yield from _invalid()
