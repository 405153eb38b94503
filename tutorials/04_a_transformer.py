# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 04 A transformer in NumPy
#
# **Question.** A text goes in, a number for each possible next token comes out. What happens between?

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref.checkpoint import demo_model_path
from awq_ref.model import block_forward, make_context
from awq_ref.model.ops import causal_mask, rms_norm, silu, softmax
from awq_ref.model.rope import apply_rope, rope_frequencies, rope_tables
from awq_ref.paper.output import STYLE
from awq_ref.report.perplexity import token_losses
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
model = awq_ref.load_model(demo_model_path(), residency="dense")
text = "def __init__(self, name):\n        self.name ="
ids = model.tokenizer.encode(text)  # the first one marks the beginning
logits = model.logits(ids[None])[0, -1]
best = np.argsort(-logits)[:3]
print(
    len(ids),
    "tokens; the likeliest next ones:",
    [model.tokenizer.decode([i]) for i in best],
    logits[best].round(2),
)

# %% [markdown]
# The embedded model has 5.8 million weights and has read Python's standard library. It knows that `self.name = name`.
# In this chapter we walk from the ids to these logits ourselves. All matrices on the way are linears: they are what
# the other chapters quantize.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [LLM-1](../docs/equations.md#llm-1) | each token to unit mean square, channels times gamma | `y: F32 = np.divide(x, np.sqrt(mean_square + eps), out=out)` | [rms_norm](../awq_ref/model/ops.py) |
# | [LLM-2](../docs/equations.md#llm-2) | turn pairs of channels by the position | `partners *= sines` | [apply_rope](../awq_ref/model/rope.py) |
# | [LLM-3](../docs/equations.md#llm-3) | scores, softmax, average of values | `mixed: F32 = weights @ v` | [attend_tile](../awq_ref/model/attention.py) |
# | [LLM-4](../docs/equations.md#llm-4) | gate, up, down | `part *= rows_of_up[tile]` | [_mlp](../awq_ref/model/block.py) |
# | [LLM-8](../docs/equations.md#llm-8) | what a module makes is *added* to the stream | `stream = stream +` | [add_branch](../awq_ref/model/block.py) |
#
# One block, by hand. T tokens, H = 8 query heads, G = 4 key-value heads, D = 32 channels a head.

# %%
config, decoder = model.config, model.decoder
T, H, G, D = len(ids), config.num_attention_heads, config.num_key_value_heads, config.head_dim
cos, sin = rope_tables(
    np.arange(T, dtype=np.int64)[:, None], rope_frequencies(config.rope, D)
)  # (T, 1, D / 2)


def turned(x, cos=cos, sin=sin):
    """Return x (T, heads, D), turned by the positions."""
    return apply_rope(x, cos, sin, out=np.empty_like(x))


def attention_weights(stream, block):
    """Return who looks at whom, (H, T, T): rows are queries."""
    x = rms_norm(stream, block.norms["input_layernorm"], eps=config.rms_norm_eps)
    q = turned(block.linears["self_attn.q_proj"](x).reshape(T, H, D))
    k = turned(block.linears["self_attn.k_proj"](x).reshape(T, G, D))
    k = np.repeat(k, H // G, axis=1)  # (T, H, D): two query heads read one key-value head
    scores = np.einsum("thd,shd->hts", q, k) / np.float32(np.sqrt(D))
    return softmax(scores + causal_mask(T))


def block_by_hand(stream, block):
    """Return the stream after one block."""
    linears = block.linears
    x = rms_norm(stream, block.norms["input_layernorm"], eps=config.rms_norm_eps)
    v = np.repeat(linears["self_attn.v_proj"](x).reshape(T, G, D), H // G, axis=1)
    mixed = np.einsum("hts,shd->thd", attention_weights(stream, block), v)
    stream = stream + linears["self_attn.o_proj"](mixed.reshape(T, H * D))
    x = rms_norm(stream, block.norms["post_attention_layernorm"], eps=config.rms_norm_eps)
    gated = silu(linears["mlp.gate_proj"](x)) * linears["mlp.up_proj"](x)
    return stream + linears["mlp.down_proj"](gated)


stream = decoder.embed(ids[None])[0]  # (T, 256)
streams = [stream]
for block in decoder.blocks:
    streams.append(block_by_hand(streams[-1], block))
by_hand = decoder.head(rms_norm(streams[-1], decoder.norm, eps=config.rms_norm_eps))[-1]
print("largest difference from the package's logits:", np.abs(by_hand - logits).max())
assert np.allclose(by_hand, logits, atol=1e-3)
assert np.allclose(
    block_forward(stream[None], decoder.blocks[0], config, make_context(config, T))[0], streams[1], atol=1e-4
)

# %% [markdown]
# ## The effect, seen
#
# Left: one head. Each row is a token that looks back; the last row must find out which name comes next. Right: read
# the stream after each block as if it were the last one (a "logit lens"), and see when the answer appears.

# %%
tokens = [model.tokenizer.decode([i]).replace("\n", "\\n") or "start" for i in ids]
wanted = int(best[0])
target = tokens.index(" name")
maps = [attention_weights(stream, block) for stream, block in zip(streams, decoder.blocks, strict=False)]
layer, head = np.unravel_index(np.argmax([looks[:, -1, target] for looks in maps]), (len(maps), H))
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.0), layout="constrained", width_ratios=(1.3, 1))
left.imshow(maps[layer][head], cmap="Blues", vmin=0, vmax=1)
left.set_xticks(range(T), tokens, rotation=90)
left.set_yticks(range(T), tokens)
left.grid(visible=False)
left.set_title(f"Block {layer}, head {head}: who looks at whom")
lens = [
    softmax(decoder.head(rms_norm(s[-1:], decoder.norm, eps=config.rms_norm_eps)))[0, wanted] for s in streams
]
right.plot(range(len(lens)), lens, "o-")
right.set(
    xlabel="blocks passed",
    ylabel=f"probability of {tokens[target]!r}",
    title="When the answer appears",
    ylim=(0, 1),
)
print(
    f"block {layer}, head {head}: the last token looks at ' name' with weight {maps[layer][head, -1, target]:.2f}"
)

# %% [markdown]
# ## Predict, then run
#
# Rope turns queries and keys by their positions. Let the whole text begin at position 1000 instead of 0. **Before you
# run the next cell:** what happens to the scores between its tokens?

# %%
q = np.random.default_rng(4).standard_normal((T, 1, D), dtype=np.float32)
k = np.random.default_rng(5).standard_normal((T, 1, D), dtype=np.float32)
far = rope_tables(np.arange(1000, 1000 + T, dtype=np.int64)[:, None], rope_frequencies(config.rope, D))
here = np.einsum("thd,shd->ts", turned(q), turned(k))
there = np.einsum("thd,shd->ts", turned(q, *far), turned(k, *far))
print("scores up to", np.abs(here).max().round(1), " largest change", np.abs(here - there).max())
assert np.abs(here - there).max() < 1e-4 * np.abs(here).max()

# %% [markdown]
# Nothing: a score depends on the *distance* of the two positions only.
#
# ## Break it
#
# There are two conventions for the pairs that rope turns: channel i with i + D / 2 (Hugging Face), or 2 i with 2 i +
# 1 (the first LLaMA). Files look alike. Take the wrong one, and see what a text costs, in nats per token.

# %%
code = (
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n"
    "    def push(self, item):\n        self.items.append(item)\n"
)
code_ids = model.tokenizer.encode(code)
wrong_rope = replace(decoder, config=replace(config, rope=replace(config.rope, neighbours=True)))
costs = {}
for name, variant in (("half", decoder), ("neighbours", wrong_rope)):
    costs[name] = float(token_losses(variant.logits(code_ids[None])[0, :-1], code_ids[1:]).mean())
    print(f"{name:11} {costs[name]:.2f} nats per token, perplexity {np.exp(costs[name]):.1f}")
assert costs["neighbours"] > costs["half"] + 0.25  # the symptom: fluent at first sight, and clearly worse

# %% [markdown]
# Nearby tokens still find each other, so the text is not noise. Such a model passes for "badly quantized".
#
# ## Check yourself
#
# Rope, as Hugging Face pairs it: x (tokens, heads, head_dim), the first `rotary_dim` channels turn, the rest is
# copied. f_i = theta^(-2 i / rotary_dim).


# %%
def my_rope(x, positions, theta, rotary_dim):
    """Return y, of x's shape."""
    raise NotImplementedError("your turn")


asked = {"pairing": "half", "rope_type": "default"}
print(check_function("rope", my_rope, asked))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution, in float64; the planted bug is the other pairing.
def a_rope(x, positions, theta, rotary_dim, neighbours=False):
    """Turn pairs."""
    half = rotary_dim // 2
    frequencies = theta ** (-2.0 * np.arange(half, dtype=np.float64) / rotary_dim)
    angles = positions[:, None, None] * frequencies  # (T, 1, half)
    first, second = (
        (slice(0, rotary_dim, 2), slice(1, rotary_dim, 2))
        if neighbours
        else (slice(half), slice(half, rotary_dim))
    )
    y = x.astype(np.float64)
    y[..., first] = x[..., first] * np.cos(angles) - x[..., second] * np.sin(angles)
    y[..., second] = x[..., second] * np.cos(angles) + x[..., first] * np.sin(angles)
    return y


def other_pairs(x, positions, theta, rotary_dim):
    """Neighbouring channels."""
    return a_rope(x, positions, theta, rotary_dim, neighbours=True)


right_one = check_function("rope", a_rope, asked)
wrong_one = check_function("rope", other_pairs, asked)
print(right_one, wrong_one, sep="\n\n")
assert right_one.is_right
assert not wrong_one.is_right

# %% [markdown]
# ## Exercises
#
# 1. How many of the model's weights stand in the linears of its blocks, which are what gets quantized? How many in
#    the embedding?
# 2. Blocks *add* to a stream, so one of them can be left out. Which one can `code` least do without?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. Out times in, over all linears of all blocks. The head is the embedding itself ("tied").
linears = sum(op.out_features * op.in_features for block in decoder.blocks for op in block.linears.values())
embedding = decoder.embed_tokens.size
print(f"linears {linears:,}, embedding {embedding:,}")
assert linears == 6 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 768)
# 2. The first one: all others were trained to read what it adds.
without = []
for left_out in range(len(decoder.blocks)):
    x = decoder.embed(code_ids[None])
    for number, block in enumerate(decoder.blocks):
        x = x if number == left_out else block_forward(x, block, config, make_context(config, len(code_ids)))
    lamed = decoder.head(rms_norm(x, decoder.norm, eps=config.rms_norm_eps))[0]
    without.append(float(token_losses(lamed[:-1], code_ids[1:]).mean()))
print(f"all blocks {costs['half']:.2f} nats per token; without block 0, 1, ...", np.round(without, 2))
assert int(np.argmax(without)) == 0
