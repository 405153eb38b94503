# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 09 Clipping
#
# **Question.** One large weight sets the step for its whole group. May it be cut, so that the others are rounded more
# finely?

# %%
import tempfile
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref import QuantSpec
from awq_ref.checkpoint import Checkpoint, demo_model_path
from awq_ref.paper.output import STYLE
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.quantize import choose_grid, pseudo_quantize
from awq_ref.search.clipping import diagonal_blocks, keep_better_rows, search_clip
from awq_ref.search.objective import gram_loss, gram_row_losses
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
spec = QuantSpec(bits=3, group_size=8, scale_dtype="float32")
group = np.float32([[0.31, -0.22, 0.12, -0.35, 0.28, -0.16, 0.07, 1.0]])
for ratio in (1.0, 0.8, 0.6):
    back = pseudo_quantize(group, spec=spec, clip=np.full((1, 1), ratio, dtype=np.float32))
    error = (back - group)[0]
    print(
        f"cut at {ratio}: error of the seven {np.sum(error[:7] ** 2):.4f}, of the large one {error[7] ** 2:.4f}"
    )

# %% [markdown]
# The step of a group is its range divided by 7. Cut the range, and seven weights gain; the eighth pays, with the square
# of what was cut off. Here it pays more than the seven gain, if all errors cost the same. But they do not (chapter
# 05): where the large weight meets a small activation, the cut is nearly free. And in a group of 128 there are more to
# gain.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-9](../docs/equations.md#awq-9) | cut at r times the largest | `limit = largest * ratio` | [_search_groups](../awq_ref/search/clipping.py) |
# | [AWQ-9](../docs/equations.md#awq-9) | the loss of one group, e C_gg e^T | `np.vecdot(error @ left, error[..., :half])` | [_search_groups](../awq_ref/search/clipping.py) |
# | [AWQ-9](../docs/equations.md#awq-9) | of equal losses the first ratio | `better = loss < best_loss` | [_search_groups](../awq_ref/search/clipping.py) |
# | [AWQ-1](../docs/equations.md#awq-1) | the range after the cut | `np.minimum(np.maximum(edge, -limit), limit)` | [group_range](../awq_ref/quantize/grid.py) |
#
# C_gg is the block of the Gram matrix that belongs to the group's channels. Every group of every row chooses its own
# ratio, from 1, 0.95, ..., 0.55. Nothing has to be stored for that: the cut is in the scale.

# %%
with tempfile.TemporaryDirectory() as folder:  # the model with outliers of chapter 05
    grow_outliers(demo_model_path(), f"{folder}/model")
    weight = Checkpoint.open(f"{folder}/model").read("model.layers.2.mlp.gate_proj.weight")
    site = awq_ref.calibrate(f"{folder}/model", samples=2, seq_len=256).sites["2.mlp.gate_up"]
gram = site.gram


def clips_of(spec, ratios=tuple(1.0 - i / 20 for i in range(10)), blocks=None):
    """Return the clip search of the layer."""
    one_group = QuantSpec(bits=spec.bits, group_size=-1)
    blocks = diagonal_blocks(gram, spec.group_size) if blocks is None else blocks
    return search_clip(weight, blocks, quantizer=partial(pseudo_quantize, spec=one_group), ratios=ratios)


def loss_with(clip, spec):
    """Return the output error of the layer with these clips."""
    return gram_loss(pseudo_quantize(weight, spec=spec, clip=clip) - weight, gram)


# %% [markdown]
# ## The effect, seen
#
# Left: one ratio for the whole layer, at three widths. Right: how often each ratio is chosen when every group has its
# own.

# %%
ratios = np.linspace(1.0, 0.4, 13)
largest = np.abs(weight.reshape(len(weight), -1, 128)).max(axis=2)
figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4), layout="constrained")
best_ratio, own = {}, {}
for color, bits in enumerate((2, 3, 4)):
    spec = QuantSpec(bits=bits, group_size=128)
    losses = np.array([loss_with(largest * np.float32(ratio), spec) for ratio in ratios])
    best_ratio[bits] = ratios[int(np.argmin(losses))]
    left.plot(ratios, losses / losses[0], "o-", ms=3, color=f"C{color}", label=f"{bits} bits")
    found = clips_of(spec)
    own[bits] = float(loss_with(found.clip, spec) / losses[0])
    left.axhline(own[bits], color=f"C{color}", lw=1, ls=":")
    chosen = np.round(found.clip / largest, 2)
    places, counts = np.unique(chosen, return_counts=True)
    right.plot(places, 100 * counts / chosen.size, "o-", ms=3, color=f"C{color}", label=f"{bits} bits")
left.set(
    xlabel="r, the same for all groups (dotted: each its own)",
    ylabel="output error, not cut = 1",
    ylim=(0.3, 1.6),
    title="Fewer bits gain more from a cut",
)
left.invert_xaxis()
left.legend(loc="lower left")
right.set(xlabel="r that a group chose", ylabel="share of groups, %", title="Every group chooses for itself")
right.invert_xaxis()
print("best common ratio:", {bits: round(float(r), 2) for bits, r in best_ratio.items()})
print("each its own, error left:", {bits: round(share, 3) for bits, share in own.items()})
assert best_ratio[2] <= best_ratio[3] <= best_ratio[4]
assert max(own.values()) < 1.0

# %% [markdown]
# With 2 bits the step is a third of the range, and a cut makes the coarse grid finer where the weights are. With 4
# bits the steps are fine already, and there is less to gain.
#
# ## Predict, then run
#
# The search judges every group *alone*. A row's output is the sum over its groups. **Before you run the next cell:**
# can a row be worse with all its groups improved?

# %%
spec = QuantSpec(bits=3, group_size=128)
found = clips_of(spec)
assert (found.loss_after <= found.loss_before).all()  # every group by itself is no worse
before = gram_row_losses(pseudo_quantize(weight, spec=spec) - weight, gram)
after = gram_row_losses(pseudo_quantize(weight, spec=spec, clip=found.clip) - weight, gram)
worse = int((after > before).sum())
kept, losses = keep_better_rows(weight, found.clip, before, after)
print(f"{worse} of {len(weight)} rows are worse, although none of their groups is")
print(
    f"error left: {after.sum() / before.sum():.4f}; with those rows undone {losses.sum() / before.sum():.4f}"
)
assert worse > 0
assert losses.sum() < after.sum()

# %% [markdown]
# Yes: two groups whose errors cancelled may no longer do so. The published search never looks at the sum. Ours does,
# once, at the end: [keep_better_rows](../awq_ref/search/clipping.py) undoes the clips of rows that did not gain.
#
# ## Break it
#
# A clip search is often written on the error of the *weights*, because no activations are needed for that. C becomes
# the identity. What happens to the output?

# %%
blind = np.broadcast_to(np.eye(128, dtype=np.float32), (weight.shape[1] // 128, 128, 128)).copy()
on_weights = clips_of(spec, blocks=blind)


def weight_error(clip):
    """Return the sum of squared errors of the weights."""
    return float(np.sum((pseudo_quantize(weight, spec=spec, clip=clip) - weight) ** 2))


for name, clip in (("not cut", largest), ("on outputs", found.clip), ("on weights", on_weights.clip)):
    print(f"{name:11} weights {weight_error(clip):8.3f}   outputs {loss_with(clip, spec):8.3f}")
assert weight_error(on_weights.clip) < weight_error(found.clip)  # it reaches what it aims at
assert loss_with(on_weights.clip, spec) > 1.05 * loss_with(found.clip, spec)  # the symptom

# %% [markdown]
# It wins at its own game, and leaves half of the gain at the outputs behind.
#
# ## Check yourself
#
# [AWQ-9](../docs/equations.md#awq-9): for every ratio, row and group the loss e C_gg e^T, and the index of the first
# least one. The ratios come as a list; the largest |w| of a group times the ratio, in float32, is the cut. Mind what e
# is the difference to. You may use the package's quantizer: it takes a `clip` (rows, groups).


# %%
def my_clip_search(weight, gram, bits, group_size, ratios):
    """Return losses (ratios, rows, groups) and choice (rows, groups)."""
    raise NotImplementedError("your turn")


print(check_function("search_clip", my_clip_search))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug compares with the weight that was cut, so that cutting costs nothing.
def a_clip_search(weight, gram, bits, group_size, ratios, honest=True):
    """Every ratio, one after the other."""
    spec, rows = QuantSpec(bits=bits, group_size=group_size), len(weight)
    groups = weight.reshape(rows, -1, group_size)
    largest, losses = np.abs(groups).max(axis=2), []
    for ratio in ratios:
        limit = largest * np.float32(ratio)
        target = groups if honest else np.clip(groups, -limit[:, :, None], limit[:, :, None])
        e = pseudo_quantize(weight, spec=spec, clip=limit).reshape(groups.shape) - target
        e = e.astype(np.float64)
        blocks = [gram[i : i + group_size, i : i + group_size] for i in range(0, len(gram), group_size)]
        losses.append(
            np.stack([np.sum(e[:, g] @ block * e[:, g], axis=1) for g, block in enumerate(blocks)], axis=1)
        )
    return np.stack(losses), np.argmin(losses, axis=0).astype(np.int64)


def cutting_is_free(weight, gram, bits, group_size, ratios):
    """The error of rounding alone."""
    return a_clip_search(weight, gram, bits, group_size, ratios, honest=False)


right_one = check_function("search_clip", a_clip_search)
wrong_one = check_function("search_clip", cutting_is_free)
print(right_one, wrong_one, sep="\n\n")
assert right_one.is_right
assert not wrong_one.is_right

# %% [markdown]
# ## Exercises
#
# 1. With the planted bug above, which ratio is chosen most often, and what becomes of the layer?
# 2. Why must 1.0 be among the ratios?
# 3. Smaller groups have fewer weights that profit from a cut. Is the gain of clipping with groups of 32 larger or
#    smaller than with 128?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. The smallest: the narrower the range, the finer the steps, and what was cut off is not counted.
tried = [1.0, 0.9, 0.8, 0.7, 0.6]
_, choice = cutting_is_free(weight, gram, 3, 128, tried)
print(f"the smallest ratio is chosen by {np.mean(choice == 4):.0%} of the groups")
free = largest * np.float32(tried)[choice]
print(f"error left with it: {loss_with(free, spec) / loss_with(largest, spec):.2f}")
assert np.mean(choice == 4) > 0.5
# 2. So that not to cut is a choice: with it no group is ever worse than before.
assert (clips_of(spec, ratios=(1.0,)).loss_after == found.loss_before).all()
# 3. Smaller here: the range of a small group has fewer weights to serve, and fits them already.
small = QuantSpec(bits=3, group_size=32)
none = choose_grid(weight, spec=small)[0].shape  # (rows, groups)
plain = np.full(none, np.inf, dtype=np.float32)
gain = 1 - loss_with(clips_of(small).clip, small) / loss_with(plain, small)
print(f"gain with groups of 32: {gain:.1%}; of 128: {1 - own[3]:.1%}")
assert 0.0 < gain < 1 - own[3]
