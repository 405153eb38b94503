"""The two tables of the vocabulary, as they stay in memory: the embedding, of which rows are looked up, and the head.

    HEADS             how the head is held: "float" (float32) or "int8" (`matmul.Int8Linear`)
    read_embedding    as stored where that is 16 bits wide, else float32
    read_head         as a linear operator
    table_bytes       what both will take, from the shapes

A float head that is tied is the embedding: one float32 array. In every other case the embedding is a table of its own,
and stays 16 bits wide if it is stored so; docs/decisions.md#head-in-int8.
"""

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np

from awq_ref.checkpoint import Checkpoint, Quantization
from awq_ref.dtypes import F32, U16, AnyFloat
from awq_ref.matmul import DenseLinear, Int8Linear
from awq_ref.model import ModelConfig
from awq_ref.pipeline.stored import read_table
from awq_ref.spec import LinearOperator

Head: TypeAlias = Literal["float", "int8"]
HEADS: tuple[Head, ...] = get_args(Head)
ROWS = 4096  # read, checked and rounded at a time
WORDS: dict[str, type[np.generic]] = {
    "BF16": np.uint16,
    "F16": np.float16,
}  # tables that stay as they are stored


def _stored_dtype(checkpoint: Checkpoint, place: str) -> str:
    """Return the storage dtype of a table, "" where it is no plain tensor."""
    name = f"{place}.weight"
    return checkpoint.info(name).dtype if name in checkpoint else ""


def _parts(
    checkpoint: Checkpoint, config: ModelConfig, place: str, quantization: Quantization | None
) -> Iterator[F32]:
    """Yield a table as float32, a few thousand rows at a time if it is stored as floats."""
    if _stored_dtype(checkpoint, place) not in (*WORDS, "F32"):
        yield read_table(checkpoint, config, place, quantization)
        return
    for first in range(0, config.vocab_size, ROWS):
        yield checkpoint.read(f"{place}.weight", rows=slice(first, min(first + ROWS, config.vocab_size)))


def read_embedding(
    checkpoint: Checkpoint, config: ModelConfig, quantization: Quantization | None, head: Head
) -> AnyFloat | U16:
    """Return the embedding: float32 where the head shares it or the file has other numbers than 16-bit floats.

    Raises
    ------
    RangeError
        If it holds a NaN or an infinity.
    """
    place = config.family.embed_tokens
    dtype = _stored_dtype(checkpoint, place)
    if dtype not in WORDS or (config.tie_word_embeddings and head == "float"):
        return read_table(checkpoint, config, place, quantization)
    for _ in _parts(checkpoint, config, place, quantization):  # each part is checked, and forgotten
        pass
    shape = checkpoint.info(f"{place}.weight").shape
    stored = np.array(checkpoint.raw(f"{place}.weight"))  # a copy, and so aligned
    words: AnyFloat | U16 = stored.view(np.dtype(WORDS[dtype]).newbyteorder("<")).reshape(shape)
    return words.astype(WORDS[dtype], copy=False)


def read_head(
    checkpoint: Checkpoint,
    config: ModelConfig,
    embedding: AnyFloat | U16,
    quantization: Quantization | None,
    head: Head,
) -> LinearOperator:
    """Return the head; of a tied one the rows are the embedding's."""
    family, tied = config.family, config.tie_word_embeddings
    place = family.embed_tokens if tied else family.lm_head
    bias = checkpoint.read(f"{family.lm_head}.bias") if family.head_bias else None
    if head == "int8":
        parts = _parts(checkpoint, config, place, quantization)
        return Int8Linear.from_rows(parts, (config.vocab_size, config.embedding_width), bias=bias)
    if tied:
        return DenseLinear(embedding, bias)  # type: ignore[arg-type]  # float32: see read_embedding
    return DenseLinear(read_table(checkpoint, config, place, quantization), bias)


def table_bytes(config: ModelConfig, dtype: str, head: Head) -> int:
    """Return the bytes of embedding and head in memory, without a bias; dtype: in which the embedding is stored.

    Examples
    --------
    >>> config = ModelConfig(8, 8, 1, 1, 1, 8, 100, max_position_embeddings=6, tie_word_embeddings=True)
    >>> table_bytes(config, "BF16", "float"), table_bytes(config, "BF16", "int8")  # 4; 2 + 1 and a step
    (3200, 2800)
    """
    shape = (config.vocab_size, config.embedding_width)
    size, shared = math.prod(shape), config.tie_word_embeddings and head == "float"
    embedding = size * (2 if dtype in WORDS and not shared else 4)
    heads = {"float": 0 if shared else 4 * size, "int8": size + 4 * shape[0]}
    return embedding + heads[head]
