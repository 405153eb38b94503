"""What we store as pack-quantized, read by the compressed-tensors library and by transformers through it."""

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from helpers.tiny_checkpoint import write_tiny_family, write_tiny_llama
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

import awq_ref
from awq_ref.checkpoint import Checkpoint
from awq_ref.pack import LAYOUTS, unpack_linear
from awq_ref.quantize import dequantize_linear

IDS = np.random.default_rng(5).integers(0, 250, (2, 40))
CASES = [
    (bits, symmetric, group)
    for bits in (2, 3, 4, 8)
    for symmetric, group in ((False, 16), (True, 32), (False, -1))
]


def quantized(folder, bits, symmetric, group):
    write_tiny_llama(folder / "float")
    out = folder / "quantized"
    awq_ref.quantize_model(
        folder / "float", out, bits=bits, symmetric=symmetric, group_size=group, layout="pack-quantized",
        calibration=IDS, shown=False,
    )  # fmt: skip
    return out


def scheme(bits, symmetric, group):
    per_row = group == -1
    weights = QuantizationArgs(
        num_bits=bits, symmetric=symmetric, strategy="channel" if per_row else "group",
        group_size=None if per_row else group,
    )  # fmt: skip
    return QuantizationScheme(targets=["Linear"], weights=weights)


@pytest.mark.parametrize(("bits", "symmetric", "group"), CASES)
def test_the_library_decompresses_the_same_weights(tmp_path, bits, symmetric, group):
    checkpoint = Checkpoint.open(quantized(tmp_path, bits, symmetric, group))
    spec = awq_ref.QuantSpec(bits=bits, symmetric=symmetric, group_size=group)
    name = "model.layers.1.mlp.up_proj"
    ends = LAYOUTS["pack-quantized"].tensor_names(spec)
    tensors = {end: checkpoint.read_stored(f"{name}.{end}") for end in ends}
    theirs = {end: torch.from_numpy(array) for end, array in tensors.items()}
    theirs["weight_scale"] = theirs["weight_scale"].float()  # or they would compute in float16
    weight = PackedQuantizationCompressor.decompress(theirs, scheme(bits, symmetric, group))["weight"].numpy()
    np.testing.assert_array_equal(weight, dequantize_linear(unpack_linear(tensors, spec, "pack-quantized")))


@pytest.mark.filterwarnings("ignore")  # of the loaders' own
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_transformers_reads_experts_and_leaves_the_router(tmp_path, family):
    """Of experts, which it stacks, transformers makes float weights while it loads them, in float16."""
    write_tiny_family(tmp_path / "float", family)
    out = tmp_path / "quantized"
    awq_ref.quantize_model(
        tmp_path / "float",
        out,
        symmetric=True,
        group_size=16,
        layout="pack-quantized",
        calibration=IDS,
        shown=False,
    )
    how = CompressedTensorsConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, quantization_config=how).eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(IDS)).logits.numpy()
    logits = awq_ref.load_model(out, residency="dense").logits(IDS)
    # float16 weights are off by 2**-11; a token between two experts may go to the other one.
    error = np.linalg.norm(logits - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert np.median(error) < 2.0**-9


@pytest.mark.filterwarnings("ignore")  # of the loaders' own
def test_transformers_loads_loads_the_folder_and_computes_the_same_logits(tmp_path):
    # Symmetric: for asymmetric weights transformers 5.23 with compressed-tensors 0.20 expects zero points that are not
    # packed (its model on the meta device is built without packing them), and refuses checkpoints of any tool.
    folder = quantized(tmp_path, 4, True, 32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(IDS)).logits.numpy()
    logits = awq_ref.load_model(folder, residency="dense").logits(IDS)
    assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("bits", "symmetric", "group"), CASES)
def test_what_the_library_packs_is_read(bits, symmetric, group):
    rng = np.random.default_rng(bits)
    shape, middle = (32, 1 if group == -1 else 64 // group), 2 ** (bits - 1)
    scales = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    zeros = np.zeros(shape, dtype=np.int8)
    if not symmetric:
        zeros[:] = rng.integers(-middle, middle, shape)
    codes = rng.integers(-middle, middle, (32, 64))
    by_weight = (np.repeat(array, 64 // shape[1], axis=1) for array in (zeros.astype(np.int32), scales))
    weight = ((codes - next(by_weight)) * next(by_weight)).astype(np.float32)
    theirs = {"weight": weight, "weight_scale": scales} | ({} if symmetric else {"weight_zero_point": zeros})
    theirs = {end: torch.from_numpy(array) for end, array in theirs.items()}
    packed = PackedQuantizationCompressor.compress(theirs, scheme(bits, symmetric, group))
    spec = awq_ref.QuantSpec(bits=bits, symmetric=symmetric, group_size=group, scale_dtype="float32")
    linear = unpack_linear({end: t.numpy() for end, t in packed.items()}, spec, "pack-quantized")
    np.testing.assert_array_equal(linear.int_weight, codes + middle)
    np.testing.assert_array_equal(dequantize_linear(linear), weight)
