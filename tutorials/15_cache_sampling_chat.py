# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 15 KV cache, sampling, chat
#
# **Question.** A model maps a text to scores of the next token. What has to be remembered so that the second token costs
# less than the first, who chooses among the scores, and what is a chat to a model that only knows texts?

# %%
import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref.checkpoint import demo_model_path
from awq_ref.errors import RangeError
from awq_ref.model import greedy, new_cache
from awq_ref.paper.machine import median_seconds
from awq_ref.paper.output import STYLE
from awq_ref.pipeline.chat import ChatSession, ChatSettings
from awq_ref.pipeline.chat_format import PlainFormat
from awq_ref.text import Sampling, sampler
from awq_ref.text.sampling import probabilities
from awq_ref.threads import blas_on_one_thread
from awq_ref.vectors import check_function
from awq_ref.vectors.backend_model import MODEL_OPS

plt.rcParams.update(STYLE)

# %%
model = awq_ref.load_model(demo_model_path())
decoder, tokenizer = model.decoder, model.tokenizer
prompt = tokenizer.encode("def is_even(number):\n    return number")
whole, _ = decoder.forward(prompt[None])  # all at once
cache, steps = new_cache(model.config, batch=1), []
for token in prompt:  # and one by one, against a cache
    logits, cache = decoder.forward(np.array([[token]]), cache)
    steps.append(logits[0, 0])
print(f"{len(prompt)} tokens; largest difference of a logit: {np.abs(np.stack(steps) - whole[0]).max():.1e}")
print("next:", [tokenizer.decode([token]) for token in np.argsort(-whole[0, -1])[:5]])

# %% [markdown]
# Read at once or token by token: the same logits, up to rounding. A token never sees a later one, so what a layer has
# computed for it stays true whatever follows. The only things that later tokens ask of it are its key and its value.
# They are the *cache*.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [LLM-3](../docs/equations.md#llm-3) | the last T queries against S columns | `weights @ v` | [attend_tile](../awq_ref/model/attention.py) |
# | [P-CACHE](../docs/equations.md#p-cache) | a longer cache, which shares its buffers | `replace(self, length=length, last=self.store.append(self.length, valid))` | [KVCache.appended](../awq_ref/model/cache.py) |
# | [LLM-2](../docs/equations.md#llm-2) | keys are turned before they are kept | `_turn(k, config, context, out=new_keys.transpose(0, 2, 1, 3)[:, :, :, None])` | [_keys_and_values](../awq_ref/model/block.py) |
#
# With a cache a new token costs one row through every linear, and one row of attention. Without it, all rows anew.
#
# ## The effect, seen
#
# Left: the time of one more token. Right: what sampling makes of the scores.

# %%
lengths = [16, 64, 128, 256, 400]
text = tokenizer.encode("".join(f"value_{i} = compute(value_{i - 1}, {i})\n" for i in range(1, 60)))[
    : lengths[-1]
]
again, stepped = [], []
for length in lengths:
    _, filled = decoder.forward(text[None, :length], new_cache(model.config, batch=1))
    one = text[None, :1]

    def reread(length=length):
        decoder.forward(text[None, :length], last_only=True)

    def step(filled=filled, one=one):
        decoder.forward(one, filled, last_only=True)

    with blas_on_one_thread():
        times = median_seconds([reread, step], rounds=3)
    again.append(1e3 * times[0])
    stepped.append(1e3 * times[1])

logits = whole[0, -1]
shown = np.argsort(-logits)[:10]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.5), layout="constrained")
left.plot(lengths, again, "o-", color="C0", label="all read again")
left.plot(lengths, stepped, "o-", color="C1", label="against the cache")
left.set(
    xlabel="tokens before", ylabel="ms for the next token", ylim=(0, None), title="What the cache spares"
)
left.legend()
settings = {
    "temperature 1": Sampling(temperature=1.0),
    "temperature 0.5": Sampling(temperature=0.5),
    "temperature 2": Sampling(temperature=2.0),
    "1, top_p 0.8": Sampling(temperature=1.0, top_p=0.8),
}
for i, (name, sampling) in enumerate(settings.items()):
    chances = probabilities(logits, sampling)
    right.bar(np.arange(10) + (i - 1.5) * 0.2, chances[shown], 0.2, label=name)
right.set_xticks(range(10), [repr(tokenizer.decode([t])) for t in shown], rotation=60, fontsize=7)
right.set(ylabel="chance", title="The ten likeliest next tokens")
right.legend(fontsize=8)
print(f"cache of {lengths[-1]} tokens: {filled.resident_bytes / 1024:.0f} KiB")

# %% [markdown]
# The scores decide what is likely, the settings how bold one is. Temperature divides the logits: below 1 the likely
# become likelier, above 1 all become alike. top_k, top_p and min_p then drop the tail, out of which a wild token would
# come every few words.
#
# ## Predict, then run
#
# top_p = 0.8 keeps the fewest likeliest tokens that reach 80 % together. **Before you run the next cell:** does it keep
# more tokens at temperature 0.5 or at 2?

# %%
kept = {}
for temperature in (0.5, 1.0, 2.0):
    chances = probabilities(logits, Sampling(temperature=temperature, top_p=0.8))
    kept[temperature] = int((chances > 0).sum())
    print(f"temperature {temperature}: {kept[temperature]:4} of {len(chances)} tokens are kept")
    assert np.isclose(chances.sum(), 1.0)
assert kept[0.5] <= kept[1.0] < kept[2.0]

# %% [markdown]
# At 2: temperature comes first and flattens, so more tokens are needed for 80 %. The order of the steps matters, and
# differs between programs; the package's is that of transformers. With a seed a text can be had again:

# %%
bold = Sampling(temperature=0.8, top_p=0.9)
for seed in (1, 1, 2):
    pick = sampler(bold, seed=seed, prompt=prompt)
    new = list(decoder.stream(prompt, max_new_tokens=10, pick=pick))
    print(f"seed {seed}: {tokenizer.decode(new)!r}")

# %% [markdown]
# ## Break it
#
# Forget to hand the cache on. Every token is then read as if it were the first of a text.


# %%
def continuation(n_tokens, keep):
    """Return the likeliest next tokens, with or without the cache of the step before."""
    logits, cache = decoder.forward(prompt[None], new_cache(model.config, batch=1), last_only=True)
    new = [greedy(logits[0, -1])]
    while len(new) < n_tokens:
        before = cache if keep else new_cache(model.config, batch=1)
        logits, cache = decoder.forward(np.array([new[-1:]]), before, last_only=True)
        new.append(greedy(logits[0, -1]))
    return new


expected = model.generate(prompt, max_new_tokens=24, eos_token_ids=())
for name, keep in (("with", True), ("without", False)):
    print(f"{name:8} {tokenizer.decode(continuation(24, keep))!r}")
assert continuation(24, keep=True) == expected
broken = continuation(24, keep=False)
assert broken[0] == expected[0]  # the first token is right, it comes with the prompt ...
assert broken != expected  # ... the symptom: a good beginning, and then a text about nothing

# %% [markdown]
# A good first token and nonsense after it: look at the cache, or at the positions (a new token that is turned by the
# angle of position 0 reads like this too). The opposite mistake, one cache for two texts, cannot happen here: a cache
# is a value, and one whose columns another text has overwritten says so.

# %%
_, shared = decoder.forward(prompt[None], new_cache(model.config, batch=1))
_, first = decoder.forward(np.array([[5]]), shared)
_, second = decoder.forward(np.array([[7]]), shared)  # another continuation of the same text
try:
    decoder.forward(np.array([[9]]), first)
except RangeError as error:
    print(str(error)[:112], "...")

# %% [markdown]
# And a chat? A model knows only texts. A *template* writes the conversation as one text, with marks for who speaks; the
# answer is what the model appends; the next turn renders the whole conversation again. What it has in common with the
# text before is in the cache already. (The embedded model has not learned to chat: it just goes on.)

# %%
session = ChatSession(model, PlainFormat(tokenizer), ChatSettings(max_new_tokens=12))
for said in ("def add(a, b):", "def subtract(a, b):", "def multiply(a, b):"):
    answer = "".join(session.reply(said))
    stats = session.stats
    print(f"{said:22} -> {answer!r:40} read {stats.prompt_tokens}, of these cached {stats.reused_tokens}")
assert session.stats.reused_tokens > 0

# %% [markdown]
# ## Check yourself
#
# The loop itself: append the id with the largest logit of the *last* position, read again, n_tokens times. The golden
# model has 74 thousand parameters, so a cache is not needed; its logits are given to you for any ids.


# %%
def golden_logits(request, ids):
    """Return the logits (tokens, vocabulary) of a golden case's model for some ids."""
    asked = {**request, "ids": np.asarray(ids, dtype=np.int64)}
    return MODEL_OPS["model_logits"](asked, asked)["logits"]


def my_loop(**request):
    """Return tokens, int64 (n_tokens,): the new ones."""
    raise NotImplementedError("your turn, beginning with request['ids'] and request['n_tokens']")


print(check_function("model_generate", my_loop))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug reads the newest token alone, as above.
def a_loop(context=None, **request):
    """Greedy, 64 tokens or so."""
    ids, new = request["ids"].tolist(), []
    while len(new) < request["n_tokens"]:
        seen = ids + new if context is None or not new else new[-context:]
        new.append(int(np.argmax(golden_logits(request, seen)[-1])))
    return np.array(new, dtype=np.int64)


def forgetful(**request):
    """Every token is the first of a text."""
    return a_loop(context=1, **request)


right_one = check_function("model_generate", a_loop)
wrong_one = check_function("model_generate", forgetful)
print(right_one, wrong_one, sep="\n\n")
assert right_one.is_right
assert not wrong_one.is_right

# %% [markdown]
# ## Exercises
#
# 1. How many bytes does the cache take per token? Compute it from the configuration, and compare.
# 2. Go back: truncate a cache to half of its text, and read on differently. Which logits must come out?
# 3. What do temperature 0 and top_k = 1 have in common, and in what do they differ?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. A key and a value per layer and key-value head, head_dim float32 numbers each.
config = model.config
per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
full = new_cache(config, batch=1, capacity=256).resident_bytes
print(f"{per_token} bytes per token; a cache of 256 has {full / 256:.0f} (its own bookkeeping included)")
assert per_token <= full / 256 < 1.05 * per_token
# 2. Those of a pass over the shorter text.
_, long = decoder.forward(prompt[None], new_cache(config, batch=1))
half = len(prompt) // 2
back, _ = decoder.forward(prompt[None, half : half + 1], long.truncated(half))
assert np.allclose(back[0, 0], whole[0, half], atol=1e-4)
# 3. Both take the likeliest; of two equal ones temperature 0 takes the smaller id, top_k keeps and draws among both.
tie = np.float32([1.0, 3.0, 3.0])
print("top_k = 1 on a tie:", probabilities(tie, Sampling(temperature=1.0, top_k=1)), " greedy:", greedy(tie))
assert greedy(tie) == 1
