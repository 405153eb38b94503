"""The loops that turn logits into tokens: one at a time, until an end token, a limit or the context's end.

    greedy          pick the likeliest token
    OVERFLOWS       what may happen where the context ends
    rolled          what stays of a text that has filled the context
    must_reread     whether a longer text needs other keys than a cache has
    stream          yield the new tokens of one prompt as they come
    generate_batch  continue several prompts at once

How a token is picked is a callable from logits (vocab_size,) to an id, so that this room knows nothing of
sampling.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import numpy as np

from awq_ref.checks import require_between, require_one_of, require_shape
from awq_ref.dtypes import F32, I64, Bool
from awq_ref.errors import RangeError, ShapeError
from awq_ref.model.cache import PAGE, KVCache, new_cache
from awq_ref.model.config import ModelConfig
from awq_ref.model.rope import ROPE_TYPES, turned_length
from awq_ref.model.speculation import Lookup, Speculation, fitting, picked

Pick = Callable[[F32], int]
OVERFLOWS = ("error", "roll")


class Forward(Protocol):
    """What generation asks of a model."""

    @property
    def config(self) -> ModelConfig: ...

    def forward(
        self,
        token_ids: I64,
        cache: KVCache | None = None,
        *,
        attention_mask: Bool | None = None,
        last_only: bool = False,
    ) -> tuple[F32, KVCache | None]: ...


def greedy(logits: F32) -> int:
    """Return the id of the largest logit; of equals the smallest id.

    Parameters
    ----------
    logits : float32 array, shape (vocab_size,)

    Raises
    ------
    RangeError
        If a logit is NaN or +inf.
    """
    best = int(np.argmax(logits))  # the first NaN, if there is one
    if not math.isfinite(logits[best]):
        raise RangeError(
            f"generate: logits must be finite; got {logits[best]} for id {best}. "
            "Look for NaN or infinity in the weights."
        )
    return best


def _room(config: ModelConfig, prompt_length: int, max_new_tokens: int, *, overflow: str = "error") -> int:
    """Return how many tokens may follow the prompt; RangeError if the prompt itself is too long."""
    context = config.context
    require_between("generate", "max_new_tokens", max_new_tokens, 0, 2**31)
    require_one_of("generate", "overflow", overflow, OVERFLOWS)
    if overflow == "roll":
        return max_new_tokens
    if prompt_length > context:
        raise RangeError(
            f"generate: the prompt must fit the model's context of {context} tokens; got {prompt_length}. "
            "Shorten the prompt, or let it roll: overflow='roll'."
        )
    return min(max_new_tokens, context - prompt_length)


def _prompt(token_ids: I64 | Sequence[int]) -> I64:
    """Return a prompt as an array; ShapeError unless it is a row of at least one id."""
    ids = np.asarray(token_ids)
    require_shape("generate", "token_ids", ids, (None,))
    if not ids.size:
        raise ShapeError(
            "generate: token_ids must hold at least one id; got none. Begin with the model's first token."
        )
    return ids


def must_reread(config: ModelConfig, before: int, after: int) -> bool:
    """Tell whether a cache made of a text of `before` tokens cannot be kept in one of `after` tokens [LLM-14].

    `longrope` turns all keys of a text by other angles once it is longer than the original length. Keys of `dynamic`
    keep the angles that they were given, as in transformers.
    """
    rope = config.rope
    changed = turned_length(rope, after) != turned_length(rope, before)
    return changed and ROPE_TYPES[rope.rope_type].reread


def rolled(text: Sequence[int], config: ModelConfig) -> list[int]:
    """Return what stays of a text that is longer than the context: the newest half a context of tokens.

    A first token that is the model's bos_token_id is kept as one of them. The next token is what the model says of the
    text that stays, read anew: keys and values of the tokens that stay cannot be kept, because in every layer but the
    first they know of the tokens that went.

    Examples
    --------
    >>> config = ModelConfig(8, 8, 1, 1, 1, 8, 99, max_position_embeddings=6, bos_token_id=1)
    >>> rolled([1, 11, 12, 13, 14, 15, 16], config)
    [1, 15, 16]
    """
    stays = max(1, config.context // 2)
    head = list(text[:1]) if stays > 1 and text[0] == config.bos_token_id else []
    return head + list(text[len(text) - stays + len(head) :])


def _stream(
    model: Forward, ids: I64, room: int, pick: Pick, ends: Collection[int], speculation: Speculation
) -> Iterator[int]:
    text, config = ids.tolist(), model.config
    lookup = Lookup(text) if speculation.guesses else None
    cache: KVCache | None = None
    capacity = min(config.context, len(text) + room)
    step: list[int] = text
    while room > 0:
        if len(text) > config.context:
            cache, text = None, rolled(text, config)
            step = text
        elif must_reread(config, len(text) - 1, len(text)):
            cache, step = None, text
        cache = cache or new_cache(config, batch=1, capacity=capacity, page=PAGE)
        guesses: list[int] = []
        if lookup is not None and len(step) == 1:  # the prompt is read alone
            guesses = fitting(lookup.guess(min(speculation.guesses, room - 1)), config, len(text))
        new = np.array([[*step, *guesses]], dtype=np.int64)
        logits, cache = model.forward(new, cache, last_only=not guesses)
        before = len(text)
        for token in picked(logits[0, -1 - len(guesses) :], guesses, pick):
            yield token
            text.append(token)
            if lookup is not None:
                lookup.add(token)
            if token in ends:
                return
        room -= len(text) - before
        if len(step) == 1:
            speculation.count(len(guesses), len(text) - before)
        if guesses and cache is not None:
            cache = cache.truncated(len(text) - 1)
        step = text[-1:]


def stream(
    model: Forward,
    token_ids: I64 | Sequence[int],
    *,
    max_new_tokens: int,
    pick: Pick = greedy,
    eos_token_ids: Collection[int] | None = None,
    overflow: str = "error",
    speculate: int | Speculation = 0,
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, each as soon as it is known.

    Parameters
    ----------
    token_ids : int array or sequence, shape (tokens,)
    max_new_tokens : int
        Fewer come if the context ends first, or an end token is picked (it is yielded too, as the last).
    pick : callable
        Logits (vocab_size,) -> id.
    eos_token_ids : collection of int, optional
        The end tokens; those of the configuration when left out. Empty: nothing ends the text early.
    overflow : "error" or "roll"
        "error": the prompt must fit the context, and the text ends where the context does. "roll": whenever the text is
        longer than the context, its oldest tokens are dropped (`rolled`) and the rest is read anew.
    speculate : int or Speculation
        Tokens to guess in a step, for a pass to check them at once; 0 for none. The tokens stay the same
        (`awq_ref.model.speculation`). A record that is given counts what came of it.

    Raises
    ------
    ShapeError
        If token_ids is not a row of at least one id.
    RangeError
        If the prompt is longer than the context and does not roll, max_new_tokens is negative, an id is not in the
        vocabulary, overflow is neither of the two, or speculate is negative or above MOST_GUESSES.
    """
    ids = _prompt(token_ids)
    room = _room(model.config, len(ids), max_new_tokens, overflow=overflow)
    ends = model.config.eos_token_ids if eos_token_ids is None else eos_token_ids
    speculation = Speculation(speculate) if isinstance(speculate, int) else speculate
    return _stream(model, ids, room, pick, ends, speculation)


def _left_padded(rows: list[I64]) -> tuple[I64, Bool]:
    """Return ids (batch, longest) and a mask of the same shape, False where a row was padded on its left."""
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=np.bool_)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = True
    return ids, mask


def generate_batch(
    model: Forward,
    prompts: Sequence[I64 | Sequence[int]],
    *,
    max_new_tokens: int,
    pick: Pick = greedy,
    eos_token_ids: Collection[int] | None = None,
) -> list[list[int]]:
    """Continue several prompts at once; the shorter ones are padded on the left.

    Parameters
    ----------
    prompts : sequence of int arrays or sequences
        Their lengths may differ.

    Returns
    -------
    new_ids : list of lists of int
        Per prompt what `generate` would give alone, up to rounding and, near the context's end, fewer: the
        longest prompt decides when the context is full, and which frequencies a rope has that looks at the length
        [LLM-14].

    Raises
    ------
    ShapeError
        If there is no prompt, or one of them is not a row of at least one id.
    RangeError
        As for `stream`.
    """
    rows = [_prompt(prompt) for prompt in prompts]
    if not rows:
        raise ShapeError("generate_batch: prompts must hold at least one prompt; got none.")
    step, mask = _left_padded(rows)
    room = _room(model.config, step.shape[1], max_new_tokens)
    ends = model.config.eos_token_ids if eos_token_ids is None else eos_token_ids
    capacity, text = step.shape[1] + room, step
    cache: KVCache | None = new_cache(model.config, batch=len(rows), capacity=capacity, page=PAGE)
    new_ids: list[list[int]] = [[] for _ in rows]
    running = set(range(len(rows)))
    for _ in range(room):
        logits, cache = model.forward(
            step, cache, attention_mask=mask if step is text else None, last_only=True
        )
        step = np.zeros((len(rows), 1), dtype=np.int64)  # a finished row goes on with id 0, unheeded
        for row in sorted(running):
            step[row, 0] = token = pick(logits[row, -1])
            new_ids[row].append(token)
            if token in ends:
                running.remove(row)
        if not running:
            break
        text = np.concatenate([text, step], axis=1)
        if must_reread(model.config, text.shape[1] - 1, text.shape[1]):
            mask = np.pad(mask, ((0, 0), (0, text.shape[1] - mask.shape[1])), constant_values=True)
            cache, step = new_cache(model.config, batch=len(rows), capacity=capacity, page=PAGE), text
    return new_ids
