# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 05 Where error matters
#
# **Question.** All weights of a layer are rounded alike. Do all errors hurt alike?

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
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.quantize import pseudo_quantize
from awq_ref.report.errors import channel_contributions
from awq_ref.search.objective import gram_loss
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
with tempfile.TemporaryDirectory() as folder:  # a model whose activations have outliers, as large models have
    grow_outliers(demo_model_path(), Path(folder) / "model")
    weight = Checkpoint.open(Path(folder) / "model").read("model.layers.2.mlp.gate_proj.weight")
    statistics = awq_ref.calibrate(Path(folder) / "model", samples=2, seq_len=256)
site = statistics.sites["2.mlp.gate_up"]  # what gate_proj of block 2 reads
mean_abs = site.act_mean_abs
print(f"mean |x|: median channel {np.median(mean_abs):.2f}, largest {np.sort(mean_abs)[-5:].round(1)}")

# %% [markdown]
# The embedded model is small, and small models have no outliers. So we let five channels of 256 grow by 32 in the
# norm, and shrink the columns that read them by 32: the function is the same, the numbers look like a large model's.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-5](../docs/equations.md#awq-5) | a: the mean of abs(x), channel by channel | `self.abs_sum / self.count` | [SiteStatistics](../awq_ref/calibration/statistics.py) |
# | [AWQ-7](../docs/equations.md#awq-7) | the output error, from C = X^T X / n alone | `np.vecdot(product, part)` | [gram_row_losses](../awq_ref/search/objective.py) |
# | [EVAL-4](../docs/equations.md#eval-4) | each channel's part of it | `product *= error[rows]` | [channel_contributions](../awq_ref/report/errors.py) |
#
# The output is a sum over channels of weight times activation. An error of a weight reaches the output multiplied by
# its activation. So a weight is *salient* not because it is large, but because what it meets is large.

# %%
spec = QuantSpec(bits=3, group_size=128)
error = pseudo_quantize(weight, spec=spec) - weight
everything = gram_loss(error, site.gram)


def left_after_keeping(channels):
    """Return the share of the output error that is left when these channels stay in float."""
    kept = error.copy()
    kept[:, channels] = 0.0
    return gram_loss(kept, site.gram) / everything


ways = {
    "nothing": [],
    "5 at random": np.random.default_rng(0).choice(256, 5, replace=False),
    "5 of largest weights": salient(np.linalg.norm(weight, axis=0), 0.02),
    "5 of largest activations": salient(mean_abs, 0.02),
}
left = {name: left_after_keeping(channels) for name, channels in ways.items()}
for name, share in left.items():
    print(f"kept {name:25} {share:6.1%} of the output error is left")

# %% [markdown]
# This is table 1 of the paper, for one layer: two channels of a hundred carry a good part of the error, and only the
# activations know which. The largest weights are as good a guide as dice. (The whole table: `awq-ref paper salient`.)
#
# ## The effect, seen

# %%
figure, (left_axes, right_axes) = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained")
order = np.argsort(-mean_abs)
share = channel_contributions(error, site.gram) / everything
left_axes.semilogy(mean_abs[order], ".", ms=3, color="C0")
left_axes.semilogy(mean_abs[order][:5], "o", ms=5, color="C3", label="the salient five")
left_axes.set(xlabel="channels, by mean |x|", ylabel="mean |x|", title="Few channels are large ...")
left_axes.legend()
right_axes.bar(range(256), 100 * share[order], width=1.0, color="C0")
right_axes.bar(range(5), 100 * share[order][:5], width=1.0, color="C3")
right_axes.set(
    xlabel="the same channels",
    ylabel="share of the output error, %",
    xlim=(-2, 40),
    title="... and carry the error",
)

# %% [markdown]
# ## Predict, then run
#
# Look at the *weights* of the salient five: they were shrunk by 32. **Before you run the next cell:** are their
# rounding errors smaller than those of the other columns, and how do they compare with the weights themselves?

# %%
five = salient(mean_abs, 0.02)
rest = np.setdiff1d(np.arange(256), five)
for name, columns in (("salient", five), ("others", rest)):
    size, off = np.abs(weight[:, columns]).mean(), np.abs(error[:, columns]).mean()
    print(f"{name:8} mean |w| {size:.5f}   mean |error| {off:.5f}   ratio {off / size:.2f}")
assert np.abs(error[:, five]).mean() > 0.9 * np.abs(weight[:, five]).mean()

# %% [markdown]
# A group has one step, set by its largest weights. The small weights of the salient five lie within half a step of 0:
# they all became 0, their error is they themselves, and the activation multiplies it by 32.
#
# ## Break it
#
# A real notebook of a course on AWQ took the activations of another layer: the input of `o_proj` for `gate_proj`.
# Both have 256 channels, so nothing complains. The symptom: protecting "salient" channels does not help any more.

# %%
of_another_site = statistics.sites["2.self_attn.o"].act_mean_abs
broken = left_after_keeping(salient(of_another_site, 0.02))
print(f"right site: {left['5 of largest activations']:.1%} left     wrong site: {broken:.1%} left")
assert broken > 0.85
assert left["5 of largest activations"] < 0.75

# %% [markdown]
# When a method gains nothing, look first at *which* input it was given. Here every site has a name, and the search
# takes its statistics by it ([plan](../awq_ref/search/plan.py)).
#
# ## Check yourself
#
# The statistic of [AWQ-5](../docs/equations.md#awq-5): for tokens x (tokens, channels) the mean of |x| per channel.


# %%
def my_statistic(x):
    """Return act_mean_abs (channels,)."""
    raise NotImplementedError("your turn")


print(check_function("act_mean_abs", my_statistic))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug is in the name that the published code gives it, x_max.
def a_statistic(x):
    """The mean, summed in float64."""
    return np.abs(x).mean(axis=0, dtype=np.float64)


def x_max(x):
    """The largest."""
    return np.abs(x).max(axis=0)


right = check_function("act_mean_abs", a_statistic)
wrong = check_function("act_mean_abs", x_max)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. Why are five channels in float16 not a good file format, although they take only 2 % more space?
# 2. The shares of all channels add up to 1 ([P-SHARE](../docs/equations.md#p-share)). Can a share be negative? Try two
#    channels that are always equal.
# 3. With 4 bits instead of 3, how much of the error do the salient five carry?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. A row would be made of two kinds of numbers in scattered places: kernels read words in sequence. The paper says so,
#    and looks for a way to protect these channels with integers alone: the next chapter.
# 2. Yes: where two channels always fire together, the smaller error takes away from the larger one.
two = channel_contributions(np.float32([[1.0, -0.5]]), np.ones((2, 2), dtype=np.float32))
print("contributions of the two channels:", two, " and here, the smallest share:", share.min())
assert two.tolist() == [0.5, -0.25]
assert abs(share.sum() - 1.0) < 1e-4
# 3. The step is 7 / 15 as wide, and the salient weights are still below it.
finer = pseudo_quantize(weight, spec=QuantSpec(bits=4, group_size=128)) - weight
part = channel_contributions(finer, site.gram)[five].sum() / gram_loss(finer, site.gram)
print(f"3 bits: {share[five].sum():.1%}    4 bits: {part:.1%}")
assert part > share[five].sum()
