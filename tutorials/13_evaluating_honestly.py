# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 13 Evaluating honestly
#
# **Question.** A quantized model has a perplexity of 18.6, the original 17.8. Is it worse? By how much, and is it more
# than luck?

# %%
import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref import QuantSpec
from awq_ref.checkpoint import demo_model_path
from awq_ref.paper.linears import exchanged
from awq_ref.paper.output import STYLE
from awq_ref.pipeline.texts import evaluation_tokens
from awq_ref.quantize import pseudo_quantize
from awq_ref.report.divergence import kl_divergence, token_divergences
from awq_ref.report.perplexity import perplexity, score_windows, token_losses
from awq_ref.vectors import check_function
from awq_ref.vectors.backend_model import MODEL_OPS

plt.rcParams.update(STYLE)

# %%
model = awq_ref.load_model(demo_model_path(), residency="dense")
spec = QuantSpec(bits=3, group_size=64)
rounded = exchanged(model, lambda layer, name, w: pseudo_quantize(w, spec=spec))
ids, source, _ = evaluation_tokens(model.tokenizer, None, limit=2048)
print(f"{len(ids)} tokens: {source}")
few = ids[:1025]
print(f"float  perplexity of the first 1024 {perplexity(model, few, seq_len=256).perplexity:.3f}")
told = perplexity(rounded, few, seq_len=256).perplexity, kl_divergence(model, rounded, few, seq_len=256)
print(f"3 bits perplexity of the first 1024 {told[0]:.3f}, divergence {told[1]:.4f} nats per token")

# %% [markdown]
# Two questions, two numbers. *Perplexity*: how well does the model predict the text? *Divergence*: how well does it
# predict what the original would have said? The first asks about a model, the second about its quantization.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [EVAL-1](../docs/equations.md#eval-1) | a token's loss, -log p | `np.log(sums) - chosen[:, 0].astype(np.float64)` | [token_losses](../awq_ref/report/perplexity.py) |
# | [EVAL-1](../docs/equations.md#eval-1) | the mean over tokens, each counted once | `total / n_scored` | [perplexity](../awq_ref/report/perplexity.py) |
# | [EVAL-1](../docs/equations.md#eval-1) | and its exponential, last of all | `math.exp(self.nll)` | [Perplexity](../awq_ref/report/perplexity.py) |
# | [EVAL-2](../docs/equations.md#eval-2) | sum of p (log p - log q) | `mean - log_sum_a + log_sum_b` | [token_divergences](../awq_ref/report/divergence.py) |
#
# ## The effect, seen
#
# How sure is a difference of two losses? The losses of tokens spread widely, from 0 to 15 nats. Take the two models as
# strangers, and the noise of both texts is in the difference. But they have read the *same* text: subtract token by
# token first, and nearly all of the noise is gone.

# %%
SEQ = 256


def losses_of(any_model):
    """Return the loss of every token that windows of SEQ tokens predict, and its logits."""
    windows = ids[: len(ids) // SEQ * SEQ].reshape(-1, SEQ)
    logits = np.concatenate(
        [any_model.logits(window[None])[:, :-1] for window in windows]
    )  # (n, SEQ - 1, vocab)
    logits = logits.reshape(-1, logits.shape[-1])
    return token_losses(logits, windows[:, 1:].reshape(-1)), logits


float_losses, float_logits = losses_of(model)
int3_losses, int3_logits = losses_of(rounded)
difference = int3_losses - float_losses
divergences = token_divergences(float_logits, int3_logits)
n = np.arange(1, len(difference) + 1)
strangers = np.sqrt((float_losses.var() + int3_losses.var()) / n)
paired = np.sqrt(difference.var() / n)

figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
running = np.cumsum(difference) / n
start = 30
axes.fill_between(n[start:], -2 * strangers[start:], 2 * strangers[start:], color="C0", alpha=0.15, lw=0)
axes.fill_between(n[start:], -2 * paired[start:], 2 * paired[start:], color="C1", alpha=0.35, lw=0)
axes.plot(n[start:], running[start:], "k-", lw=1.2, label="loss of 3 bits - loss of float, so far")
axes.plot(n[start:], (np.cumsum(divergences) / n)[start:], "-", color="C3", label="divergence, so far")
axes.fill(np.nan, np.nan, color="C0", alpha=0.15, label="two standard errors of 0: as strangers")
axes.fill(np.nan, np.nan, color="C1", alpha=0.35, label="the same: token by token")
axes.set(
    xscale="log",
    xlabel="tokens",
    ylabel="nats per token",
    ylim=(-0.2, 0.3),
    title="The same text for both: a difference shows much sooner",
)
axes.legend(fontsize=8, loc="upper right")
gain = float((strangers / paired)[0] ** 2)
print(
    f"3 bits - float: {difference.mean():.4f} +- {paired[-1]:.4f} nats, as strangers +- {strangers[-1]:.4f}"
)
print(f"as strangers {gain:.0f} times as many tokens would be needed")
assert gain > 20
assert difference.mean() > 2 * paired[-1]

# %% [markdown]
# And the divergence (red) is never negative and settles at once. For a quantization it is the better question; for the
# user who asks "which of two models", perplexity is.
#
# ## Predict, then run
#
# Measure the *same* float model on the same tokens in windows of 32, 128 and 512, and once in windows of 256 that
# start every 128. **Before you run the next cell:** does its perplexity change, and in which direction?

# %%
found = {}
for seq_len, stride in ((32, 32), (128, 128), (256, 256), (256, 128)):
    found[seq_len, stride] = perplexity(model, few, seq_len=seq_len, stride=stride).perplexity
    print(f"windows of {seq_len:3}, every {stride:3}: {found[seq_len, stride]:.3f}")
assert found[32, 32] > found[128, 128] > found[256, 256] > found[256, 128]

# %% [markdown]
# The first tokens of a window are guessed with little to go by. Shorter windows have more of them; overlapping windows,
# which score only what is new, have fewer. The differences are larger than those between recipes. So a perplexity
# without its windows, its text and its tokenizer is no number at all, and two of different papers are not to be
# compared. `awq-ref eval` prints all of it.
#
# ## Break it
#
# Evaluate on one short text, as one does by hand: "I asked it something, it was even better than the original".

# %%
short = 32
blocks = difference[: len(difference) // short * short].reshape(-1, short).mean(axis=1)
better = float((blocks < 0).mean())
of_blocks = divergences[: len(divergences) // short * short].reshape(-1, short).mean(axis=1)
print(
    f"in {better:.0%} of the texts of {short} tokens 3 bits are *better* than float; best {blocks.min():+.3f} nats"
)
print(f"the divergence is above 0 in {np.mean(of_blocks > 0):.0%} of them")
assert better > 0.02  # the symptom: whoever looks for such a text finds it
assert (of_blocks > 0).all()

# %% [markdown]
# Rounding moves losses both ways; over a short text luck decides. Three honest habits: many tokens, texts that were
# chosen before, and none that calibration or training has seen.
#
# ## Check yourself
#
# Besides losses one counts how often two models agree on the likeliest tokens. From logits (tokens, vocabulary): the
# ids of the five largest, falling. The golden model gives you its logits.


# %%
def golden_logits(request):
    """Return the logits of the model that a golden case describes."""
    return MODEL_OPS["model_logits"](request, request)["logits"]


def my_top5(**request):
    """Return logits (tokens, vocabulary) and top5, int64 (tokens, 5)."""
    raise NotImplementedError("your turn, beginning with golden_logits(request)")


print(check_function("model_logits", my_top5))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug takes the last five of an order that rises.
def a_top5(**request):
    """Sorted; of equals the smaller id first."""
    logits = golden_logits(request)
    return logits, np.argsort(-logits, axis=1, kind="stable")[:, :5].astype(np.int64)


def rising(**request):
    """The right five, the likeliest last: the first of them is the fifth."""
    logits = golden_logits(request)
    return logits, np.argsort(logits, axis=1)[:, -5:].astype(np.int64)


right = check_function("model_logits", a_top5)
wrong = check_function("model_logits", rising)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. Write the loss of a token in one line, in float64, and compare with the package's.
# 2. Someone reports the mean of the windows' perplexities. Is it too large or too small? (Jensen.)
# 3. How often do 3 bits and float agree on the likeliest token, and where they do not, how sure was the float model?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. log sum exp minus the logit; without subtracting the maximum it would overflow for logits above 709.
targets = ids[: len(ids) // SEQ * SEQ].reshape(-1, SEQ)[:, 1:].reshape(-1)
wide = float_logits.astype(np.float64)
mine = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(wide)), targets]
assert np.allclose(mine, float_losses, atol=1e-4)
# 2. Too large: the exponential is convex, so the mean of exponentials is above the exponential of the mean.
of_windows = float_losses.reshape(-1, SEQ - 1).mean(axis=1)
print(f"exp of the mean {np.exp(of_windows.mean()):.3f}, mean of the exps {np.exp(of_windows).mean():.3f}")
assert np.exp(of_windows).mean() > np.exp(of_windows.mean())
assert len(score_windows(len(ids), seq_len=SEQ, stride=SEQ)) == len(of_windows)
# 3. Mostly where it was not sure itself.
agree = float_logits.argmax(axis=1) == int3_logits.argmax(axis=1)
sure = np.exp(-token_losses(float_logits, float_logits.argmax(axis=1)))
print(
    f"agree {agree.mean():.1%}; float's probability where they agree {sure[agree].mean():.2f}, else", end=" "
)
print(f"{sure[~agree].mean():.2f}")
assert sure[~agree].mean() < sure[agree].mean()
