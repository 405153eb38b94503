"""Checks of what a caller hands to the decoder.

checked_ids     token ids lie in the vocabulary and fit the context
checked_mask    an attention mask fits the ids
text_length     tokens of the longest text, padding not counted
"""

from collections.abc import Sequence

import numpy as np

from awq_ref.checks import require_shape
from awq_ref.dtypes import I64, AnyArray, Bool
from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.model.config import ModelConfig


def checked_ids(
    config: ModelConfig, token_ids: AnyArray | Sequence[Sequence[int]], *, before: int = 0
) -> I64:
    """Return token ids as an int64 array (batch, tokens), to stand after `before` others.

    Raises
    ------
    ShapeError
        If they have not two axes, or there is none.
    DtypeError
        If they are not integers.
    RangeError
        If one is not in the vocabulary (the message names it and its position), or the context is too short.
    """
    ids = np.asarray(token_ids)
    require_shape("Decoder", "token_ids", ids, (None, None))
    if not ids.size:
        raise ShapeError(f"Decoder: token_ids must hold at least one id; got shape {ids.shape}.")
    if ids.dtype.kind not in "iu":
        raise DtypeError(f"Decoder: token_ids must be integers; got {ids.dtype}.")
    if ids.min() < 0 or ids.max() >= config.vocab_size:
        row, column = (int(i) for i in np.argwhere((ids < 0) | (ids >= config.vocab_size))[0])
        raise RangeError(
            f"Decoder: token_ids must lie in [0, {config.vocab_size - 1}]; got {ids[row, column]} at row "
            f"{row}, position {column}. Was the text encoded with this model's tokenizer?"
        )
    length, context = before + ids.shape[1], config.context
    if length > context:
        raise RangeError(f"Decoder: the text must fit the model's context of {context} tokens; got {length}.")
    return ids.astype(np.int64, copy=False)


def checked_mask(attention_mask: AnyArray | None, shape: Sequence[int], *, before: int = 0) -> Bool | None:
    """Return an attention mask as bool, or None as it came.

    Raises
    ------
    ShapeError
        If it has not the shape of the ids.
    RangeError
        If it holds anything but 0 and 1, or, at the start of a text, a row is all padding.
    """
    if attention_mask is None:
        return None
    mask = np.asarray(attention_mask)
    require_shape("Decoder", "attention_mask", mask, shape)
    if not np.isin(mask, (0, 1)).all():
        raise RangeError("Decoder: attention_mask must hold only 0 (padding) and 1; got other values.")
    empty = ~mask.astype(np.bool_).any(axis=1)
    if not before and empty.any():
        row = int(np.argmax(empty))
        raise RangeError(f"Decoder: attention_mask must keep a token in every row; row {row} is all padding.")
    return mask.astype(np.bool_)


def text_length(ids: I64, mask: Bool | None, before: Bool | None) -> int:
    """Return how many tokens the longest row has: those of a mask, and those before it (batch, columns)."""
    new = ids.shape[1] if mask is None else mask.sum(axis=1, dtype=np.int64)
    seen = 0 if before is None else before.sum(axis=1, dtype=np.int64)
    return int(np.max(new + seen))
