"""A model with large activations in a few channels, made from one that has none.

grow_outliers   the same function, with the outlier channels that large models grow by themselves
"""

from pathlib import Path

import numpy as np

from awq_ref.checkpoint import ShardWriter, copy_side_files, new_folder, write_json
from awq_ref.dtypes import F32
from awq_ref.model import ModelConfig, block_prefix, stored_place
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.reading import open_model

OUTLIER_SHARE = 0.02  # of the channels: what is salient in large models is about as rare
OUTLIER_FACTOR = 32.0


def outlier_factors(config: ModelConfig, factor: float, *, seed: int = 0) -> dict[str, F32]:
    """Return tensor name -> what multiplies it: norms grow in a few channels, their readers shrink there."""
    rng = np.random.default_rng(seed)
    count = max(1, round(OUTLIER_SHARE * config.hidden_size))
    factors: dict[str, F32] = {}
    for layer in range(config.num_hidden_layers):
        prefix = block_prefix(config, layer)
        for group in layer_plan(config, layer):
            if group.producer_kind != "norm":
                continue
            grown = np.ones(config.hidden_size, dtype=np.float32)
            grown[rng.choice(config.hidden_size, count, replace=False)] = factor
            ends = ("weight", "bias") if config.family.norm_bias else ("weight",)
            factors |= {f"{prefix}{group.producer}.{end}": grown for end in ends}
            places = {stored_place(config, f"{prefix}{name}")[0] for name in group.readers}
            shrunk = 1.0 / (grown[:, None] if config.family.transposed else grown)
            factors |= {f"{place}.weight": shrunk for place in places}
    return factors


def grow_outliers(source: str | Path, destination: str | Path, *, factor: float = OUTLIER_FACTOR) -> None:
    """Write a checkpoint that computes the same function with large activations in a few channels.

    In every block 2 % of the entries of both norms' weights are multiplied by the factor, and the columns that read
    them are divided by it. A power of two is exact in floating point, short of subnormals.

    Raises
    ------
    UnsupportedError
        If the family has no plan.
    OutputError
        If the destination exists or cannot be written.
    """
    checkpoint, config = open_model(source)
    factors = outlier_factors(config, factor)
    with new_folder(destination) as folder:
        with ShardWriter(folder) as writer:
            for name in checkpoint.names:
                array = checkpoint.read(name)
                offset = np.float32(config.family.norm_offset if array.ndim == 1 else 0.0)
                grown = (array + offset) * factors[name] - offset if name in factors else array
                writer.add(name, grown, dtype=checkpoint.info(name).dtype)
        copy_side_files(checkpoint.folder, folder)
        write_json(folder / "config.json", checkpoint.config)
