# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 02 Round to nearest
#
# **Question.** Sixteen numbers shall stand for a row of 256 floats. Which sixteen, and what does a finer choice cost?

# %%
import matplotlib.pyplot as plt
import numpy as np

from awq_ref import QuantSpec
from awq_ref.checkpoint import Checkpoint, demo_model_path
from awq_ref.paper.output import STYLE
from awq_ref.quantize import choose_grid, dequantize, dequantize_linear, quantize, quantize_linear
from awq_ref.report.errors import relative_error
from awq_ref.report.memory import bits_per_weight
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
row = np.array([[-1.0, -0.5, 0.25, 0.875]], dtype=np.float32)
linear = quantize_linear(row, spec=QuantSpec(bits=4, group_size=4))
print("codes", linear.int_weight[0], " step", linear.scales[0], " zero point", linear.zero_point[0])
print("back ", dequantize_linear(linear)[0])

# %% [markdown]
# Four weights became four codes between 0 and 15, one step (0.125) and one zero point (8). Code 8 stands for 0.0, and
# each code more or less is one step up or down. This row was chosen to come back exactly. Most rows do not.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-1](../docs/equations.md#awq-1) | step = range / 15 | `np.maximum(width, RANGE_FLOOR), steps` | [codes_of_range](../awq_ref/quantize/grid.py) |
# | [AWQ-2](../docs/equations.md#awq-2) | the code of 0, less its sign | `np.rint(low / delta)` | [codes_of_range](../awq_ref/quantize/grid.py) |
# | [AWQ-3](../docs/equations.md#awq-3) | divide, round, add z, clip | `np.rint(codes, out=codes)` | [quantize](../awq_ref/quantize/affine.py) |
# | [AWQ-4](../docs/equations.md#awq-4) | (q - z) times the step | `tile *= delta[rows]` | [dequantize](../awq_ref/quantize/affine.py) |
#
# By hand, for the row above: the range is 0.875 - (-1) = 1.875, the step 1.875 / 15 = 0.125, the zero point
# -round(-1 / 0.125) = 8, and 0.25 has the code round(0.25 / 0.125) + 8 = 10.

# %%
spec = QuantSpec(bits=4, group_size=4)
scales, zero_point = choose_grid(row, spec=spec)
codes = quantize(row, scales, zero_point, spec=spec)
print(scales, zero_point, codes)
assert (dequantize(codes, scales, zero_point) == row).all()

# %% [markdown]
# ## The effect, seen
#
# Now real weights: `down_proj` of the first block of the embedded model, 256 outputs of 768 inputs. All weights of a
# group share a step. A large weight makes the step large for its neighbours too, so smaller groups are better. But each
# group stores a scale (16 bits) and a zero point (4 bits).

# %%
weight = Checkpoint.open(demo_model_path()).read("model.layers.0.mlp.down_proj.weight")


def rounding_error(weight, spec):
    """Return || W_hat - W || / || W ||."""
    return relative_error(weight, dequantize_linear(quantize_linear(weight, spec=spec)) - weight)


figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for bits in (2, 3, 4):
    sizes = (16, 32, 64, 128, 256, 768)
    specs = [QuantSpec(bits=bits, group_size=size) for size in sizes]
    cost = [bits_per_weight(spec, weight.shape[1]) for spec in specs]
    errors = [rounding_error(weight, spec) for spec in specs]
    axes.plot(cost, errors, "o-", ms=4, label=f"{bits} bits")
    for size, x, y in zip(sizes, cost, errors, strict=True):
        axes.annotate(str(size), (x, y), xytext=(3, 4), textcoords="offset points", fontsize=7)
axes.set(xlabel="bits per weight, scales and zero points included", ylabel="relative error", yscale="log")
axes.set_yticks([0.1, 0.2, 0.4], ["10 %", "20 %", "40 %"])
axes.minorticks_off()
axes.set_title("A smaller group (numbers) costs bits and buys accuracy")
_ = axes.legend()

# %% [markdown]
# ## Predict, then run
#
# A symmetric grid has no zero points: code 8 is always 0, and the step must reach the largest magnitude on both sides
# with 7 steps. **Before you run the next cell:** is it better or worse than the asymmetric one at the same group size,
# and about how much?

# %%
asymmetric = rounding_error(weight, QuantSpec(bits=4, group_size=128))
symmetric = rounding_error(weight, QuantSpec(bits=4, group_size=128, symmetric=True))
print(f"asymmetric {asymmetric:.4f}   symmetric {symmetric:.4f}   ratio {symmetric / asymmetric:.2f}")
assert symmetric > asymmetric

# %% [markdown]
# Worse: 14 steps between -max and max instead of 15 between lowest and highest, and in most groups one end is farther
# out than the other.
#
# ## Break it
#
# The published quantizer takes the range from the lowest to the highest weight, whether or not 0 lies between. Then it
# clips the zero point to a code. For a group whose weights all have one sign these two do not fit together.

# %%
one_sided = np.array([[1.0, 1.25, 1.5, 2.0]], dtype=np.float32)
for rule in ("minmax", "zero"):
    linear = quantize_linear(one_sided, spec=QuantSpec(bits=4, group_size=4, range_rule=rule))
    print(f"{rule:6}  codes {linear.int_weight[0]}  back {dequantize_linear(linear)[0]}")
    if rule == "minmax":
        assert (linear.int_weight == 15).all()  # the symptom: four different weights became one

# %% [markdown]
# Nothing warned you: every code is valid and the file loads. `range_rule="zero"` widens the range to contain 0, as
# [decision 1](../docs/decisions.md#range-contains-zero) explains; `"minmax"` is kept to reproduce the published code.
#
# ## Check yourself
#
# Write the whole quantizer of a layer: float16 scales, uint8 zero points, uint8 codes. The golden cases hold ties, zero
# groups, outliers and scales that are subnormal in float16.


# %%
def my_quantizer(weight, bits, group_size):
    """Return scales, zero_point (out_features, n_groups) and codes (out_features, in_features)."""
    raise NotImplementedError("your turn")


asked = {"symmetric": False, "range_rule": "zero", "scale_dtype": "float16"}
print(check_function("quantize_linear", my_quantizer, asked))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; and a classic mistake: the codes are computed from the scale before it was rounded to float16.
def a_quantizer(weight, bits, group_size, from_stored_scale=True):
    """Return scales, zero_point, codes."""
    size = weight.shape[1] if group_size == -1 else group_size
    groups = weight.reshape(len(weight), -1, size)
    low, high = np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)
    qmax = 2**bits - 1
    exact = np.maximum(high - low, np.float32(1e-5)) / np.float32(qmax)
    scales = exact.astype(np.float16)
    step = scales.astype(np.float32) if from_stored_scale else exact
    zero_point = np.clip(-np.rint(low / step), 0, qmax)
    codes = np.clip(np.rint(groups / step[:, :, None]) + zero_point[:, :, None], 0, qmax)
    return scales, zero_point.astype(np.uint8), codes.reshape(weight.shape).astype(np.uint8)


def a_wrong_quantizer(weight, bits, group_size):
    """The scale is rounded too late."""
    return a_quantizer(weight, bits, group_size, from_stored_scale=False)


right = check_function("quantize_linear", a_quantizer, asked)
wrong = check_function("quantize_linear", a_wrong_quantizer, asked)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. Find a row of four different weights that comes back without any error at 2 bits.
# 2. How many bits per weight does a group of 128 cost at 4 bits? Do it on paper: codes, one float16 scale, one 4-bit
#    zero point.
# 3. By [P-ROUND](../docs/equations.md#p-round) no weight is farther from its code than half a step and a little. Show
#    it for `weight`, and show that some weight comes close to half a step.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. Multiples of a step that float16 holds, with 0 between them: -0.5, 0, 0.5, 1 have the step 0.5.
row = np.array([[-0.5, 0.0, 0.5, 1.0]], dtype=np.float32)
assert rounding_error(row, QuantSpec(bits=2, group_size=4)) == 0.0
# 2. 4 + (16 + 4) / 128
assert bits_per_weight(QuantSpec(bits=4, group_size=128), 4096) == 4 + 20 / 128
# 3. The steps, and the distances in steps.
linear = quantize_linear(weight, spec=QuantSpec(bits=4, group_size=128))
steps = np.repeat(linear.scales.astype(np.float32), 128, axis=1)
distance = np.abs(dequantize_linear(linear) - weight) / steps
print(
    f"farthest: {distance.max():.4f} of a step; mean {distance.mean():.3f}, a quarter when nothing is special"
)
assert 0.49 < distance.max() < 0.51
