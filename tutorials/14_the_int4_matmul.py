# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 14 The int4 matmul, a ladder
#
# **Question.** A weight of 4 bits is an eighth of a float32. Is a product with it eight times as fast, and if not, where
# does the time go?

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

from awq_ref import QuantSpec
from awq_ref.matmul import (
    DenseLinear,
    PackedLinear,
    block_size,
    matmul_reference,
    pack_planes,
    packed_matmul_reference,
)
from awq_ref.matmul.columns import nest_activations, pack_columns
from awq_ref.paper.machine import measure_machine, median_seconds
from awq_ref.paper.output import STYLE
from awq_ref.quantize import dequantize_linear, quantize_linear
from awq_ref.threads import blas_on_one_thread, default_threads
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
q, delta, z = np.array([3, 15, 8, 0]), 0.5, 8  # one group of four codes, its step and zero point
x = np.array([1.0, -2.0, 4.0, 0.5])
print("dequantize, multiply, add:  ", np.sum((q - z) * delta * x))
print("q x first, then step and z: ", delta * (np.sum(q * x) - z * np.sum(x)))

# %% [markdown]
# The same number, by another road: on the second one weights are never dequantized. What is left in the inner loop is
# code times activation; step and zero point come once per group, and sum(x) once per token, whatever the number of
# rows. And delta z is the same for every token: the package multiplies it out once, when it packs a layer, so that the
# zero points of all groups cost one small product.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-10](../docs/equations.md#awq-10) | y = sum over groups of delta (q x - z sum x) | `scales.astype(np.float32) * (dots - zero_point * x_sums)` | [packed_matmul_reference](../awq_ref/matmul/reference.py) |
# | [AWQ-10](../docs/equations.md#awq-10) | a field of a plane: shift and AND | `(plane >> (field_bits * k)) & (2**field_bits - 1)` | [packed_matmul_reference](../awq_ref/matmul/reference.py) |
# | [AWQ-11](../docs/equations.md#awq-11) | the lower field by an AND; the whole byte as it is | `np.bitwise_and(part, masks, out=lower)` | [multiply_factored](../awq_ref/matmul/tiles.py) |
# | [AWQ-11](../docs/equations.md#awq-11) | factors c_k in place of x_k | `c[:, :, :-1] -= c[:, :, 1:]` | [nest_activations](../awq_ref/matmul/columns.py) |
# | [AWQ-10](../docs/equations.md#awq-10) | minus delta z, once per layer | `shift: F32 = scales * -zero_point.astype(np.float32)` | [shift_of](../awq_ref/matmul/columns.py) |
# | [AWQ-10](../docs/equations.md#awq-10) | times sum(x), added to all outputs at once | `y += np.matmul(x_sums, weight.shift)` | [apply_grid](../awq_ref/matmul/tiles.py) |
#
# The lines of AWQ-11 are a trick of this package. A byte holds q0 + 16 q1. Instead of cutting out q1, which takes a shift or a
# second AND, it multiplies the whole byte by x1 / 16 and takes what is too much out of the factor of q0:

# %%
byte, x0, x1 = 0x5C, 2.0, -3.0  # q0 = 12, q1 = 5
low = byte & 15
print(
    "q0 x0 + q1 x1 =",
    12 * x0 + 5 * x1,
    "  low (x0 - x1 / 16) + byte x1 / 16 =",
    low * (x0 - x1 / 16) + byte * x1 / 16,
)
(plane,) = pack_columns(np.array([[12, 5]], dtype=np.uint8), 4, n_groups=1, n_tiles=1)
print("the package's byte:", hex(plane.item()))
assert plane.item() == byte

# %% [markdown]
# ## The effect, seen
#
# One layer, one token, the ladder from a loop in Python to the package's product. Every rung computes the same numbers,
# and that is asserted; the times are shown, and differ from machine to machine.

# %%
ROWS, COLUMNS = 2048, 2048
rng = np.random.default_rng(14)
weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32) * np.float32(0.02)
linear = quantize_linear(weight, spec=QuantSpec(bits=4, group_size=128))
x = rng.standard_normal((1, COLUMNS)).astype(np.float32)


def one_row_in_python():
    """Multiply one row, code by code."""
    total, row, inputs = 0.0, linear.int_weight[0].tolist(), x[0].tolist()
    scales, zeros = linear.scales[0].tolist(), linear.zero_point[0].tolist()
    for i, code in enumerate(row):
        total += (code - zeros[i // 128]) * scales[i // 128] * inputs[i]
    return total


def factored(x):
    """Multiply with zero points outside of the sum; a byte for every code."""
    groups = linear.int_weight.reshape(ROWS, -1, 128).astype(np.float32)
    dots = np.einsum("ogk,gk->og", groups, x.reshape(-1, 128))
    terms = linear.scales.astype(np.float32) * (dots - linear.zero_point * x.reshape(-1, 128).sum(axis=1))
    return terms.sum(axis=1)[None]


planes = pack_planes(linear.int_weight, 4)
grid = linear.scales, linear.zero_point
dense = DenseLinear(dequantize_linear(linear), None)
one = PackedLinear.from_quantized(linear, n_threads=1)
many = PackedLinear.from_quantized(linear, n_threads=max(2, default_threads()))
on_disk = 3 * linear.scales.size  # a float16 step and a byte for the zero point, per group
half, whole = weight.size // 2 + on_disk, weight.size + on_disk
held = one.resident_bytes  # steps as float32, and delta z beside them: 9 bytes per group
rungs = {
    "dequantize, then multiply": (lambda: matmul_reference(x, linear), whole),
    "factored, a byte per code": (lambda: factored(x), whole),
    "planes: AND and shift": (lambda: packed_matmul_reference(x, planes, *grid, 4), half),
    "columns, whole bytes": (lambda: one(x), held),
    f"{many.n_threads} threads": (lambda: many(x), held),
    "float32, BLAS": (lambda: dense(x), weight.nbytes),
}
exact = matmul_reference(x, linear, dtype=np.float64)
size = np.abs(exact).max()
for name, (call, _) in rungs.items():
    assert np.abs(call() - exact).max() < 1e-5 * size, name
assert abs(one_row_in_python() - exact[0, 0]) < 1e-5 * size

(loop,) = median_seconds([one_row_in_python])
seconds = [loop * ROWS, *median_seconds([call for call, _ in rungs.values()])]
names = ["Python, code by code", *rungs]
n_bytes = [whole, *(size_in_bytes for _, size_in_bytes in rungs.values())]
machine = measure_machine(n_bytes=2**27, size=1024)
for name, time, read in zip(names, seconds, n_bytes, strict=True):
    print(f"{name:26} {1e3 * time:9.2f} ms   {read / time / 1e9:7.3f} GB/s of weights")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
places = np.arange(len(names))
left.barh(places, [1e3 * time for time in seconds], color=[f"C{i}" for i in places])
left.set(xscale="log", xlabel="ms for one token", title=f"{ROWS} x {COLUMNS}, groups of 128")
left.set_yticks(places, names, fontsize=8)
left.invert_yaxis()
intensity = np.geomspace(0.2, 200, 100)
right.loglog(intensity, [machine.attainable(i) / 1e9 for i in intensity], color="0.3")
flops = 2 * ROWS * COLUMNS
for i, (time, read) in enumerate(zip(seconds, n_bytes, strict=True)):
    right.plot(flops / read, flops / time / 1e9, "o", color=f"C{i}")
right.axvline(machine.ridge, color="0.7", lw=1, ls=":")
_ = right.set(xlabel="FLOP per byte of weights", ylabel="GFLOP/s", title="The roof of this machine")

# %% [markdown]
# The roofline (right): the slanted roof is what memory can deliver, the flat one what the arithmetic units can do. With
# one token every weight is used once, so float32 weights stand at 0.5 FLOP per byte, far left: memory is the limit,
# and BLAS reaches it (a point above the roof was read from a cache, not from memory). Codes of 4 bits move the point to
# the right, where the roof is seven times as high (eight times, but for what each group keeps beside its codes), and the
# product stays far below it: NumPy has no instruction that multiplies nibbles, so every code becomes a float first.
# That is what a kernel in C or CUDA spares (chapter 17). What remains here is the memory: a seventh.
#
# ## Predict, then run
#
# The factored product adds the same numbers in another order. **Before you run the next cell:** is its result equal to
# that of dequantize-then-multiply, bit for bit? And which of the two is nearer to the exact sum?

# %%
tokens = rng.standard_normal((8, COLUMNS)).astype(np.float32)
truth = matmul_reference(tokens, linear, dtype=np.float64)
for name, y in (("dequantized", matmul_reference(tokens, linear)), ("packed", one(tokens))):
    print(f"{name:12} off by {np.abs(y - truth).max() / np.abs(truth).max():.1e} of the largest output")
assert not np.array_equal(one(tokens), matmul_reference(tokens, linear))
assert np.abs(one(tokens) - truth).max() < 1e-5 * np.abs(truth).max()

# %% [markdown]
# Not equal, and neither is *the* right one. So a kernel is never compared bit for bit with another, but with a bound
# that follows from the equation ([P-MATMUL](../docs/equations.md#p-matmul)): here about 1e-6.
#
# ## Break it
#
# The zero point comes out of the sum with sum(x) *of its group*. Take the sum of all of x, and test with symmetric
# weights of mean 0, as many do:


# %%
def factored_wrongly(x, layer, wrong=True):
    """Multiply with one sum of x for all groups."""
    rows, size = layer.out_features, layer.group_size
    dots = np.einsum(
        "ogk,tgk->tog",
        layer.int_weight.reshape(rows, -1, size).astype(np.float32),
        x.reshape(len(x), -1, size),
    )
    sums = x.reshape(len(x), 1, -1, size).sum(axis=-1)
    sums = sums.mean(axis=-1, keepdims=True) if wrong else sums
    return (layer.scales.astype(np.float32) * (dots - layer.zero_point * sums)).sum(axis=-1)


same_steps = quantize_linear(np.sign(weight) * np.float32(0.02), spec=QuantSpec(4, 128, symmetric=True))
for name, layer in (("all steps equal", same_steps), ("a real layer", linear)):
    truth = matmul_reference(tokens, layer, dtype=np.float64)
    off = [
        np.abs(factored_wrongly(tokens, layer, w) - truth).max() / np.abs(truth).max() for w in (False, True)
    ]
    print(f"{name:16} by groups off by {off[0]:.1e}, in one sum {off[1]:.1e}")
    assert off[0] < 1e-5
    assert (off[1] > 0.01) == (layer is linear)  # the symptom: right on the toy, wrong on the layer

# %% [markdown]
# The sums over groups agree in the mean, so with equal steps and zero points the mistake cancels to the last bit that
# counts. Test a kernel on weights whose groups differ.
#
# ## Check yourself
#
# The factored product, [AWQ-10](../docs/equations.md#awq-10), from codes. `group_size` -1 means a whole row. You get x
# in float32 or float16; compute in float32.


# %%
def my_matmul(x, int_weight, scales, zero_point, group_size):
    """Return y (tokens, out_features)."""
    raise NotImplementedError("your turn")


print(check_function("matmul", my_matmul))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug is the one above.
def a_matmul(x, int_weight, scales, zero_point, group_size, by_groups=True):
    """Group by group."""
    size = x.shape[1] if group_size == -1 else group_size
    x, y = x.astype(np.float32), np.zeros((len(x), len(int_weight)), dtype=np.float32)
    n_groups = x.shape[1] // size
    for g in range(n_groups):
        part = slice(g * size, (g + 1) * size)
        total = x[:, part].sum(axis=1) if by_groups else x.sum(axis=1) / np.float32(n_groups)
        dots = x[:, part] @ int_weight[:, part].T.astype(np.float32)
        y += scales[:, g].astype(np.float32) * (dots - total[:, None] * zero_point[:, g])
    return y


def one_sum(x, int_weight, scales, zero_point, group_size):
    """One sum of x for all groups."""
    return a_matmul(x, int_weight, scales, zero_point, group_size, by_groups=False)


right_one = check_function("matmul", a_matmul)
wrong_one = check_function("matmul", one_sum)
print(right_one, wrong_one, sep="\n\n")
assert right_one.is_right
assert not wrong_one.is_right

# %% [markdown]
# ## Exercises
#
# 1. Show that the factors of `nest_activations` are those of the byte above.
# 2. From how many tokens on does it pay to dequantize the weight once and multiply by BLAS? Measure both for 1, 8, 64
#    tokens.
# 3. Why is the order of codes in a plane free to choose?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. One group of two inputs: x0 - x1 / 16 for the low field, x1 / 16 for the byte.
tiny = quantize_linear(np.float32([[0.3, -0.2]]), spec=QuantSpec(bits=4, group_size=2))
columns = PackedLinear.from_quantized(tiny, n_threads=1).weight
(factors,) = nest_activations(np.float32([[x0, x1]]), columns)
print("factors:", factors.ravel())
assert factors.ravel().tolist() == [x0 - x1 / 16, x1 / 16]
# 2. Dequantizing costs the same for any number of tokens; the factored product is cheap for few.
with blas_on_one_thread():
    for n_tokens in (1, 8, 64):
        batch = rng.standard_normal((n_tokens, COLUMNS)).astype(np.float32)
        by_parts = median_seconds([partial(matmul_reference, batch, linear), partial(one, batch)], rounds=3)
        print(
            f"{n_tokens:3} tokens: dequantized {1e3 * by_parts[0]:6.1f} ms, packed {1e3 * by_parts[1]:6.1f} ms"
        )
# 3. An inner product does not care about the order, if codes and activations are in the same one.
order = rng.permutation(COLUMNS)
a, b = x[0].astype(np.float64), linear.int_weight[0].astype(np.float64)
assert np.isclose(a @ b, a[order] @ b[order])
assert block_size(4) > 1  # codes of 4 bits are packed a whole register at a time
