"""What we store in layout gemm, in models of transformers: a loader of its own, in torch, fills them with floats.

transformers' own AWQ path asks for gptqmodel and its kernels, which this environment does not have (what it gave where
it was tried: docs/layouts.md#gemm). So the layout is read here from its definition, AutoAWQ's: nothing of ours has a
part in it, from the file to the logits.
"""

import json
from pathlib import Path

import pytest
import torch
from parity.cases import CASES, assert_same, loaded, random_ids, save_model, theirs
from safetensors.torch import load_file, save_file

import awq_ref

COLUMN_OF_NIBBLE = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
FIRST_OF_FAMILY = {family: case for case, (family, _) in reversed(CASES.items())}
TENSORS = ("qweight", "qzeros", "scales")


def nibbles(words: torch.Tensor) -> torch.Tensor:
    """Words (rows, n) to codes (rows, 8 n): nibble j of a word is the code of column COLUMN_OF_NIBBLE[j] of eight."""
    fields = torch.stack([(words >> (4 * j)) & 15 for j in range(8)], dim=-1)  # (rows, n, nibble)
    codes = torch.empty_like(fields)
    codes[..., COLUMN_OF_NIBBLE] = fields
    return codes.flatten(1)


def weight_of(qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The float32 weight (out, in) of three tensors."""
    group_size = len(qweight) // len(scales)
    zeros, scales = (t.repeat_interleave(group_size, dim=0) for t in (nibbles(qzeros), scales.float()))
    return ((nibbles(qweight) - zeros) * scales).T.contiguous()


def filled(folder: Path, target: Path, *, transposed: bool):
    """What transformers loads from a float32 folder with the weights of a quantized one; and how many were integers.

    transposed: the float model's linears are stored as (in, out).
    """
    stored = load_file(folder / "model.safetensors")
    places = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    weights = {f"{p}.weight": weight_of(*(stored.pop(f"{p}.{end}") for end in TENSORS)) for p in places}
    weights = {name: weight.T if transposed else weight for name, weight in weights.items()}
    target.mkdir()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    floats = {name: tensor.float().contiguous() for name, tensor in (stored | weights).items()}
    save_file(floats, target / "model.safetensors", metadata={"format": "pt"})
    return loaded(target), len(places)


@pytest.mark.parametrize("family", FIRST_OF_FAMILY)
@pytest.mark.parametrize("symmetric", [False, True])
def test_transformers_computes_the_same_from_it(tmp_path, family, symmetric):
    _, changes = CASES[FIRST_OF_FAMILY[family]]
    save_model(tmp_path / "float", family, **changes)
    ids = random_ids(3, 40)
    awq_ref.quantize_model(
        tmp_path / "float", tmp_path / "int4", bits=4, group_size=16, symmetric=symmetric, layout="gemm",
        calibration=ids, shown=False,
    )  # fmt: skip
    model, n_integers = filled(tmp_path / "int4", tmp_path / "filled", transposed=family == "gpt2")
    assert n_integers >= 4 * model.config.num_hidden_layers
    wanted = theirs(model, ids)
    for residency in ("dense", "packed"):
        assert_same(awq_ref.load_model(tmp_path / "int4", residency=residency).logits(ids), wanted)


def test_the_loader_reads_the_published_words():
    """0x75316420 is what AutoAWQ packs of the codes 0 to 7."""
    assert nibbles(torch.tensor([[0x75316420]], dtype=torch.int32)).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
