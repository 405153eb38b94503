# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 08 Folding
#
# **Question.** Q(W s) wants its input divided by s. Who divides it, if no new operation shall run when the model
# speaks?

# %%
import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref.checkpoint import demo_model_path
from awq_ref.matmul import DenseLinear
from awq_ref.model import Block, block_forward, make_context
from awq_ref.model.ops import gelu, relu, rms_norm
from awq_ref.paper.linears import dense_weight
from awq_ref.paper.output import STYLE
from awq_ref.quantize import quantize_linear
from awq_ref.search.folding import fold_into_linear, fold_into_norm, scale_consumer
from awq_ref.search.ties import query_head_tie
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
x = np.float32([[3.0, -1.0, 2.0, 0.5]])
gamma, s = np.float32([1.0, 2.0, 0.5, 1.0]), np.float32([4.0, 1.0, 0.5, 2.0])
weight = np.float32([[1.0, 2.0, -1.0, 0.5]])
print(
    "before:",
    rms_norm(x, gamma, eps=1e-5) @ weight.T,
    " after:",
    rms_norm(x, gamma / s, eps=1e-5) @ (weight * s).T,
)

# %% [markdown]
# Nobody new divides. A norm multiplies every channel by its weight gamma, last of all. So gamma / s is stored in
# place of gamma, and the division costs nothing. What stands before a linear is its *producer*; the fold is right if
# the producer can take 1 / s, and if *everyone* who reads it is multiplied by s.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-8](../docs/equations.md#awq-8) | columns of the readers times s | `return weight * channel_scales` | [scale_consumer](../awq_ref/search/folding.py) |
# | [AWQ-8](../docs/equations.md#awq-8) | rows of a linear before it by s | `weight / channel_scales[:, None]` | [fold_into_linear](../awq_ref/search/folding.py) |
# | [AWQ-8](../docs/equations.md#awq-8) | a norm by s, rounded as it is stored | `np.abs(norm_weight) / channel_scales` | [fold_into_norm](../awq_ref/search/folding.py) |
# | [AWQ-8](../docs/equations.md#awq-8) | and the s that this rounding amounts to | `np.where(live, norm_weight / stored` | [fold_into_norm](../awq_ref/search/folding.py) |
# | [AWQ-8](../docs/equations.md#awq-8) | query head h reads kv head h // (H / G) | `np.repeat(rows, n_heads // n_kv_heads, axis=1)` | [query_head_tie](../awq_ref/search/ties.py) |
#
# A Llama block has four such places: norm to q, k, v; v to o; norm to gate and up; up to down. In the code they are
# [rows of a plan](../awq_ref/search/plan.py). Between up and down stands an elementwise product, and a factor passes
# through a product. Between v and o stands the attention: it mixes tokens, never channels, so a factor per channel
# passes through too.

# %%
model = awq_ref.load_model(demo_model_path(), residency="dense")
config, block = model.config, model.decoder.blocks[0]
ids = model.tokenizer.encode("class Stack:\n    def push(self, item):\n        self.items.append(item)\n")
stream = model.decoder.embed(ids[None])  # (1, tokens, 256)
context = make_context(config, len(ids))
before = block_forward(stream, block, config, context)


original = block.norms, {name: dense_weight(linear) for name, linear in block.linears.items()}


def change(norms, weights):
    """Return the largest change of the block's output, as a share of its largest number."""
    linears = {name: DenseLinear(weight) for name, weight in weights.items()}
    after = block_forward(stream, Block(norms, linears), config, context)
    return float(np.abs(after - before).max() / np.abs(before).max())


rng = np.random.default_rng(8)
tie = query_head_tie(
    n_heads=config.num_attention_heads, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim
)
s_norm = np.exp2(rng.uniform(-2, 2, config.hidden_size)).astype(np.float32)
s_value = np.exp2(rng.uniform(-2, 2, tie.max() + 1)).astype(np.float32)  # one per row of v_proj
s_up = np.exp2(rng.uniform(-2, 2, config.intermediate_size)).astype(np.float32)


def norm_to(state, norm, readers):
    """Fold s into a norm and the linears that read it."""
    norms, weights = dict(state[0]), dict(state[1])
    norms[norm], effective = fold_into_norm(norms[norm], s_norm, storage_dtype="float16")
    for name in readers:
        weights[name] = scale_consumer(weights[name], effective)
    return norms, weights


def linear_to(state, producer, reader, rows, columns):
    """Fold scales into the rows of a linear and the columns of its reader."""
    norms, weights = state[0], dict(state[1])
    weights[producer], _ = fold_into_linear(weights[producer], None, rows)
    weights[reader] = scale_consumer(weights[reader], columns)
    return norms, weights


qkv = [f"self_attn.{name}_proj" for name in "qkv"]
folds = {
    "norm -> q, k, v": lambda state: norm_to(state, "input_layernorm", qkv),
    "v -> o": lambda state: linear_to(state, "self_attn.v_proj", "self_attn.o_proj", s_value, s_value[tie]),
    "norm -> gate, up": lambda state: norm_to(
        state, "post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"]
    ),
    "up -> down": lambda state: linear_to(state, "mlp.up_proj", "mlp.down_proj", s_up, s_up),
}
changes = {name: change(*fold(original)) for name, fold in folds.items()}
print({name: f"{value:.1e}" for name, value in changes.items()})
assert max(changes.values()) < 1e-5  # float32 has 24 bits; scales were between 1/4 and 4

# %% [markdown]
# Four folds with random scales, and the block computes what it did before, up to the last bits of float32.
#
# ## The effect, seen
#
# Left: which row of v_proj feeds which column of o_proj. This model has 8 query heads and 4 key-value heads, so each
# row of v feeds *two* columns of o. Right: the same four folds, and three that look just as reasonable.

# %%
untied = np.exp2(rng.uniform(-2, 2, len(tie))).astype(np.float32)  # a scale for each column of o_proj
first_reader = [int(np.flatnonzero(tie == row)[0]) for row in range(len(s_value))]
mistakes = {
    "v -> o, not tied": lambda state: linear_to(
        state, "self_attn.v_proj", "self_attn.o_proj", untied[first_reader], untied
    ),
    "gate, not up -> down": lambda state: linear_to(state, "mlp.gate_proj", "mlp.down_proj", s_up, s_up),
    "norm -> q, k; v forgotten": lambda state: norm_to(state, "input_layernorm", qkv[:2]),
}
wrong = {name: change(*fold(original)) for name, fold in mistakes.items()}
figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4), layout="constrained", width_ratios=(1, 1.4))
heads = np.zeros((len(s_value), len(tie)), dtype=np.float32)
heads[tie, np.arange(len(tie), dtype=np.int64)] = 1.0
left.spy(heads, markersize=1.5, aspect="auto", color="C0")
left.set(
    xlabel="column of o_proj (8 query heads)", ylabel="row of v_proj (4 kv heads)", title="Who feeds whom"
)
left.xaxis.set_ticks_position("bottom")
left.set_xticks(range(0, 257, 32))
names = [*changes, *wrong]
colours = ["C0"] * len(changes) + ["C3"] * len(wrong)
right.barh(names, [*changes.values(), *wrong.values()], color=colours)
right.set(
    xscale="log",
    xlabel="change of the block's output",
    title="Folds (blue) and mistakes (red)",
    xlim=(1e-8, 10),
)
right.invert_yaxis()

# %% [markdown]
# A wrong fold does not crash. It is a model that is a little, or much, worse, and whoever did it blames the
# quantization. So here folding is tested on its own, for every family, before anything is rounded
# ([P-FOLD](../docs/equations.md#p-fold)).
#
# ## Predict, then run
#
# gamma / s must be stored in 16 bits, so it is rounded. **Before you run the next cell:** by how much does the
# function change if the readers are multiplied by s, and by how much if they are multiplied by s' = gamma / stored?

# %%
gamma = block.norms["input_layernorm"]
stored, effective = fold_into_norm(gamma, s_norm, storage_dtype="bfloat16")
for name, columns in (("s ", s_norm), ("s'", effective)):
    weights = original[1] | {reader: scale_consumer(original[1][reader], columns) for reader in qkv}
    print(f"readers times {name}: change {change({**block.norms, 'input_layernorm': stored}, weights):.1e}")
assert np.abs(stored * effective / gamma - 1.0).max() < 2e-7
assert np.abs(stored * s_norm / gamma - 1.0).max() > 1e-3  # bfloat16 has 8 bits

# %% [markdown]
# The rounding of a norm need not be an error: the readers' weights are about to be rounded anyway, and take it along
# for free.
#
# ## Break it
#
# Gemma's checkpoints store w = gamma - 1, and the norm multiplies by 1 + w. A converter that divides w by s, as it
# would any norm, gives (1 + w / s), which is not (1 + w) / s.

# %%
w = np.float32([0.5, -0.2, 1.0, 0.0])
s = np.float32([4.0, 0.25, 2.0, 8.0])
x, weight = np.float32([[3.0, -1.0, 2.0, 0.5]]), np.float32([[1.0, 2.0, -1.0, 0.5]])
truth = rms_norm(x, 1 + w, eps=1e-5) @ weight.T
broken = rms_norm(x, 1 + w / s, eps=1e-5) @ (weight * s).T
stored, effective = fold_into_norm(1 + w, s, storage_dtype="1+bfloat16")
mended = rms_norm(x, stored, eps=1e-5) @ (weight * effective).T
print("right", truth[0], " w / s", broken[0], " (1 + w) / s - 1, rounded and compensated", mended[0])
assert np.abs(broken - truth) > 0.5 * np.abs(truth)  # the symptom: another function, before any rounding
assert np.allclose(mended, truth, rtol=1e-5)

# %% [markdown]
# ## Check yourself
#
# The fold of v into o stands or falls with one line: which key-value head does a query head read? Write attention
# with grouped queries: q (T, heads, D), k and v (S, kv_heads, D); the queries are the last T of the S columns and see
# nothing of the future; scores are `scale` times q . k.


# %%
def my_attention(q, k, v, scale):
    """Return y (T, heads, D)."""
    raise NotImplementedError("your turn")


asked = {"window": 0, "cap": 0.0}
print(check_function("attention", my_attention, asked))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug deals heads out like cards, h % kv_heads.
def some_attention(q, k, v, scale, reads=lambda head, heads, kv_heads: head // (heads // kv_heads)):
    """A loop over heads, in float64."""
    T, S, heads = len(q), len(k), q.shape[1]
    y = np.empty(q.shape, dtype=np.float64)
    future = np.arange(S, dtype=np.int64) > np.arange(S - T, S, dtype=np.int64)[:, None]  # (T, S)
    for head in range(heads):
        kv = reads(head, heads, k.shape[1])
        scores = scale * (q[:, head].astype(np.float64) @ k[:, kv].T.astype(np.float64))
        scores = np.where(future, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        y[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, kv]
    return y


def dealt_attention(q, k, v, scale):
    """Neighbouring query heads read different kv heads."""
    return some_attention(q, k, v, scale, reads=lambda head, heads, kv_heads: head % kv_heads)


right_one = check_function("attention", some_attention, asked)
wrong_one = check_function("attention", dealt_attention, asked)
print(right_one, wrong_one, sep="\n\n")
assert right_one.is_right
assert not wrong_one.is_right

# %% [markdown]
# ## Exercises
#
# 1. Dividing the rows of v_proj by powers of two changes none of its codes. Why? And by other numbers?
# 2. Can scales be folded through a GELU, as they are through a ReLU?
# 3. Fold all four sites at once. Does the order matter?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. A row's steps shrink with the row: (w / s) / (delta / s) = w / delta, exactly so for powers of two while no step is
#    subnormal. For other s a quotient near a tie may fall on the other side, now and then.
values = original[1]["self_attn.v_proj"]
rows = np.exp2(rng.integers(-2, 3, len(values))).astype(np.float32)
spec = awq_ref.QuantSpec(bits=4, group_size=128)
codes = [quantize_linear(w, spec=spec).int_weight for w in (values, fold_into_linear(values, None, rows)[0])]
assert (codes[0] == codes[1]).all()
# 2. No: max(u / s, 0) = max(u, 0) / s for s > 0, but a GELU bends: gelu(u / s) is not gelu(u) / s.
u = np.linspace(-3, 3, 7, dtype=np.float32)
assert np.allclose(relu(u / 2) * 2, relu(u))
assert not np.allclose(gelu(u / 2) * 2, gelu(u), atol=0.1)
# 3. No: each fold multiplies rows, or columns, and multiplications commute.
for order in (list(folds), list(folds)[::-1]):
    state = original
    for name in order:
        state = folds[name](state)
    print(f"{', then '.join(order)}: change {change(*state):.1e}")
    assert change(*state) < 1e-5
