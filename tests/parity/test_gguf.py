"""GGUF files of ours, read by the gguf package and run by llama.cpp; `make parity` installs both."""

import importlib
import inspect
import json
import shutil
import textwrap
from importlib.util import find_spec

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.tiny_checkpoint import write_tiny_family

from awq_ref.checkpoint import demo_model_path
from awq_ref.model import block_linear_shapes
from awq_ref.pack import LAYOUTS, pack_linear
from awq_ref.pipeline import convert_to_gguf, load_model, quantize_model
from awq_ref.quantize import dequantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec
from awq_ref.text import Tokenizer
from awq_ref.text.ggml import CONTRACTIONS, PRE_TOKENIZERS

PROMPTS = (
    "def main():\n    ",
    "import os\n\nclass Reader",
    "The function returns",
    "for i in range(",
    '"""Read a file and',
)
TOKENS = 48
# name: (options of quantize_model, options of convert_to_gguf, types of the linears)
MODELS = {
    "q4_0": ({"group_size": 32, "symmetric": True}, {}, "q4_0"),
    "q4_1": ({"group_size": 128}, {"allow_rounding": True}, "q4_1"),
}


LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
BIASES = {"attention_bias": True, "mlp_bias": True}
FAMILIES = {
    "llama": ("llama", BIASES),
    "llama3": ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500.0, "tie_word_embeddings": False}),
    "llama linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"use_sliding_window": False}),
    "qwen3": ("qwen3", {"attention_bias": False}),
}


@pytest.fixture(scope="module", params=MODELS)
def folder_and_file(request, tmp_path_factory):
    quantized, converted, kind = MODELS[request.param]
    where = tmp_path_factory.mktemp("gguf")
    quantize_model(demo_model_path(), where / "int4", recipe="rtn", **quantized)
    report = convert_to_gguf(where / "int4", where / "model.gguf", **converted)
    assert report.kinds[kind] == 42
    return where / "int4", where / "model.gguf"


def blocks_are_those_of_the_package(name):
    """Random bytes as blocks: both dequantize them to the same bits."""
    quants, constants = (importlib.import_module(f"gguf.{module}") for module in ("quants", "constants"))
    rng = np.random.default_rng(11)
    bits = LAYOUTS[name].bits[0]
    spec = QuantSpec(bits=bits, group_size=32, symmetric=name != "q4_1")
    codes = rng.integers(0, 2**bits, (6, 96), dtype=np.uint8)
    scales, offset = (rng.standard_normal((6, 3)).astype(np.float16) for _ in range(2))
    zeros = np.full((6, 3), 0 if name == "q4_1" else 2 ** (bits - 1), dtype=np.uint8)
    linear = QuantizedLinear(codes, scales, zeros, spec, offset=offset if name == "q4_1" else None)
    theirs = quants.dequantize(
        pack_linear(linear, name)["weight"], constants.GGMLQuantizationType[name.upper()]
    )
    assert_same_bits(theirs, dequantize_linear(linear))


NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def halves_apart(weight, heads):
    """Undo the order of llama.cpp's rope: row 2i + j of a head goes to j D / 2 + i."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return np.concatenate([pairs[:, :, 0], pairs[:, :, 1]], axis=1).reshape(weight.shape)


def the_package_reads(folder, path):
    """Names, shapes, and every weight: the folder's, bit for bit where nothing rounded."""
    reader = importlib.import_module("gguf.gguf_reader").GGUFReader
    dequantize = importlib.import_module("gguf.quants").dequantize
    found = {tensor.name: tensor for tensor in reader(path).tensors}
    model = load_model(folder, residency="dense")
    assert len(found) == 2 + 6 * (2 + len(NAMES))
    for layer, block in enumerate(model.decoder.blocks):
        for name, shape in block_linear_shapes(model.config).items():
            theirs = found[f"blk.{layer}.{NAMES[name]}.weight"]
            assert tuple(theirs.shape.tolist()) == shape[::-1]
            weight, ours = dequantize(theirs.data, theirs.tensor_type), block.linears[name].weight
            if name in ("self_attn.q_proj", "self_attn.k_proj"):
                weight = halves_apart(weight, shape[0] // model.config.head_dim)
            if theirs.tensor_type.name == "Q4_0":
                assert_same_bits(weight, ours)
            else:  # m = -z d, at most as large as a range, 2 max |w|, is rounded to float16: by 2**-11 of itself
                np.testing.assert_allclose(weight, ours, rtol=0, atol=2 * np.abs(ours).max() * 2.0**-11)


if find_spec("gguf"):  # without it there is nothing to run, and a skip in this folder is a failure

    @pytest.mark.parametrize("name", ["q4_0", "q4_1", "q8_0"])
    def test_blocks_are_those_of_the_gguf_package(name):
        blocks_are_those_of_the_package(name)

    def test_the_gguf_package_reads_the_file(folder_and_file):
        the_package_reads(*folder_and_file)


def log_probabilities(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def largest_difference(model, theirs, ids):
    """Return how far logits are apart on llama.cpp's text, up to a constant, and both texts, without their end."""
    text, table = theirs.greedy(ids, TOKENS)
    ours = model.logits(np.array([ids + text[:-1]], dtype=np.int64))[0, len(ids) - 1 :]
    texts = text, model.generate(ids, max_new_tokens=TOKENS)
    without_end = [[token for token in each if token not in model.eos_token_ids] for each in texts]
    return np.abs(log_probabilities(ours) - table).max(), *without_end


def write_words(path):
    """Exchange a vocabulary of bytes for one of words: llama.cpp's server holds half characters back."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["model"]["vocab"] = {f"t{i}": i for i in range(256)}
    path.write_text(json.dumps(stored), encoding="utf-8")


if find_spec("xllamacpp"):

    @pytest.mark.parametrize("dequantized, limit", [(False, 0.25), (True, 1e-4)])
    def test_llama_cpp_writes_the_same_text(folder_and_file, tmp_path, dequantized, limit):
        """Measured: 0.1 with 4-bit kernels, which round activations to 8 bits; 1.5e-5 on float32 weights."""
        backend = importlib.import_module("parity.llama_cpp")
        folder, path = folder_and_file
        model = load_model(folder)
        if dequantized:
            path = tmp_path / "float32.gguf"
            convert_to_gguf(folder, path, dequantized=True)
        theirs = backend.LlamaCpp(path, model.vocab_size)
        for prompt in PROMPTS:
            ids = model.tokenizer.encode(prompt).tolist()
            difference, text, ours = largest_difference(model, theirs, ids)
            assert difference < limit
            assert text == ours

    @pytest.mark.parametrize("name", FAMILIES)
    def test_llama_cpp_computes_every_family(tmp_path, name):
        """Random weights in float32: the order of rows, the biases, the norms of heads, the rescaling of rope."""
        backend = importlib.import_module("parity.llama_cpp")
        family, changes = FAMILIES[name]
        write_tiny_family(tmp_path / "model", family, torch_dtype="float32", **changes)
        write_words(tmp_path / "model" / "tokenizer.json")
        assert set(convert_to_gguf(tmp_path / "model", tmp_path / "a.gguf").kinds) == {"F32"}
        model = load_model(tmp_path / "model")
        theirs = backend.LlamaCpp(tmp_path / "a.gguf", model.vocab_size)
        difference, text, ours = largest_difference(model, theirs, [*range(3, 250, 11)])
        assert difference < 1e-4
        assert text == ours

    @pytest.mark.parametrize("patterns, name", [(k, v) for k, v in PRE_TOKENIZERS.items()])
    def test_llama_cpp_cuts_a_text_into_the_same_tokens(tmp_path, patterns, name):
        """The embedded vocabulary behind each pattern that has a name."""
        backend = importlib.import_module("parity.llama_cpp")
        folder = tmp_path / "model"
        shutil.copytree(demo_model_path(), folder)
        stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        split, level = stored["pre_tokenizer"]["pretokenizers"]
        split["pattern"] = {"Regex": patterns[0]}
        level["use_regex"] = patterns == ("",)
        stored["pre_tokenizer"]["pretokenizers"] = [level] if patterns == ("",) else [split, level]
        stored["model"]["ignore_merges"] = name == "llama-bpe"
        (folder / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
        report = convert_to_gguf(folder, tmp_path / "model.gguf")
        assert report.notes == ()
        theirs, ours = backend.LlamaCpp(tmp_path / "model.gguf", 4096), Tokenizer.load(folder)
        texts = [*inspect.getsource(textwrap).split("\n\n"), f"it's{CONTRACTIONS} 12345 été\r\n\r\n  \t x"]
        for text in texts:
            assert theirs.tokenize(text) == ours.encode(text).tolist()
