# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 00 The map
#
# **Question.** The paper writes s, the code writes `channel_scales`, and a file holds `scales`, which are something
# else. Which of the three names belong together?

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref.checkpoint import Checkpoint, demo_model_path
from awq_ref.pack import pack_linear, unpack_linear
from awq_ref.paper.output import STYLE
from awq_ref.quantize import dequantize_linear, quantize_linear
from awq_ref.report.errors import relative_error
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
weight = np.float32([[-1.0, -0.5, 0.25, 0.875, 0.0, 0.125, -0.125, 0.5]])  # eight weights, w
linear = quantize_linear(weight, spec=awq_ref.QuantSpec(bits=4, group_size=8))
print(
    "q, int_weight:",
    linear.int_weight[0],
    "  delta, scales:",
    linear.scales[0],
    "  z, zero_point:",
    linear.zero_point[0],
)

# %% [markdown]
# Eight floats became eight codes, one step and one zero point: 8 * 4 + 16 + 4 bits instead of 256. The rest of this
# course is about doing that well, storing it, and computing with it.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-1](../docs/equations.md#awq-1) | lo, hi become the step | `np.maximum(width, RANGE_FLOOR), steps` | [codes_of_range](../awq_ref/quantize/grid.py) |
# | [AWQ-2](../docs/equations.md#awq-2) | the zero point, less its sign | `np.rint(low / delta)` | [codes_of_range](../awq_ref/quantize/grid.py) |
# | [AWQ-3](../docs/equations.md#awq-3) | weights become codes | `np.rint(codes, out=codes)` | [quantize](../awq_ref/quantize/affine.py) |
# | [AWQ-4](../docs/equations.md#awq-4) | codes become weights | `tile *= delta[rows]` | [dequantize](../awq_ref/quantize/affine.py) |
# | [AWQ-6](../docs/equations.md#awq-6) | channel scales | `np.maximum(act_mean_abs / act_mean_abs.max(), FLOOR) ** alpha` | [candidate](../awq_ref/search/candidates.py) |
# | [AWQ-8](../docs/equations.md#awq-8) | folded before rounding | `return weight * channel_scales` | [scale_consumer](../awq_ref/search/folding.py) |
#
# The map. Rows are things; a dash means that the thing has no name there.
#
# | the paper | the code | a file (layout gemm) | elsewhere | chapter |
# |---|---|---|---|---|
# | w, W | `weight`, (out, in) float32 | - | transposed, in some codes | 02 |
# | N, bits | `bits`, `QuantSpec.bits` | `bits` in config.json | w_bit, n_bit, nbits | 02 |
# | group size | `group_size` | `group_size` | q_group_size, block_size | 02 |
# | delta | `scales`, (out, groups) float16 | `scales`, (groups, out) float16 | s | 02 |
# | z | `zero_point`, (out, groups) uint8 | `qzeros`, (groups, out / 8) int32 | zeros; `zero_point` is a *flag* in config.json | 02 |
# | Q(w), integers | `int_weight`, (out, in) uint8 | `qweight`, (in, out / 8) int32 | W_q, qs | 02, 03 |
# | s_X | `act_mean_abs`, (in,) | - | x_max, although it is a mean | 05 |
# | s | `channel_scales`, (in,) | - : folded into norms and rows | scales, best_scales | 06, 08 |
# | alpha | `alpha` | - | ratio | 07 |
#
# The trap is in the fourth and the eighth row: two things called scales, and the one that AWQ is named for is in no
# file at all.
#
# A real file: the embedded model, rounded to nearest.

# %%
with tempfile.TemporaryDirectory() as folder:
    awq_ref.quantize_model(
        demo_model_path(), f"{folder}/int4", bits=4, group_size=128, recipe="rtn", samples=1, seq_len=64
    )
    checkpoint = Checkpoint.open(f"{folder}/int4")
    prefix = "model.layers.0.mlp.gate_proj."
    tensors = {name: checkpoint.read_stored(prefix + name) for name in ("qweight", "qzeros", "scales")}
    config = json.loads((Path(folder) / "int4" / "config.json").read_text(encoding="utf-8"))[
        "quantization_config"
    ]
gate = Checkpoint.open(demo_model_path()).read(prefix + "weight")
print(
    "gate_proj, out x in:",
    gate.shape,
    " in the file:",
    {name: (a.shape, str(a.dtype)) for name, a in tensors.items()},
)
print({key: config[key] for key in ("quant_method", "bits", "group_size", "version", "zero_point")})

# %% [markdown]
# ## The effect, seen
#
# What the names are for: the way of the data, from a float weight to a word in a file and back, with the arrays'
# shapes for this linear.

# %%
stations = (
    ((0, 1), "C0", "w\nweight (768, 256)\nfloat32"),
    ((1, 1), "C0", "w s\nchannel_scales\n(256,)"),
    ((2, 1), "C1", "delta, z\nscales (768, 2)\nzero_point (768, 2)"),
    ((2, 0), "C2", "q\nint_weight (768, 256)\nuint8"),
    ((1, 0), "C2", "qweight (256, 96)\nqzeros (2, 96)\nscales (2, 768)"),
    ((0, 0), "C0", "(q - z) delta\nin the matmul,\ntile by tile"),
)
steps = ("fold\nch. 06-08", "range\nch. 02, 09", "round\nch. 01, 02", "pack\nch. 03", "multiply\nch. 14")
figure, axes = plt.subplots(figsize=(8.4, 3.6), layout="constrained")
for place, colour, text in stations:
    box = {"boxstyle": "round,pad=0.6", "fc": "white", "ec": colour, "lw": 1.5}
    axes.text(*place, text, ha="center", va="center", bbox=box)
for (start, _, _), (end, _, _), text in zip(stations, stations[1:], steps, strict=False):
    gap = 34 if start[0] == end[0] else 66  # points between the middle of a box and the arrow
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.4", "shrinkA": gap, "shrinkB": gap}
    )
    offset = (30, 0) if start[0] == end[0] else (0, 15)
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    axes.annotate(
        text, middle, xytext=offset, textcoords="offset points", ha="center", va="center", color="0.35"
    )
axes.set(xlim=(-0.4, 2.4), ylim=(-0.35, 1.35), title="From a weight to a word and back")
axes.set_axis_off()

# %% [markdown]
# ## Predict, then run
#
# `down_proj` maps 768 inputs to 256 outputs, in groups of 128. **Before you run the next cell:** write down the
# shapes of its `qweight`, `qzeros` and `scales`.

# %%
down = quantize_linear(np.ones((256, 768), dtype=np.float32), spec=awq_ref.QuantSpec(bits=4, group_size=128))
packed = pack_linear(down, "gemm")
print({name: array.shape for name, array in packed.items()})
assert {name: array.shape for name, array in packed.items()} == {
    "qweight": (768, 32),
    "qzeros": (6, 32),
    "scales": (6, 256),
}

# %% [markdown]
# Inputs stand first in the file, outputs first in the code; eight outputs to a word.
#
# ## Break it
#
# The file's `scales` are (groups, out). A reader who wants (out, groups) may *reshape* instead of transposing. The
# number of elements fits, so nothing complains.

# %%
read = unpack_linear(tensors, awq_ref.QuantSpec(bits=4, group_size=128), "gemm")
right = dequantize_linear(read)
reshaped = tensors["scales"].reshape(read.scales.shape)
wrong = (read.int_weight.astype(np.float32) - np.repeat(read.zero_point, 128, axis=1)) * np.repeat(
    reshaped, 128, axis=1
)
for name, back in (("transposed", right), ("reshaped", wrong)):
    print(f"{name:11} relative error of the weight {relative_error(gate, back - gate):.3f}")
assert relative_error(gate, right - gate) < 0.15
assert relative_error(gate, wrong - gate) > 1.5 * relative_error(
    gate, right - gate
)  # the symptom: plausible, and wrong

# %% [markdown]
# All scales of a layer look alike, so the error is not enormous: about twice what rounding costs. A model read like
# this speaks, badly.
#
# ## Check yourself
#
# Every chapter ends like this: you write one function, and golden vectors judge it. They were made by slow, plain
# oracles, and they hold the package itself to the same answers. Here [AWQ-4](../docs/equations.md#awq-4): codes,
# scales and zero points to a weight. Row i, group g of the scales belongs to the inputs g * group_size and following;
# -1 means one group per row.


# %%
def my_weight(int_weight, scales, zero_point, group_size):
    """Return float32 (out, in)."""
    raise NotImplementedError("your turn")


asked = {"weight_dtype": "float32"}
print(check_function("dequantize", my_weight, asked))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug repeats the scales tile by tile (s0 s1 s0 s1 ...) instead of group by group.
def a_weight(int_weight, scales, zero_point, group_size, spread=np.repeat):
    """(q - z) delta."""
    size = int_weight.shape[1] // scales.shape[1]
    wide = spread(scales.astype(np.float32), size, 1), spread(zero_point.astype(np.float32), size, 1)
    return (int_weight - wide[1]) * wide[0]


def a_tiled_weight(int_weight, scales, zero_point, group_size):
    """The scales of all groups, again and again."""
    return a_weight(
        int_weight, scales, zero_point, group_size, spread=lambda array, size, axis: np.tile(array, (1, size))
    )


accepted = check_function("dequantize", a_weight, asked)
rejected = check_function("dequantize", a_tiled_weight, asked)
print(accepted, rejected, sep="\n\n")
assert accepted.is_right
assert not rejected.is_right

# %% [markdown]
# ## Exercises
#
# 1. Find the code's `scales` in the file's: where is the step of output 5, group 1 of gate_proj?
# 2. config.json says `"zero_point": true`. What would `false` mean, and what does the file store then?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. At [group, output].
assert tensors["scales"][1, 5] == read.scales[5, 1]
# 2. A symmetric grid: no zero points of its own; each is 2**(bits - 1) = 8, and gemm stores that 8 everywhere.
symmetric = quantize_linear(gate, spec=awq_ref.QuantSpec(bits=4, group_size=128, symmetric=True))
assert (symmetric.zero_point == 8).all()
assert (pack_linear(symmetric, "gemm")["qzeros"].view(np.uint32) == 0x88888888).all()
