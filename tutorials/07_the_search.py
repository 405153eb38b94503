# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 07 The search
#
# **Question.** Chapter 06 scaled five channels by one number, found by trying. A layer has hundreds of channels. How is
# a scale for each of them found, and who remembers the tokens meanwhile?

# %%
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref import QuantSpec
from awq_ref.checkpoint import Checkpoint, demo_model_path
from awq_ref.paper.output import STYLE
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import GramObjective, candidate, candidate_llm_awq, search_channel_scales
from awq_ref.search.objective import direct_loss, gram_loss
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
mean_abs = np.float32([0.1, 0.2, 0.4, 6.4])  # four channels, the last one salient
for alpha in (0.0, 0.5, 1.0):
    print(f"alpha {alpha}: s =", candidate(mean_abs, alpha).round(3))

# %% [markdown]
# One number, alpha, makes the scales of all channels: a power of the mean activation. alpha = 0 is plain rounding;
# alpha = 1 scales in full proportion. The search tries eleven alphas and keeps the best. That is the whole search.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-6](../docs/equations.md#awq-6) | t = a^alpha | `np.maximum(act_mean_abs / act_mean_abs.max(), FLOOR) ** alpha` | [candidate](../awq_ref/search/candidates.py) |
# | [AWQ-6](../docs/equations.md#awq-6) | s = t / sqrt(max t min t) | `float(powers[live].max()) * float(powers[live].min())` | [candidate](../awq_ref/search/candidates.py) |
# | [AWQ-7](../docs/equations.md#awq-7) | L = tr(E C E^T) | `total += gram_loss(error, self._statistics.gram_sum)` | [GramObjective](../awq_ref/search/objective.py) |
# | [P-CHOICE](../docs/equations.md#p-choice) | of equal losses the smallest alpha | `min(finite, key=self._losses.__getitem__)` | [Trials](../awq_ref/search/channel_scales.py) |
#
# *Why sqrt(max * min)?* The most asked question about AWQ. A common factor of s changes nothing (chapter 06), so one
# is free to choose it. With this one the largest and the smallest scale are reciprocal: 8 and 1/8, not 64 and 1.
# Scaled weights, norms and steps then stay in the middle of float16. It is no part of the quality.
#
# *Who remembers the tokens?* Nobody. With the Gram matrix C = X^T X / n the squared error over all tokens is a
# quadratic form:

# %%
model = awq_ref.load_model(demo_model_path())
ids = model.tokenizer.encode("def area(width, height):\n    return width * height\n")
x = model.decoder.embed(ids[None])[0]  # (tokens, 256)
weight = Checkpoint.open(demo_model_path()).read("model.layers.0.self_attn.q_proj.weight")
error = pseudo_quantize(weight, spec=QuantSpec(bits=3, group_size=128)) - weight
gram = x.T @ x / np.float32(len(x))  # (256, 256), whatever the number of tokens
print(
    f"{len(x)} tokens: from the tokens {direct_loss(error, x):.6f}, from the Gram matrix {gram_loss(error, gram):.6f}"
)
assert np.isclose(direct_loss(error, x), gram_loss(error, gram), rtol=1e-4)

# %% [markdown]
# So calibration keeps two small arrays per site: a, for the candidates, and C, for their losses. A candidate costs
# the same after ten tokens and after ten million.
#
# ## The effect, seen

# %%
with tempfile.TemporaryDirectory() as folder:  # the model with outliers of chapter 05
    grow_outliers(demo_model_path(), f"{folder}/model")
    statistics = awq_ref.calibrate(f"{folder}/model", samples=2, seq_len=256)
    checkpoint = Checkpoint.open(f"{folder}/model")
    layers = {
        "qkv": [checkpoint.read(f"model.layers.2.self_attn.{name}_proj.weight") for name in "qkv"],
        "gate_up": [checkpoint.read(f"model.layers.2.mlp.{name}_proj.weight") for name in ("gate", "up")],
    }
sites = {
    name: statistics.sites[key] for name, key in (("qkv", "2.self_attn.qkv"), ("gate_up", "2.mlp.gate_up"))
}
spec = QuantSpec(bits=3, group_size=128)
alphas = tuple(i / 10 for i in range(11))
found = {}
for name, weights in layers.items():
    loss = GramObjective(weights, sites[name], lambda w: pseudo_quantize(w, spec=spec))
    found[name] = search_channel_scales(loss, sites[name].act_mean_abs, alphas=alphas)

figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, search in found.items():
    (line,) = axes.plot(alphas, np.array(search.losses) / search.loss_rtn, "o-", ms=3, label=name)
    axes.plot(search.alpha, search.loss / search.loss_rtn, "*", ms=12, color=line.get_color())
axes.axhline(1.0, color="0.5", lw=1, ls=":")
axes.text(0.02, 1.01, "plain rounding", color="0.4")
axes.set(
    xlabel="alpha",
    ylabel="output error, plain rounding = 1",
    title="The search: one loss for each alpha (star: chosen)",
)
_ = axes.legend(loc="lower left")
print({name: (search.alpha, round(search.loss / search.loss_rtn, 3)) for name, search in found.items()})

# %% [markdown]
# Both curves fall, reach a valley, and rise: chapter 06 again, for all channels at once. q, k and v share one input,
# so they share one s, and their losses are added.
#
# ## Predict, then run
#
# Multiply the chosen scales of gate_up by 4. **Before you run the next cell:** is the loss smaller, the same, or
# larger? And multiplied by 3?

# %%
loss = GramObjective(layers["gate_up"], sites["gate_up"], lambda w: pseudo_quantize(w, spec=spec))
chosen = found["gate_up"].channel_scales
for factor in (1.0, 4.0, 3.0):
    print(f"s times {factor}: {loss(chosen * np.float32(factor)) / loss(chosen):.6f}")
assert np.isclose(loss(chosen * np.float32(4.0)), loss(chosen), rtol=1e-5)
assert abs(loss(chosen * np.float32(3.0)) / loss(chosen) - 1.0) < 0.02

# %% [markdown]
# The same for 4, a power of two. 3 moves the rounding of the float16 steps, up or down by a hair. The factor is free.
#
# ## Break it
#
# A channel that never fires has a = 0. The published form clamps its power to 1e-4 and takes it into the
# normalization like any other. One dead channel, and all others move.

# %%
with_dead = np.append(mean_abs, np.float32(0.0))
for function in (candidate, candidate_llm_awq):
    before, after = function(mean_abs, 0.5), function(with_dead, 0.5)
    print(f"{function.__name__:18} {before.round(2)}  with a dead channel {after.round(2)}")
assert (candidate(with_dead, 0.5)[:4] == candidate(mean_abs, 0.5)).all()
assert candidate_llm_awq(with_dead, 0.5).max() > 20 * candidate_llm_awq(mean_abs, 0.5).max()  # the symptom

# %% [markdown]
# In exact arithmetic this is harmless, a common factor. In a checkpoint it is not: all norms are divided by up to 159
# and all columns multiplied by it, and both must still fit into float16. Ours leaves dead channels out ([decision
# 8](../docs/decisions.md#dead-channels)).
#
# ## Check yourself
#
# The channel scales of one alpha, our form of [AWQ-6](../docs/equations.md#awq-6): mind the floor, and the dead
# channels.


# %%
def my_scales(act_mean_abs, alpha):
    """Return channel_scales (channels,), all positive."""
    raise NotImplementedError("your turn")


print(check_function("channel_scales", my_scales, {"formula": "awq"}))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug forgets the normalization.
def some_scales(act_mean_abs, alpha, normalize=True):
    """[AWQ-6] in float64."""
    a = act_mean_abs.astype(np.float64)
    live = a > 0
    t = np.maximum(a / a.max(), 2.0**-16) ** alpha
    middle = np.sqrt(t[live].max() * t[live].min()) if normalize else 1.0
    return np.where(live, t / middle, 1.0)


def not_normalized(act_mean_abs, alpha):
    """The largest scale is 1."""
    return some_scales(act_mean_abs, alpha, normalize=False)


right = check_function("channel_scales", some_scales, {"formula": "awq"})
wrong = check_function("channel_scales", not_normalized, {"formula": "awq"})
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. Why can the chosen alpha never be worse than plain rounding, on the calibration text? Which alpha guarantees it?
# 2. Keep only the diagonal of C, as if channels were independent. Does the search choose the same alpha?
# 3. Statistics of two texts are merged by adding sums ([P-CHUNK](../docs/equations.md#p-chunk)). Why must it be sums
#    and a    count, and not two means?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. alpha = 0: its scales are exactly 1, so its loss is that of plain rounding, and the least of all is chosen.
for search in found.values():
    assert search.losses[0] == search.loss_rtn
    assert search.loss <= search.loss_rtn
# 2. Not always; and where it does, the losses are others: errors of correlated channels add up or cancel.
gram = sites["gate_up"].gram
for name, matrix in (("full", gram), ("diagonal", np.diag(np.diag(gram)))):
    losses = []
    for alpha in alphas:
        s = candidate(sites["gate_up"].act_mean_abs, alpha)
        errors = (pseudo_quantize(w * s, spec=spec) / s - w for w in layers["gate_up"])
        losses.append(sum(gram_loss(error, matrix) for error in errors))
    print(
        f"{name:9} best alpha {alphas[int(np.argmin(losses))]}, loss {min(losses) / losses[0]:.3f} of alpha 0"
    )
# 3. The texts differ in length: a mean of means would weigh a token of the short one more.
short, long = np.float32([1.0]), np.float32([4.0, 4.0, 4.0])
both = np.concatenate([short, long])
assert both.mean() == (short.sum() + long.sum()) / 4 != (short.mean() + long.mean()) / 2
