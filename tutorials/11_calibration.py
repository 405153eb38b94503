# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 11 Calibration data
#
# **Question.** Everything so far rested on statistics of some text. How much text do they need, and which?

# %%
import tempfile
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref import QuantSpec
from awq_ref.calibration import SiteStatistics, merge, token_windows
from awq_ref.checkpoint import Checkpoint, demo_model_path
from awq_ref.paper.calibration_shift import texts_of
from awq_ref.paper.output import STYLE
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.pipeline.texts import encode_texts
from awq_ref.quantize import feedback_factor, pseudo_quantize, round_with_feedback
from awq_ref.search import GramObjective, search_channel_scales
from awq_ref.search.objective import gram_loss
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
rng = np.random.default_rng(11)
for tokens in (16, 64, 256, 1024):
    x = rng.standard_normal((tokens, 256)).astype(np.float32)
    seen = SiteStatistics.from_inputs(x)
    rank = np.linalg.matrix_rank(seen.gram.astype(np.float64), tol=1e-3)
    print(
        f"{tokens:5} tokens: a channel's mean |x| is off by {np.std(seen.act_mean_abs):.3f}, rank of C {rank:3}"
    )

# %% [markdown]
# Calibration keeps two things, and they ask for different amounts. The mean |x| of a channel is one number, good to a
# few percent after a few hundred tokens. The Gram matrix of 256 channels has 32896; after n < 256 tokens its rank is
# only n, so there are directions of which it says: *errors here cost nothing*.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-5](../docs/equations.md#awq-5) | a: the sum of abs(x) over the count | `self.abs_sum / self.count` | [SiteStatistics](../awq_ref/calibration/statistics.py) |
# | [AWQ-5](../docs/equations.md#awq-5) | C: the sum of x x^T, panel by panel | `np.matmul(tokens[:, rows].T, columns, out=product)` | [_add_panel](../awq_ref/calibration/statistics.py) |
# | [P-CHUNK](../docs/equations.md#p-chunk) | of two texts: sums and counts are added | `first.count + second.count` | [merge](../awq_ref/calibration/statistics.py) |
# | [AWQ-7](../docs/equations.md#awq-7) | what they are asked for | `total += gram_loss(error, self._statistics.gram_sum)` | [GramObjective](../awq_ref/search/objective.py) |
#
# AWQ uses C only to choose *one number*, alpha, from eleven. GPTQ uses all of C, to change every weight.

# %%
SITE = "2.mlp.gate_up"
tokenizer = awq_ref.load_model(demo_model_path()).tokenizer
code = encode_texts(tokenizer, texts_of("code", "calibration"))
english = encode_texts(tokenizer, texts_of("documentation", "calibration"))
held_out = encode_texts(tokenizer, texts_of("code", "validation"))
windows = token_windows(code, seq_len=64, samples=64, seed=0)
with tempfile.TemporaryDirectory() as folder:  # the model with outliers of chapter 05
    grow_outliers(demo_model_path(), f"{folder}/model")
    weight = Checkpoint.open(f"{folder}/model").read("model.layers.2.mlp.gate_proj.weight")

    def site_of_windows(ids):
        """Return the site's statistics of windows of ids."""
        return awq_ref.calibrate(f"{folder}/model", calibration=ids).sites[SITE]

    sizes = [2**i for i in range(7)]
    parts = [site_of_windows(windows[0:1])]
    parts += [site_of_windows(windows[size // 2 : size]) for size in sizes[1:]]
    other = site_of_windows(token_windows(held_out, seq_len=64, samples=64, seed=0))
    of_english = site_of_windows(token_windows(english, seq_len=64, samples=64, seed=0))
grown = [parts[0]]
for part in parts[1:]:  # no text is read twice: what is known, and what is new
    grown.append(merge(grown[-1], part))

# %% [markdown]
# `other` are the statistics of files that the calibration never saw. They are the judge.

# %%
spec = QuantSpec(bits=3, group_size=128)
nearest = pseudo_quantize(weight, spec=spec)


def by_awq(seen):
    """Return the weight scaled, rounded and scaled back, with what these statistics say."""
    loss = GramObjective([weight], seen, partial(pseudo_quantize, spec=spec))
    s = search_channel_scales(loss, seen.act_mean_abs, alphas=[i / 10 for i in range(11)]).channel_scales
    return pseudo_quantize(weight * s, spec=spec) / s


def by_gptq(seen, damping=0.01):
    """Return the weight rounded with feedback, with what these statistics say."""
    codes, *grid = round_with_feedback(weight, feedback_factor(seen.gram, damping=damping), spec=spec)
    scales, zeros = (np.repeat(a.astype(np.float32), 128, axis=1) for a in grid)
    return (codes - zeros) * scales


def left(back, judge):
    """Return the output error on some statistics, as a share of that of rounding to nearest."""
    return gram_loss(back - weight, judge.gram) / gram_loss(nearest - weight, judge.gram)


# %% [markdown]
# ## The effect, seen

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
counts = [seen.count for seen in grown]
found = {}
for name, method, color in (("AWQ", by_awq, "C1"), ("GPTQ", by_gptq, "C2")):
    backs = [method(seen) for seen in grown]
    found[name] = [left(back, other) for back in backs]
    own = [left(back, seen) for back, seen in zip(backs, grown, strict=True)]
    axes.plot(counts, found[name], "o-", ms=4, color=color, label=f"{name}, other text")
    axes.plot(counts, own, "o:", ms=3, color=color, label=f"{name}, its own text")
axes.axhline(1.0, color="0.5", lw=1)
axes.axvline(256, color="0.7", lw=1, ls="--")
axes.text(270, 1.55, "as many tokens as channels", color="0.4", fontsize=8)
axes.set(
    xscale="log",
    xlabel="calibration tokens",
    ylabel="output error, to nearest = 1",
    ylim=(0, 1.7),
    title="AWQ is content with little text, GPTQ is not",
)
_ = axes.legend(fontsize=8, loc="lower right", ncols=2)
for name, shares in found.items():
    print(name, [round(share, 2) for share in shares])
assert max(found["AWQ"]) / min(found["AWQ"]) < 1.3
assert found["GPTQ"][-1] < found["GPTQ"][0]

# %% [markdown]
# The distance between a solid line and its dotted one is what was learned by heart. It is small for AWQ at once; for
# GPTQ it closes when there are many times as many tokens as channels. This is figure 8 (a) of the paper, for one
# layer. (The whole model: `awq-ref paper calibration-size`.)
#
# ## Predict, then run
#
# Calibrate on English (docstrings), judge on code. **Before you run the next cell:** who loses more, AWQ or GPTQ?

# %%
lost = {}
for name, method in (("AWQ", by_awq), ("GPTQ", by_gptq)):
    on_code, on_english = left(method(grown[-1]), other), left(method(of_english), other)
    lost[name] = on_english - on_code
    print(f"{name:5} calibrated on code {on_code:.3f}, on English {on_english:.3f}, lost {lost[name]:+.3f}")
assert lost["GPTQ"] > lost["AWQ"]

# %% [markdown]
# AWQ asks only *which channels are large*, and these are the same in any text. GPTQ asks which channels fire
# *together*, and that is what a text is about.
#
# ## Break it
#
# Calibrate GPTQ on one short text, and judge it on the same. The numbers are splendid.

# %%
few = grown[0]  # 64 tokens, 256 channels
splendid = by_gptq(few, damping=1e-4)
print(f"on its own {few.count} tokens {left(splendid, few):.3f}, on other text {left(splendid, other):.3f}")
assert left(splendid, few) < 0.1
assert left(splendid, other) > 1.0  # the symptom: worse than rounding to nearest, where it counts

# %% [markdown]
# The 192 directions that the Gram matrix had not seen were used as waste bins. The package warns when a calibration
# has fewer tokens than channels, and no file
# of the corpus serves both for calibration and for evaluation ([the corpus](../awq_ref/text/corpus.py)).
#
# ## Check yourself
#
# The Gram matrix of a long text, X^T X / n, with never more than seven tokens in memory: read x in pieces of seven.


# %%
def my_gram(x):
    """Return gram (channels, channels)."""
    raise NotImplementedError("your turn")


print(check_function("gram", my_gram))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug takes the mean of the pieces' means: the last piece is shorter.
def pieces(x):
    """Yield seven tokens at a time."""
    for start in range(0, len(x), 7):
        yield x[start : start + 7].astype(np.float64)


def a_gram(x):
    """Sums, divided once."""
    return sum(piece.T @ piece for piece in pieces(x)) / len(x)


def mean_of_means(x):
    """Every piece counts as much as any other."""
    return np.mean([piece.T @ piece / len(piece) for piece in pieces(x)], axis=0)


right = check_function("gram", a_gram)
wrong = check_function("gram", mean_of_means)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. Which alpha does AWQ choose after 64 tokens, and which after 4096?
# 2. More damping makes GPTQ trust its Gram matrix less. What does it do for 64 tokens?
# 3. Some tools subtract the mean of x before they form x x^T. What is lost?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. Nearly the same, and from there on the scales differ by the noise of mean |x| alone.
for seen in (grown[0], grown[-1]):
    loss = GramObjective([weight], seen, partial(pseudo_quantize, spec=spec))
    search = search_channel_scales(loss, seen.act_mean_abs, alphas=[i / 10 for i in range(11)])
    print(f"{seen.count:5} tokens: alpha {search.alpha}")
# 2. It saves what can be saved: with much of it feedback becomes rounding to nearest.
shares = [left(by_gptq(few, damping=d), other) for d in (1e-4, 1e-2, 1.0)]
print("64 tokens, other text, damping 1e-4, 1e-2, 1:", [round(share, 2) for share in shares])
assert shares[0] > shares[-1]
# 3. The output error of a channel that is always 5 and never varies: a constant error of the output, and a real one.
constant = np.full((4, 1), 5.0, dtype=np.float32)
print("with the mean:", SiteStatistics.from_inputs(constant).gram, " without:", np.cov(constant.T))
assert SiteStatistics.from_inputs(constant).gram == 25.0
