"""The recorded cases of tests/golden/families are what transformers says; `--record` writes them.

    python -m pytest tests/parity/test_recorded_families.py --record

writes a file for each family (a new one too), which tests/golden/test_families.py then reads without torch.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from helpers.recorded_families import FOLDER, RecordedCase, read_case, write_folder
from helpers.tiny_families import FAMILY_CHANGES
from parity.cases import loaded, save_model, their_text, theirs
from safetensors.numpy import load_file, save_file

from awq_ref.model import FAMILIES

SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
NEW_TOKENS = 20
DIFFERENT = 5  # at least so many tokens of a recorded text: one that repeats itself would show little
# Of the largest logit. Another build of torch adds in another order; the recorded numbers have 24 bits.
SAME = 2e-6
# The same, between the likeliest token and the next: far above what roundings can exchange.
CLEAR = 1e-3


def narrowest_choice(model: Any, prompt: np.ndarray, greedy: list[int]) -> float:
    """Return how far the chosen token is from the next best, at the narrowest step, in parts of the largest logit."""
    logits = theirs(model, np.array([[*prompt, *greedy]]))[0, len(prompt) - 1 : -1]
    best = np.sort(logits, axis=1)
    return float((best[:, -1] - best[:, -2]).min() / np.abs(logits).max())


def record(family: str, folder: Path) -> None:
    """Write the file of a family: config.json as transformers writes it, weights, ids, logits, greedy text."""
    ids = np.random.default_rng(6).integers(3, SIZES["vocab_size"], (2, 12), dtype=np.int64)
    sizes = {name: size for name, size in SIZES.items() if name not in FAMILIES[family].derived}
    for seed in range(300):
        model = save_model(folder, family, seed=seed, **(sizes | FAMILY_CHANGES[family]))
        greedy = their_text(model, ids[0], NEW_TOKENS)
        if narrowest_choice(model, ids[0], greedy) > CLEAR and len(set(greedy)) >= DIFFERENT:
            break
    else:
        raise AssertionError(f"{family}: no seed gives a text that is clear and not monotonous")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    said = {"ids": ids, "logits": theirs(model, ids), "greedy": np.array(greedy, dtype=np.int64)}
    FOLDER.mkdir(exist_ok=True)
    save_file(
        {f"weights.{name}": array for name, array in weights.items()} | said,
        FOLDER / f"{family}.safetensors",
        metadata={"config": json.dumps(config, sort_keys=True), "transformers": transformers.__version__},
    )


@pytest.fixture(params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> RecordedCase:
    if request.config.getoption("--record", default=False):
        record(request.param, tmp_path / "new")
    return read_case(request.param)


def test_recorded_logits_and_text_are_what_transformers_says(case, tmp_path):
    model = loaded(write_folder(case, tmp_path / "recorded"))
    logits = theirs(model, case.ids)
    assert np.abs(logits - case.logits).max() <= SAME * np.abs(logits).max()
    assert their_text(model, case.ids[0], NEW_TOKENS) == case.greedy.tolist()
    assert narrowest_choice(model, case.ids[0], case.greedy.tolist()) > CLEAR / 2
