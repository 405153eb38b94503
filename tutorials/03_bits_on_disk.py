# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 03 Bits on disk
#
# **Question.** Eight 4-bit codes fit into one 32-bit word. In which order, and whose codes are they?

# %%
import matplotlib.pyplot as plt
import numpy as np

from awq_ref import QuantSpec
from awq_ref.pack import AWQ_ORDER, pack_linear, pack_nibbles, unpack_linear, unpack_nibbles
from awq_ref.paper.output import STYLE
from awq_ref.spec import QuantizedLinear
from awq_ref.vectors import check_function, draw_layout
from awq_ref.vectors.addresses import PLACES

plt.rcParams.update(STYLE)

# %%
codes = np.array([[0, 1, 2, 3, 4, 5, 6, 7]], dtype=np.uint8)
print(f"in sequence:  0x{int(pack_nibbles(codes)[0, 0]):08x}")
print(f"AWQ's order:  0x{int(pack_nibbles(codes, order=AWQ_ORDER)[0, 0]):08x}")

# %% [markdown]
# A hexadecimal digit is a nibble: four bits, one code. The *lowest* nibble stands at the right. So the first word
# reads 0, 1, 2, ... from the right. The second reads 0 2 4 6 1 3 5 7 from the right: even positions in the low half,
# odd ones in the high half. One AND with 0x000f000f then gives a GPU codes 0 and 1 in the two halves of a register.
#
# ## The equation beside its line
#
# A layout is a map from (output, input, bit) to (word, bit of the word), one to one:
# [P-PACK](../docs/equations.md#p-pack).
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [P-PACK](../docs/equations.md#p-pack) | nibble j holds the code at order[j] | `eights[:, :, list(order)]` | [pack_nibbles](../awq_ref/pack/nibbles.py) |
# | [P-PACK](../docs/equations.md#p-pack) | and back | `codes[:, :, list(order)] = in_order` | [unpack_nibbles](../awq_ref/pack/nibbles.py) |
# | [P-PACK](../docs/equations.md#p-pack) | gemm: a word holds eight *outputs* of one input | `np.ascontiguousarray(linear.int_weight.T), order=AWQ_ORDER` | [pack](../awq_ref/pack/gemm.py) |
# | [P-PACK](../docs/equations.md#p-pack) | GPTQ v1: a word of zero points is stored less 0x11111111 | `words - ONES[bits] * np.uint32(stored_less)` | [_pack_zeros](../awq_ref/pack/gptq.py) |

# %%
spec = QuantSpec(bits=4, group_size=32)
rng = np.random.default_rng(3)
linear = QuantizedLinear(
    int_weight=rng.integers(0, 16, (8, 64), dtype=np.uint8),
    scales=np.full((8, 2), 0.125, dtype=np.float16),
    zero_point=np.repeat(np.arange(8, dtype=np.uint8)[:, None], 2, axis=1),
    spec=spec,
)
names = ("gemm", "gemv", "gemv_fast", "gptq", "pack-quantized")
for layout in names:
    tensors = pack_linear(linear, layout)
    print(f"{layout:15}", {name: array.shape for name, array in tensors.items()})
print("\n".join(draw_layout("gemm", rows=8, columns=64).splitlines()[:5]))

# %% [markdown]
# Read one word by hand. `qweight[0, 0]` of gemm holds input 0 of the outputs 0 to 7; nibble 4 (bits 16 to 19) is
# output 1.

# %%
word = int(pack_linear(linear, "gemm")["qweight"].view(np.uint32)[0, 0])
nibbles = [(word >> (4 * j)) & 0xF for j in range(8)]
print("nibbles 0 to 7:", nibbles, "  outputs 0 to 7 of input 0:", linear.int_weight[:, 0].tolist())
assert [nibbles[AWQ_ORDER.index(output)] for output in range(8)] == linear.int_weight[:, 0].tolist()

# %% [markdown]
# ## The effect, seen
#
# The first 32 bits of the weight's words in five layouts, read from the formulas of the conformance oracle. Each cell
# is a nibble, high end left as in a hexadecimal number; it says which weight (output, input) it belongs to. The
# colour is the output.


# %%
def owners(layout):
    """Return (output, input) of each nibble in the first 32 bits, low end first."""
    place = PLACES[layout]
    bits = 16 if place.word == "int16" else 32
    found = {}
    for output in range(8):
        for column in range(64):
            row, word, bit = place.weight[1](output, column, 0, 4)
            found[row, word * bits + bit] = (output, column)
    return [found[0, 4 * nibble] for nibble in range(8)]


figure, axes = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
colours = plt.get_cmap("tab10")
for line, layout in enumerate(names):
    for nibble, (output, column) in enumerate(owners(layout)):
        axes.barh(line, 1, left=7 - nibble, height=0.8, color=colours(output), alpha=0.55, edgecolor="white")
        axes.text(7.5 - nibble, line, f"{output},{column}", ha="center", va="center")
axes.set_yticks(range(len(names)), names)
axes.set_xticks([x + 0.5 for x in range(8)], [f"{28 - 4 * x}-{31 - 4 * x}" for x in range(8)])
axes.set_xlabel("bits of the word")
axes.set_title("Which weight (output, input) owns which nibble")
axes.grid(visible=False)
axes.invert_yaxis()

# %% [markdown]
# gemm gathers eight outputs, and shuffles them. The others gather inputs of one output. gptq looks the same in its
# first word, but its words run down the inputs, so its tensor has the other shape. gemv_fast interleaves in steps of
# 8.
#
# Now read all five by hand: take the first 32 bits of each file's tensor apart, and look every nibble up in the
# picture.

# %%
for layout in names:
    words = pack_linear(linear, layout)[PLACES[layout].weight[0]]
    word = int(np.ascontiguousarray(words).reshape(-1).view(np.uint32)[0])  # two 16-bit words in gemv_fast
    nibbles = [(word >> (4 * j)) & 0xF for j in range(8)]
    print(f"{layout:15} 0x{word:08x}  nibbles from the low end {nibbles}")
    assert nibbles == [linear.int_weight[output, column] for output, column in owners(layout)]

# %% [markdown]
# ## Predict, then run
#
# A word is stored as int32. **Before you run the next cell:** for which codes is the word negative? And what does
# `word >> 28` give for such a word in NumPy?

# %%
high = pack_nibbles(np.array([[0, 0, 0, 0, 0, 0, 0, 9]], dtype=np.uint8))
print(
    "word",
    high[0, 0],
    "  shifted as int32:",
    high[0, 0] >> 28,
    "  as uint32:",
    high.view(np.uint32)[0, 0] >> 28,
)
assert high[0, 0] >> 28 == 9 - 16
assert high.view(np.uint32)[0, 0] >> 28 == 9

# %% [markdown]
# When the last code is 8 or more. The shift copies the sign, so 9 becomes -7: mask after you shift, or shift as
# unsigned.
#
# ## Break it
#
# Two bugs that real readers had. First, no order: an AWQ file read as if its nibbles stood in sequence.

# %%
tensors = pack_linear(linear, "gemm")
in_sequence = unpack_nibbles(tensors["qweight"]).T
wrong_rows = (in_sequence != linear.int_weight).any(axis=1)
print("wrong outputs:", np.flatnonzero(wrong_rows), " the histogram of the codes is right:", end=" ")
print(
    (
        np.bincount(in_sequence.ravel(), minlength=16) == np.bincount(linear.int_weight.ravel(), minlength=16)
    ).all()
)
assert np.flatnonzero(wrong_rows).tolist() == [1, 2, 3, 4, 5, 6]

# %% [markdown]
# Outputs 0 and 7 are right, every statistic looks fine, and the model talks nonsense.
#
# Second, GPTQ's zero points: v1 stores z - 1, v2 stores z. Take one for the other, and all are off by one. Worse, v1
# subtracts 0x11111111 from the whole word: a zero point of 0 becomes 15 and *borrows* from its neighbour.

# %%
v1 = pack_linear(linear, "gptq")
as_v2 = unpack_linear(v1, spec, "gptq_v2").zero_point[:, 0]
print(f"word 0x76543210 - 0x11111111 = 0x{int(v1['qzeros'].view(np.uint32)[0, 0]):08x}")
print("zero points:", linear.zero_point[:, 0], "  read as v2:", as_v2)
assert as_v2.tolist() == [
    15,
    15,
    0,
    2,
    3,
    4,
    5,
    6,
]  # off by one; 0 became 15, 1 lost 2 and became 15, 2 lost 2

# %% [markdown]
# ## Check yourself
#
# Read gemm: `qweight` int32 (inputs, outputs / 8), `qzeros` int32 (groups, outputs / 8), `scales` float16 (groups,
# outputs). Return codes (outputs, inputs) uint8, scales (outputs, groups) and zero points (outputs, groups) uint8.


# %%
def my_reader(qweight, scales, qzeros):
    """Return int_weight, scales, zero_point."""
    raise NotImplementedError("your turn")


print(check_function("unpack", my_reader, {"layout": "gemm"}))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution, with shifts and masks alone; the planted bug forgets the order.
def codes_of(words, order):
    """Return (rows, 8 * words) codes."""
    codes = np.empty((*words.shape, 8), dtype=np.uint8)
    for nibble, position in enumerate(order):
        codes[:, :, position] = (words >> (4 * nibble)) & 0xF
    return codes.reshape(len(words), -1)


def a_reader(qweight, scales, qzeros, order=(0, 2, 4, 6, 1, 3, 5, 7)):
    """Return int_weight, scales, zero_point."""
    return codes_of(qweight, order).T, scales.T, codes_of(qzeros, order).T


def a_wrong_reader(qweight, scales, qzeros):
    """In sequence."""
    return a_reader(qweight, scales, qzeros, order=range(8))


right = check_function("unpack", a_reader, {"layout": "gemm"})
wrong = check_function("unpack", a_wrong_reader, {"layout": "gemm"})
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. A gemm word is 0x75316420. Which codes have the outputs 0 to 7?
# 2. In `gemv`, which word and which bits hold the weight of output 2, input 13?
# 3. How large are `qweight`, `qzeros` and `scales` of a 4096 x 4096 linear in gemm, groups of 128, in bytes? How many
#    bits per weight?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. 0 to 7: it is the word of the first cell.
assert unpack_nibbles(np.array([[0x75316420]], dtype=np.int32), order=AWQ_ORDER)[0].tolist() == list(range(8))
# 2. Row 2, word 13 // 8 = 1, bits 4 * (13 % 8) = 20 to 23.
assert PLACES["gemv"].weight[1](2, 13, 0, 4) == (2, 1, 20)
# 3. 4096 * 512 words; 32 * 512 words; 32 * 4096 halves.
sizes = 4096 * 512 * 4, 32 * 512 * 4, 32 * 4096 * 2
print(sizes, "bytes,", 8 * sum(sizes) / 4096**2, "bits per weight")
assert 8 * sum(sizes) / 4096**2 == 4 + 20 / 128
