# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 16 A real checkpoint
#
# **Question.** From a name on the hub to a smaller model that other programs can load: which steps, and what can be
# checked after each?

# %%
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import awq_ref
from awq_ref.checkpoint import Checkpoint, demo_model_path
from awq_ref.checkpoint.hub import model_name, resolve_model
from awq_ref.paper.output import STYLE
from awq_ref.pipeline.convert import convert_model
from awq_ref.pipeline.describe import folder_bytes
from awq_ref.pipeline.texts import evaluation_tokens
from awq_ref.report.divergence import kl_divergence
from awq_ref.report.perplexity import perplexity
from awq_ref.vectors import check_function

plt.rcParams.update(STYLE)

# %%
name = os.environ.get("AWQ_REF_MODEL") or demo_model_path()  # or a name, such as "Qwen/Qwen2.5-0.5B-Instruct"
folder = resolve_model(
    name
)  # a folder stays one; a name is downloaded once, into the cache of huggingface_hub
source = Checkpoint.open(folder)
print(f"{model_name(folder)}: {sorted(path.name for path in folder.iterdir())}")
print(f"{source.config['model_type']}, {folder_bytes(folder, '*.safetensors') / 2**20:.1f} MiB of weights")

# %% [markdown]
# A checkpoint is a folder. `config.json` says what the network is, `*.safetensors` holds the weights by name,
# `tokenizer.json` is the tokenizer, `generation_config.json` says how its makers sample. Nothing else is ever asked of
# the hub: no pickles, no code. Without a network, and without `AWQ_REF_MODEL`, the embedded model stands in; every
# step is the same. (A model of half a billion parameters takes some minutes longer than this chapter promises.)
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-4](../docs/equations.md#awq-4) | what a file's integers stand for | `tile *= delta[rows]` | [dequantize](../awq_ref/quantize/affine.py) |
# | [P-PACK](../docs/equations.md#p-pack) | unpack(pack(x)) = x, in every layout | `words.view(np.uint32) + ONES[bits] * np.uint32(stored_less)` | [_unpack_zeros](../awq_ref/pack/gptq.py) |
# | [EVAL-2](../docs/equations.md#eval-2) | what the quantization costs | `total += float(token_divergences(wanted, logits).sum())` | [_batch_divergence](../awq_ref/report/divergence.py) |
#
# One call does chapters 05 to 09 for every block, and writes the folder that transformers, vLLM and SGLang read as
# `quant_method: awq`:

# %%
scratch = tempfile.TemporaryDirectory()
work = Path(scratch.name)
report = awq_ref.quantize_model(folder, work / "int4", recipe="awq", bits=4, samples=4, seq_len=128)
config = json.loads((work / "int4" / "config.json").read_text(encoding="utf-8"))
print(json.dumps(config["quantization_config"], indent=1))
print(f"{folder_bytes(work / 'int4', '*.safetensors') / 2**20:.1f} MiB of weights")

# %% [markdown]
# ## The effect, seen

# %%
original, quantized = awq_ref.load_model(folder), awq_ref.load_model(work / "int4")
ids = evaluation_tokens(original.tokenizer, None, limit=512)[0]
seq_len = min(256, original.config.context)
text = "def mean(values):\n    return"
prompt = original.tokenizer.encode(text)
for label, model in (("float", original), ("int4", quantized)):
    told = perplexity(model, ids, seq_len=seq_len).perplexity
    said = model.tokenizer.decode(model.generate(prompt, max_new_tokens=12))
    print(f"{label:6} perplexity {told:8.3f}   {text + said!r}")
cost = kl_divergence(original, quantized, ids, seq_len=seq_len)
print(f"divergence {cost:.4f} nats per token")

figure, axes = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
parts = list(original.resident_bytes())
bottom = np.zeros(2)
for part in parts:
    sizes = np.array([model.resident_bytes()[part] / 2**20 for model in (original, quantized)])
    axes.barh(["float32 in memory", "int4, packed"], sizes, left=bottom, label=part)
    bottom += sizes
axes.invert_yaxis()
axes.set(xlabel="MiB", title="What becomes smaller, and what does not")
axes.legend(fontsize=8)
axes.grid(visible=False, axis="y")
assert quantized.resident_bytes()["linears"] < original.resident_bytes()["linears"] / 6

# %% [markdown]
# On so few tokens luck decides which perplexity is lower (chapter 13); the divergence does not depend on it. The linears
# shrink to less than a sixth; embedding and head stay. In a small model they are a good part of the whole; in one of seven billion parameters four percent.
#
# ## Predict, then run
#
# Other programs want other layouts. Convert the folder to GPTQ's: other words, another order of the nibbles, zero
# points stored as z - 1. **Before you run the next cell:** how much do the logits change?

# %%
print(convert_model(work / "int4", work / "gptq", layout="gptq").text())
converted = awq_ref.load_model(work / "gptq")
same = np.array_equal(converted.logits(prompt[None]), quantized.logits(prompt[None]))
print("logits equal, bit for bit:", same)
assert same

# %% [markdown]
# Not at all. Integers, scales and zero points are the same; only their places differ.
#
# ## Break it
#
# "z - 1" has a story. GPTQ's first format stores it, its second stores z, and a field of the configuration says which.
# Files with the wrong word in it exist. Change that one word:

# %%
path = work / "gptq" / "config.json"
config = json.loads(path.read_text(encoding="utf-8"))
config["quantization_config"]["checkpoint_format"] = "gptq_v2"
path.write_text(json.dumps(config), encoding="utf-8")
broken = awq_ref.load_model(work / "gptq")
said = broken.tokenizer.decode(broken.generate(prompt, max_new_tokens=12))
told = perplexity(broken, ids, seq_len=seq_len).perplexity
print(f"perplexity {told:.0f}: {text + said!r}")
assert told > 3 * perplexity(quantized, ids, seq_len=seq_len).perplexity  # the symptom: it loads, and babbles

# %% [markdown]
# It loads, every shape fits, and the model babbles: every weight is off by one step, all in one direction. If a
# checkpoint of someone else does that, look at the zero points first. `awq-ref info FOLDER` shows what a folder says of
# itself, `awq-ref compare` holds it to the original.
#
# ## Check yourself
#
# Read a linear of GPTQ's first format, from words to weights. `qweight` (in / 8, out): code i of a column in bits 4 (i
# mod 8) of word i // 8. `qzeros` (groups, out / 8): the same along the outputs, but with 1 taken from all eight
# nibbles of a word in *one* subtraction of 0x11111111, so that a z of 0 borrows from its neighbour. `scales` (groups,
# out). `g_idx` says the group of every input.


# %%
def my_reader(qweight, scales, qzeros, g_idx):
    """Return weight float32 (out, in)."""
    raise NotImplementedError("your turn")


asked = {"layout": "gptq"}
print(check_function("dequantize_packed", my_reader, asked))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution; the planted bug is the one above.
def a_reader(qweight, scales, qzeros, g_idx, less=0x11111111):
    """The word plus eight ones, then its nibbles."""
    places = 4 * np.arange(8, dtype=np.int32)
    codes = (qweight[:, None, :] >> places[:, None] & 15).reshape(-1, qweight.shape[1])  # (in, out)
    words = qzeros.view(np.uint32) + np.uint32(less)
    zeros = (words[:, :, None] >> places.view(np.uint32) & 15).reshape(len(words), -1)  # (groups, out)
    weight = (codes - zeros[g_idx].astype(np.int32)).astype(np.float32) * scales[g_idx].astype(np.float32)
    return np.ascontiguousarray(weight.T)


def without_the_one(qweight, scales, qzeros, g_idx):
    """Zero points as they are stored."""
    return a_reader(qweight, scales, qzeros, g_idx, less=0)


right = check_function("dequantize_packed", a_reader, asked)
wrong = check_function("dequantize_packed", without_the_one, asked)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. How many bits does a weight take in 4 bits with groups of 128, scales and zero points counted?
# 2. A model on the hub has seven billion parameters, and 32 GiB of memory are there. Which step of this chapter needs
#    the most, and why does it fit? (One block is in memory at a time.)
# 3. Which parts of the folder of a quantized model must be byte for byte those of the original?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. 4, and a float16 scale and a 4-bit zero point for every 128: 4 + 20 / 128.
print("bits per weight:", 4 + (16 + 4) / 128)
assert 4 + (16 + 4) / 128 == 4.15625
# 2. A block: 7e9 / 32 weights, in float32 while it is worked on, and the Gram matrix of its widest input, 11008 squared.
block, gram = 4 * 7e9 / 32 / 2**30, 4 * 11008**2 / 2**30
print(
    f"a block {block:.2f} GiB, the largest Gram matrix {gram:.2f} GiB; all weights in float32 {4 * 7e9 / 2**30:.0f} GiB"
)
assert block + gram < 4
# 3. The tokenizer; and, within the weights, the embedding and a head of its own, which were not quantized.
for file in ("tokenizer.json", "tokenizer_config.json"):
    assert (work / "int4" / file).read_bytes() == (folder / file).read_bytes()
embedding = "model.embed_tokens.weight"
assert bytes(Checkpoint.open(work / "int4").raw(embedding)) == bytes(source.raw(embedding))
print(
    f"the same: tokenizer, embedding; new: {len(list(report.sites()))} sites, {report.bits_per_weight:.3f} bits per weight"
)
scratch.cleanup()
