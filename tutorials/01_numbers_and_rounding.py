# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 01 Numbers and rounding
#
# **Question.** A computer has only some numbers. How far apart are they, and which one does it take when a value lies
# between two?

# %%
import matplotlib.pyplot as plt
import numpy as np

from awq_ref import QuantSpec
from awq_ref.paper.output import STYLE
from awq_ref.quantize import dequantize, quantize
from awq_ref.search.folding import round_to
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
tenth = np.float32([0.1])
for name in ("float32", "float16", "bfloat16"):
    print(f"0.1 in {name:8} is {round_to(tenth, name)[0]:.10f}")

# %% [markdown]
# Three formats, three neighbours of 0.1. A float keeps a fixed number of *leading* bits: float32 has 24, float16 has
# 11, bfloat16 has 8. So its error is a share of the value. A grid of integers is different: its steps all have one
# width.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-1](../docs/equations.md#awq-1) | store: a step is rounded to float16 | `exact.astype(spec.scale_dtype)` | [_stored_scales](../awq_ref/quantize/grid.py) |
# | [AWQ-3](../docs/equations.md#awq-3) | round: to the nearest, ties to even | `np.rint(codes, out=codes)` | [quantize](../awq_ref/quantize/affine.py) |
# | [AWQ-8](../docs/equations.md#awq-8) | store: the upper half of a float32 is a bfloat16 | `np.uint32(0xFFFF0000)` | [round_to](../awq_ref/search/folding.py) |
#
# The step, the zero point and the codes of a weight come from these two operations, store and round, and from nothing
# else. That is why two programs can agree on every bit.

# %%
scales = np.array([[0.125]], dtype=np.float16)
zero_point = np.array([[8]], dtype=np.uint8)
row = np.float32([[0.30, 0.31, 0.3125, 0.32]])
codes = quantize(row, scales, zero_point, spec=QuantSpec(bits=4, group_size=4))
print("in steps", row[0] / 0.125, " codes", codes[0], " back", dequantize(codes, scales, zero_point)[0])

# %% [markdown]
# 0.3125 is 2.5 steps: exactly between 2 and 3. It went down to 2, the even one (code 10 is 2 steps above code 8).
#
# ## The effect, seen
#
# How far is it from a number to its neighbour? For floats the answer grows with the number, stair by stair. For the
# 16 codes of a group it is one constant, and beyond the last code there is nothing at all.

# %%
values = np.geomspace(1e-6, 1.0, 400, dtype=np.float32)
below = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)  # the bfloat16 below
gaps = {
    "float32": np.spacing(values),
    "bfloat16": (below.view(np.uint32) + np.uint32(0x10000)).view(np.float32) - below,
    "float16": np.spacing(values.astype(np.float16)).astype(np.float32),
    "4-bit codes, step 0.125": np.full(values.shape, 0.125, dtype=np.float32),
}
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for (name, gap), style in zip(gaps.items(), ("-", "-", "-", "--"), strict=True):
    axes.loglog(values, gap, style, label=name)
axes.axvline(2.0**-14, color="0.5", lw=1, ls=":")
axes.text(8e-5, 2e-13, "left of this line float16\nis a grid too: subnormal", color="0.3")
axes.set(
    xlabel="a number",
    ylabel="distance to the next one",
    title="Floats have relative steps, codes have one step",
)
_ = figure.legend(loc="outside lower center", ncols=4)

# %% [markdown]
# ## Predict, then run
#
# Take 0.5, 1.5, 2.5, ..., 99.5: a hundred ties. Round each to the nearest integer in two ways: ties up, and ties to
# even. **Before you run the next cell:** by how much does the mean of the rounded numbers differ from the mean of the
# numbers, in each way?

# %%
ties = np.arange(100, dtype=np.float32) + np.float32(0.5)
up, even = np.floor(ties + np.float32(0.5)), np.rint(ties)
print(f"ties up: {np.mean(up - ties):+.2f}     ties to even: {np.mean(even - ties):+.2f}")
assert np.mean(up - ties) == 0.5
assert np.mean(even - ties) == 0.0

# %% [markdown]
# Ties up push every tie in one direction; ties to even push half of them each way. Ties are rare among random floats.
# They are common among weights that were already rounded once, to float16 or to another grid.
#
# ## Break it
#
# Codes are bytes. The distance of a code from its zero point may be negative, and a byte is never negative. Here is the
# first bug of nearly everyone who writes a dequantizer.

# %%
codes = np.array([[3, 8, 9]], dtype=np.uint8)
zero_point = np.array([[8]], dtype=np.uint8)
step = np.array([[0.125]], dtype=np.float16)
broken = (codes - zero_point).astype(np.float32) * step  # the difference is formed in uint8
print("bytes:  ", broken[0])
print("package:", dequantize(codes, step, zero_point)[0])
assert broken[0, 0] == (256 - 5) * 0.125  # the symptom: a small negative weight became the largest of all
assert dequantize(codes, step, zero_point)[0, 0] == -5 * 0.125

# %% [markdown]
# ## Check yourself
#
# The simplest integer grid has no zero point. Per token and group of neighbours: step = max |x| / 127, in float32;
# code = round(x / step), held to -127 ... 127, as int8; a group of zeros has step 0 and codes 0. W4A8 kernels do this
# to activations. [The operation](../docs/conformance.md#operations) is `quantize_activations`.


# %%
def my_codes(x, act_group_size):
    """Return act_codes int8, of x's shape, and act_scales float32 (tokens, groups)."""
    raise NotImplementedError("your turn")


print(check_function("quantize_activations", my_codes))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug is rounding ties up.
def some_codes(x, act_group_size, nearest=np.rint):
    """Return codes and steps."""
    groups = x.reshape(len(x), -1, act_group_size)
    steps = np.abs(groups).max(axis=2) / np.float32(127)
    quotients = groups / np.where(steps == 0, np.float32(1), steps)[:, :, None]
    codes = np.clip(nearest(quotients), -127, 127) * (steps > 0)[:, :, None]
    return codes.reshape(x.shape).astype(np.int8), steps


def ties_up(x, act_group_size):
    """Round ties up."""
    return some_codes(x, act_group_size, nearest=lambda quotients: np.floor(quotients + np.float32(0.5)))


right = check_function("quantize_activations", some_codes)
wrong = check_function("quantize_activations", ties_up)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. Which is the smallest positive float16, and what is 1e-8 in float16?
# 2. AWQ multiplies weights by up to 256. Which weights are then too large for float16, and which for bfloat16?
# 3. `np.rint(x) + z` and `np.rint(x + z)` are not the same. Find x and z.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. 2**-24, a subnormal number; 1e-8 is less than half of it and becomes 0.
assert np.finfo(np.float16).smallest_subnormal == 2.0**-24
assert np.float16(1e-8) == 0.0
# 2. Those above 65504 / 256, about 255.9; bfloat16 reaches as far as float32 and has no trouble.
assert np.isfinite(np.float16(255.0 * 256))
with np.errstate(over="ignore"):
    assert np.isinf(np.float32(256.0 * 256).astype(np.float16))
assert np.isfinite(round_to(np.float32([1e30]), "bfloat16")[0])
# 3. Ties go to even, and an odd z turns even into odd: x = 0.5, z = 1. The package adds z after rounding.
assert (np.rint(0.5) + 1, np.rint(0.5 + 1)) == (1, 2)
