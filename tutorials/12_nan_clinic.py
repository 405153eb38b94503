# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 12 The NaN clinic
#
# **Question.** A quantized model says nothing but NaN, or worse: nonsense, and no NaN at all. Where do such numbers come
# from, and where are they stopped?

# %%
import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref import QuantSpec
from awq_ref.checkpoint import demo_model_path
from awq_ref.errors import RangeError
from awq_ref.model.ops import rms_norm, softmax
from awq_ref.paper.linears import exchanged
from awq_ref.paper.output import STYLE
from awq_ref.quantize import dequantize_linear, pseudo_quantize, quantize, quantize_linear
from awq_ref.search import candidate
from awq_ref.search.folding import round_to
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
zeros = np.zeros(4, dtype=np.float32)
with np.errstate(all="ignore"):  # a quantizer written from memory: the step is the range over 15
    step = (zeros.max() - zeros.min()) / np.float32(15)
    print("a group of zeros, quantized from memory:", np.rint(zeros / step) * step)

# %%
spec = QuantSpec(bits=4, group_size=4)
patients = {
    "all zero": [0.0, 0.0, 0.0, 0.0],
    "one value": [0.7, 0.7, 0.7, 0.7],
    "one sign": [5.0, 5.1, 5.2, 5.3],
    "tiny": [3e-8, -2e-8, 1e-8, 0.0],
    "huge": [9e5, -9e5, 1e5, 0.0],
}
for name, group in patients.items():
    w = np.float32([group])
    with np.errstate(all="ignore"):
        step = ((w.max() - w.min()) / np.float32(15)).astype(np.float16).astype(np.float32)
        zero = np.clip(np.rint(-w.min() / step), 0, 15)
        naive = (np.clip(np.rint(w / step) + zero, 0, 15) - zero) * step
    try:
        ours = dequantize_linear(quantize_linear(w, spec=spec))[0].round(3)
    except RangeError as error:
        ours = f"refused: {str(error)[:70]} ..."
    print(f"{name:10} from memory {naive[0].round(3)}\n{'':10} the package {ours}")

# %% [markdown]
# Two are NaN, a third holds one. The others are worse, because they look healthy: 0.7 came back as 0, and 5 as 0.3,
# since no zero point of 4 bits reaches so far with steps of 0.02. All of them occur: pruned rows, padding, channels
# that never trained.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-1](../docs/equations.md#awq-1) | no range is narrower than 1e-5 | `np.maximum(width, RANGE_FLOOR)` | [codes_of_range](../awq_ref/quantize/grid.py) |
# | [AWQ-1](../docs/equations.md#awq-1) | a scale that float16 cannot hold is an error | `bad = ~np.isfinite(scales)` | [_stored_scales](../awq_ref/quantize/grid.py) |
# | [AWQ-6](../docs/equations.md#awq-6) | a dead channel is left out | `live = act_mean_abs > 0` | [candidate](../awq_ref/search/candidates.py) |
# | [AWQ-8](../docs/equations.md#awq-8) | a folded norm stays within its dtype | `np.clip(np.abs(norm_weight) / channel_scales, smallest, largest)` | [fold_into_norm](../awq_ref/search/folding.py) |
# | [LLM-3](../docs/equations.md#llm-3) | exp of differences to the maximum, never above 1 | `scores -= scores.max(axis=-1, keepdims=True)` | [take_exponentials](../awq_ref/model/ops.py) |
#
# Two rules run through all of them. A range that contains 0 ([decision
# 1](../docs/decisions.md#range-contains-zero)) makes "one value" and "one sign" harmless. And what cannot
# be right is refused where it arises, with row and group, not repaired in silence ([decision
# 18](../docs/decisions.md#errors-not-repairs)).
#
# ## The effect, seen
#
# One group of 128, its weights made larger and smaller by powers of two. In the middle nothing changes: steps follow
# the weights. At both ends float16 does.

# %%
group = np.random.default_rng(12).standard_normal((64, 128)).astype(np.float32) * np.float32(0.02)
factors = np.ldexp(np.float32(1.0), np.arange(-26, 27))


def share_lost(dtype, factor):
    """Return the error of the group, times a factor, as a share of its size; NaN where it is refused."""
    w = group * factor
    try:
        back = pseudo_quantize(w, spec=QuantSpec(bits=4, group_size=128, scale_dtype=dtype))
    except RangeError:
        return np.nan
    return float(np.linalg.norm((back - w) / np.abs(w).max()) / np.linalg.norm(w / np.abs(w).max()))


figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
widths = float(np.ptp(group)) * factors
found = {}
for dtype, color in (("float32", "C0"), ("float16", "C1")):
    found[dtype] = np.array([share_lost(dtype, factor) for factor in factors])
    axes.loglog(widths, found[dtype], "o-", ms=3, color=color, label=f"scales in {dtype}")
axes.axvspan(widths[0] / 2, 1e-5, color="0.92", zorder=0)
axes.axvline(15 * 2.0**-14, color="0.6", lw=1, ls=":")
axes.axvline(15 * 65504, color="0.6", lw=1, ls=":")
axes.text(8e-6, 0.13, "below the floor", color="0.4", fontsize=8, ha="right")
axes.text(15 * 2.0**-14 * 1.2, 0.25, "left of here: subnormal scales", color="0.4", fontsize=8)
axes.text(15 * 65504 * 0.7, 0.6, "refused", color="0.4", fontsize=8, ha="right")
axes.set(xlabel="width of the group's range", ylabel="error / weights", title="Where float16 ends")
_ = axes.legend(loc="center right")
middle = (widths > 1e-2) & (widths < 1e5)
assert np.ptp(found["float16"][middle]) < 0.01  # steps follow the weights
assert found["float16"][widths < 5e-7].min() == 1.0  # far below the floor all is 0, and nothing NaN
assert np.isnan(found["float16"][widths > 2e6]).all() and np.isfinite(found["float32"]).all()

# %% [markdown]
# ## Predict, then run
#
# A weight of exactly 0, a padding channel say, somewhere in a group of ordinary weights. **Before you run the next
# cell:** what does it come back as?

# %%
with_padding = group.copy()
with_padding[:, 100:] = 0.0
back = pseudo_quantize(with_padding, spec=QuantSpec(bits=4, group_size=128))
print("largest |w| that a zero came back as:", np.abs(back[:, 100:]).max())
assert (back[:, 100:] == 0.0).all()

# %% [markdown]
# As 0, exactly: the zero point is a whole number, so 0 is always on the grid ([P-ZERO](../docs/equations.md#p-zero)).
# A zero point in float, "because it is more precise", loses that.
#
# ## Break it
#
# Prune one group of one row of one layer of a working model, and quantize with the quantizer from memory. How far does
# one group's NaN get?

# %%
model = awq_ref.load_model(demo_model_path(), residency="dense")
ids = model.tokenizer.encode("def add(left, right):\n    return left + right\n")


def from_memory(w):
    """Quantize a weight in groups of 128, and back, without a floor."""
    groups = w.reshape(len(w), -1, 128)
    low, high = groups.min(2, keepdims=True), groups.max(2, keepdims=True)
    with np.errstate(all="ignore"):
        step = (high - low) / np.float32(15)
        zero = np.rint(-low / step)
        return ((np.clip(np.rint(groups / step) + zero, 0, 15) - zero) * step).reshape(w.shape)


def with_layer(quantizer):
    """Return the model with one group of block 1's up_proj pruned, that layer quantized, all else in float."""

    def change(layer, name, w):
        if (layer, name) != (1, "mlp.up_proj"):
            return w
        w = w.copy()
        w[17, :128] = 0.0
        return quantizer(w)

    return exchanged(model, change)


def ours(w):
    """Quantize a weight in groups of 128, and back."""
    return pseudo_quantize(w, spec=QuantSpec(bits=4, group_size=128))


for name, quantizer in (("from memory", from_memory), ("the package", ours)):
    weight = with_layer(quantizer).decoder.blocks[1].linears["mlp.up_proj"].weight
    with np.errstate(all="ignore"):
        logits = with_layer(quantizer).logits(ids[None])
    print(
        f"{name:12} NaN: {np.isnan(weight).mean():.4%} of one layer, {np.isnan(logits).mean():.0%} of the logits"
    )
    assert np.isnan(logits).all() == (quantizer is from_memory)  # the symptom: every logit of every token

# %% [markdown]
# 128 weights of one layer, and no logit is left. A row's NaN becomes a channel's NaN, the next norm takes the mean over
# all channels, and every token is gone. So look at the *first* block with a NaN, not at the last. `greedy` and
# `perplexity` refuse such logits, and the quantizer refuses a weight that holds a NaN.
#
# Integers hide it: cast to uint8, a NaN becomes some number, often 0, and the checkpoint looks whole.
#
# ## Check yourself
#
# The symmetric quantizer with all its degenerate groups: width = max |w|, at least 1e-5; scale = width / (2^(bits-1) -
# 1), rounded to float16; the zero point is 2^(bits-1) everywhere. The codes you may leave to the package.


# %%
def my_symmetric(weight, bits, group_size):
    """Return scales, zero_point (out_features, n_groups), int_weight."""
    raise NotImplementedError("your turn")


asked = {"symmetric": True, "range_rule": "zero", "scale_dtype": "float16"}
print(check_function("quantize_linear", my_symmetric, asked))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug has no floor.
def a_symmetric(weight, bits, group_size, floor=1e-5):
    """The largest weight is code 2^bits - 1."""
    width = np.maximum(np.abs(weight.reshape(len(weight), -1, group_size)).max(axis=2), np.float32(floor))
    scales = (width / np.float32(2 ** (bits - 1) - 1)).astype(np.float16)
    zero_point = np.full(scales.shape, 2 ** (bits - 1), dtype=np.uint8)
    codes = quantize(weight, scales, zero_point, spec=QuantSpec(bits, group_size, symmetric=True))
    return scales, zero_point, codes


def without_floor(weight, bits, group_size):
    """A group of zeros has the scale 0."""
    return a_symmetric(weight, bits, group_size, floor=0.0)


right = check_function("quantize_linear", a_symmetric, asked)
wrong = check_function("quantize_linear", without_floor, asked)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. In float16, which is the smallest |x| whose square overflows? What does that mean for an RMS norm computed in
#    float16, on a channel of 300?
# 2. What does the formula s = a^alpha, without care for dead channels, do to a channel with a = 0?
# 3. One score of an attention is 1000. What are exp(1000), and the softmax by `take_exponentials`?
# 4. bfloat16 has the range of float32. What does it pay for that?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. 256: its square is 65536, above 65504. The mean of squares is then infinite and the norm returns 0: nonsense, no NaN.
x = np.full((1, 4), 300.0, dtype=np.float16)
with np.errstate(over="ignore"):
    half = x / np.sqrt(np.mean(x * x, axis=1, keepdims=True, dtype=np.float16))
single = rms_norm(x.astype(np.float32), np.ones(4, dtype=np.float32), eps=0.0)
print("in float16", half[0], " in float32", single[0])
assert not half.any() and (single == 1.0).all()
# 2. s = 0: the column becomes 0, and the division by s is a division by 0. Ours gives it 1.
a = np.float32([0.5, 2.0, 0.0])
print("s of memory:", a**0.5, "  s of the package:", candidate(a, 0.5))
assert candidate(a, 0.5)[2] == 1.0
# 3. Infinity; and a clean 1.
with np.errstate(over="ignore"):
    print("exp(1000) =", np.exp(np.float32(1000.0)), "  softmax:", softmax(np.float32([[1000.0, 0.0]])))
assert np.isfinite(softmax(np.float32([[1000.0, 0.0]]))).all()
# 4. Precision: 8 bits where float16 has 11. Steps of a scale are eight times as coarse.
scale = np.float32([0.1])
errors = [abs(round_to(scale, dtype) - scale)[0] / 0.1 for dtype in ("float16", "bfloat16")]
print("0.1 is off by", [f"{error:.1e}" for error in errors], "in float16, bfloat16")
assert errors[1] > errors[0]
