"""What transformers computed with a tiny model of each family, as files: tests/golden/families/FAMILY.safetensors.

RecordedCase    config.json, weights, ids, logits, greedy text
read_case       the file of a family
write_folder    its model as a checkpoint folder
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers.source import ROOT
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

FOLDER = ROOT / "tests" / "golden" / "families"


@dataclass(frozen=True)
class RecordedCase:
    """A model and what it says.

    config  : config.json
    weights : name -> float32 array
    ids     : int64 (2, tokens)
    logits  : float32 (2, tokens, vocab_size)
    greedy  : int64 (n,): what follows ids[0]
    """

    config: dict[str, Any]
    weights: dict[str, NDArray[np.float32]]
    ids: NDArray[np.int64]
    logits: NDArray[np.float32]
    greedy: NDArray[np.int64]


def read_case(family: str) -> RecordedCase:
    """Read the recorded case of a family."""
    with safe_open(FOLDER / f"{family}.safetensors", framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    said = {name: tensors.pop(name) for name in ("ids", "logits", "greedy")}
    weights = {name.removeprefix("weights."): array for name, array in tensors.items()}
    return RecordedCase(config, weights, **said)


def write_folder(case: RecordedCase, folder: Path) -> Path:
    """Write the model as a checkpoint folder; return the folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(case.config), encoding="utf-8")
    save_file(case.weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
