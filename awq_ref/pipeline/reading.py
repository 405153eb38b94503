"""What a checkpoint holds outside of its linears, in the decoder's terms.

open_model      a folder, or a name on the hub -> checkpoint, under its family's names, and configuration
read_entrance   what stands between embedding and blocks
read_decoder    blocks -> the whole decoder
"""

from pathlib import Path

from awq_ref.checkpoint import Checkpoint, Quantization
from awq_ref.dtypes import F32
from awq_ref.matmul import DenseLinear
from awq_ref.model import Block, Decoder, Entrance, ModelConfig
from awq_ref.pipeline.stored import read_norm
from awq_ref.pipeline.tables import Head, read_embedding, read_head


def open_model(path: str | Path) -> tuple[Checkpoint, ModelConfig]:
    """Open a checkpoint; where its tensors' names lack the family's prefix, they are given it.

    Raises
    ------
    FormatError, MissingTensorError, UnsupportedError, HubError
        As `Checkpoint.open` and `ModelConfig.from_json`.
    """
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_json(checkpoint.config)
    prefix, table = config.family.base_prefix, f"{config.family.embed_tokens}.weight"
    if table not in checkpoint and table.removeprefix(prefix) in checkpoint:
        head = f"{config.family.lm_head}."
        checkpoint = checkpoint.renamed(lambda name: name if name.startswith(head) else prefix + name)
    return checkpoint, config


def _norm_and_bias(checkpoint: Checkpoint, config: ModelConfig, name: str) -> tuple[F32 | None, F32 | None]:
    """Read a norm outside the blocks; None for what a family does not have, a norm without a name among it."""
    if not name:
        return None, None
    bias = read_norm(checkpoint, config, f"{name}.bias") if config.family.norm_bias else None
    return read_norm(checkpoint, config, name), bias


def _read_projection(checkpoint: Checkpoint, config: ModelConfig, name: str) -> DenseLinear | None:
    return DenseLinear(checkpoint.read(f"{name}.weight")) if config.projects else None


def read_entrance(checkpoint: Checkpoint, config: ModelConfig) -> Entrance:
    """Read what stands between the embedding and the blocks; an empty record in most families."""
    family = config.family
    table = checkpoint.read(f"{family.position_table}.weight") if family.position_table else None
    project = _read_projection(checkpoint, config, family.project_in)
    return Entrance(table, project, *_norm_and_bias(checkpoint, config, family.embed_norm))


def read_decoder(
    checkpoint: Checkpoint,
    config: ModelConfig,
    blocks: list[Block],
    quantization: Quantization | None,
    head: Head = "float",
) -> Decoder:
    """Read what stands before and after the blocks, and put the decoder together."""
    family = config.family
    embed_tokens = read_embedding(checkpoint, config, quantization, head)
    norm, norm_bias = _norm_and_bias(checkpoint, config, family.final_norm)
    return Decoder(
        config,
        embed_tokens,
        blocks,
        norm,
        read_head(checkpoint, config, embed_tokens, quantization, head),
        norm_bias,
        read_entrance(checkpoint, config),
        _read_projection(checkpoint, config, family.project_out),
    )
