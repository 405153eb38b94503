# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 06 The scaling trick
#
# **Question.** Can a weight be made safer without giving it more bits, and how far does that go?

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref import QuantSpec
from awq_ref.checkpoint import Checkpoint, demo_model_path
from awq_ref.paper.linears import salient
from awq_ref.paper.output import STYLE
from awq_ref.paper.scale_sweep import scaled_linear
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.quantize import dequantize_linear, pseudo_quantize, quantize_linear
from awq_ref.search.objective import gram_loss
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
spec = QuantSpec(bits=4, group_size=4, scale_dtype="float32")
row = np.float32([[0.9, -0.6, 0.04, 0.3]])
s = np.float32([1.0, 1.0, 4.0, 1.0])
print("plain   ", pseudo_quantize(row, spec=spec)[0].round(3))
print("scaled  ", (pseudo_quantize(row * s, spec=spec) / s)[0].round(3), "  the weight:", row[0])

# %% [markdown]
# 0.04 is less than half a step, so it was lost: 0. Multiplied by 4 it is more than a step: it is rounded to a
# multiple of the step, and divided by 4 again it comes back with a quarter of the error. Its neighbours noticed
# nothing, because 0.16 is not the largest of the group, so the step stayed. That is the whole trick. The division is done
# by the activation: Q(W s) (x / s).
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [P-SCALE](../docs/equations.md#p-scale) | without rounding nothing changes | `dequantize_linear(scaled) / scales` | [scaled_linear](../awq_ref/paper/scale_sweep.py) |
# | [EVAL-5](../docs/equations.md#eval-5) | the error is delta' RoundErr x / s | `scaled.scales.astype(np.float64) / plain.scales` | [scaled_linear](../awq_ref/paper/scale_sweep.py) |
# | [AWQ-7](../docs/equations.md#awq-7) | E = Q(W s) / s - W, in the layer's own terms | `error /= fold.columns` | [quantization_errors](../awq_ref/search/objective.py) |
#
# Read EVAL-5 as the paper does. RoundErr is a quarter of a step in the mean, whatever s is. So the error of a scaled
# channel changes by (delta' / delta) / s. As long as the step does not grow, delta' = delta, and the error falls as 1
# / s. But s also makes the scaled weights larger, and one day they *are* the largest of their group.

# %%
with tempfile.TemporaryDirectory() as folder:  # the model with outliers of chapter 05
    grow_outliers(demo_model_path(), Path(folder) / "model")
    weight = Checkpoint.open(Path(folder) / "model").read("model.layers.2.mlp.gate_proj.weight")
    site = awq_ref.calibrate(Path(folder) / "model", samples=2, seq_len=256).sites["2.mlp.gate_up"]
spec = QuantSpec(bits=3, group_size=128)
five = salient(site.act_mean_abs, 0.02)
rest = np.setdiff1d(np.arange(256), five)

# %% [markdown]
# ## The effect, seen
#
# Multiply the salient five by s, round, divide by s. The output error has two parts: that of the five, and that of all
# others, who pay when the step grows.


# %%
def part_of(error, columns):
    """Return the output error of some columns alone."""
    return gram_loss(error[:, columns], site.gram[np.ix_(columns, columns)])


sweep = np.geomspace(1, 512, 19)
total, of_five, of_rest, growth = [], [], [], []
for s in sweep:
    result, ratios = scaled_linear(weight, five, float(s), spec)
    error = result - weight
    total.append(gram_loss(error, site.gram))
    of_five.append(part_of(error, five))
    of_rest.append(part_of(error, rest))
    growth.append(ratios.mean())

figure, (axes, below) = plt.subplots(
    2, 1, figsize=(6.4, 5.0), layout="constrained", sharex=True, height_ratios=(3, 1)
)
axes.loglog(sweep, np.array(total) / total[0], "k-", label="all of it")
axes.loglog(sweep, np.array(of_five) / total[0], "o-", ms=3, color="C3", label="from the salient five")
axes.loglog(sweep, np.array(of_rest) / total[0], "s-", ms=3, color="C0", label="from all others")
best = int(np.argmin(total))
axes.axvline(sweep[best], color="0.6", lw=1, ls=":")
axes.set(ylabel="output error, plain rounding = 1", title="It helps until the scaled weights set the step")
axes.legend()
below.semilogx(sweep, growth, "-", color="C2")
below.axvline(sweep[best], color="0.6", lw=1, ls=":")
below.set(xlabel="s", ylabel="delta' / delta", yscale="log")
print(f"best s: {sweep[best]:.0f}, error {total[best] / total[0]:.2f} of plain rounding")
assert 0 < best < len(sweep) - 1  # a minimum inside: too little and too much are both worse

# %% [markdown]
# Red is flat at first: the five weights of chapter 05 are still less than half a step and become 0. Then it falls, about
# as 1 / s^2, for errors are squared here. Blue rises where the step (green) begins to grow. The sum has a valley, and
# there the bargain ends.
#
# ## Predict, then run
#
# Now multiply *all* channels by the same s = 8. **Before you run the next cell:** what happens to the error?

# %%
everyone = np.arange(256)
result, ratios = scaled_linear(weight, everyone, 8.0, spec)
print(
    f"error {gram_loss(result - weight, site.gram) / total[0]:.6f} of plain rounding, step {ratios.mean():.3f} of it"
)
assert np.array_equal(result, pseudo_quantize(weight, spec=spec))

# %% [markdown]
# Nothing, to the last bit: all steps grow by 8, and 8 is a power of two. A common factor of s is free. Only
# *differences* within a group help; chapter 07 uses the freedom to keep the numbers in the middle of float16.
#
# ## Break it
#
# Forget to divide. A scale that was multiplied into the weights must leave somewhere, or the layer computes something
# else.

# %%
scales = np.ones(256, dtype=np.float32)
scales[five] = 8.0
undone = pseudo_quantize(weight * scales, spec=spec) / scales
forgotten = pseudo_quantize(weight * scales, spec=spec)
for name, back in (("divided", undone), ("not divided", forgotten)):
    print(f"{name:12} output error {gram_loss(back - weight, site.gram) / total[0]:10.2f} of plain rounding")
assert gram_loss(undone - weight, site.gram) < total[0]
assert (
    gram_loss(forgotten - weight, site.gram) > 10 * total[0]
)  # the symptom: far worse than not to scale at all

# %% [markdown]
# ## Check yourself
#
# The number that the search of chapter 07 asks for again and again: [AWQ-7](../docs/equations.md#awq-7) for one layer.
# Multiply the columns, quantize and dequantize, divide the columns, subtract the weight; then the sum over rows of
# e C e^T, divided by the number of rows. You may use the package's quantizer.


# %%
def my_loss(weight, gram, channel_scales, bits, group_size):
    """Return one number."""
    raise NotImplementedError("your turn")


asked = {"symmetric": False, "scale_dtype": "float16"}
print(check_function("search_loss", my_loss, asked))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug compares the scaled weights, and forgets to divide.
def a_loss(weight, gram, channel_scales, bits, group_size, divide=True):
    """E = Q(W s) / s - W; mean over rows of e C e^T."""
    spec = QuantSpec(bits=bits, group_size=group_size)
    back = dequantize_linear(quantize_linear(weight * channel_scales, spec=spec))
    error = (back / channel_scales - weight) if divide else (back - weight * channel_scales)
    error = error.astype(np.float64)
    return np.sum((error @ gram.astype(np.float64)) * error) / len(weight)


def a_wrong_loss(weight, gram, channel_scales, bits, group_size):
    """Without the division."""
    return a_loss(weight, gram, channel_scales, bits, group_size, divide=False)


right = check_function("search_loss", a_loss, asked)
wrong = check_function("search_loss", a_wrong_loss, asked)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. In the first cell, how large may s for 0.04 be before its neighbours notice? Show both sides of that limit.
# 2. The smaller a group, the fewer neighbours pay. Is the best s larger or smaller with groups of 32?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. Until 0.04 s is the largest of the group: s = 0.9 / 0.04 = 22.5.
row = np.float32([[0.9, -0.6, 0.04, 0.3]])
spec = QuantSpec(bits=4, group_size=4, scale_dtype="float32")
steps = [quantize_linear(row * np.float32([1, 1, s, 1]), spec=spec).scales[0, 0] for s in (1, 22, 23)]
print("steps with s = 1, 22, 23:", steps)
assert steps[0] == steps[1] < steps[2]
# 2. Not smaller here: fewer groups hold a salient channel at all, and the others are left alone.
small = QuantSpec(bits=3, group_size=32)
errors = [gram_loss(scaled_linear(weight, five, float(s), small)[0] - weight, site.gram) for s in sweep]
print(f"best s with groups of 32: {sweep[int(np.argmin(errors))]:.0f}; of 128: {sweep[best]:.0f}")
assert np.argmin(errors) > 0
