"""The whole decoder: token ids in, logits out.

    Decoder     embedding, blocks, final norm, head; forward, logits, hidden, head, generate

Source: Touvron et al. 2023, arXiv:2302.13971.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from awq_ref.checks import require_dtype, require_shape
from awq_ref.dtypes import F32, I64, U16, AnyFloat, Bool
from awq_ref.errors import ShapeError
from awq_ref.model import generate as loops
from awq_ref.model.block import Block, arithmetic, block_forward
from awq_ref.model.cache import PAGE, KVCache
from awq_ref.model.config import ModelConfig
from awq_ref.model.context import make_context
from awq_ref.model.entrance import Entrance, check_entrance, enter, widened
from awq_ref.model.inputs import checked_ids, checked_mask, text_length
from awq_ref.model.ops import apply_norm, soft_cap
from awq_ref.model.shapes import block_linear_shapes, block_norm_shapes, block_router_shapes
from awq_ref.model.speculation import Speculation
from awq_ref.spec import LinearOperator

# Tokens that pass through the layers at a time when there is a cache to remember the others: no more than a page, so
# that a layer with a window holds no more than the window and a page.
PREFILL_CHUNK = PAGE
TABLE_DTYPES = (np.float32, np.float16, np.float64, np.uint16)


def _require_linear(name: str, linear: LinearOperator, shape: tuple[int, int]) -> None:
    """Raise ShapeError unless the operator has this (out_features, in_features)."""
    if (linear.out_features, linear.in_features) != shape:
        raise ShapeError(
            f"Decoder: {name} must map {shape[1]} features to {shape[0]}; got {linear.in_features} to "
            f"{linear.out_features}."
        )


def _require_norm(name: str, weight: F32, shape: tuple[int]) -> None:
    require_shape("Decoder", name, weight, shape)
    require_dtype("Decoder", name, weight, np.float32)


def _require_given(name: str, part: object, wanted: bool) -> None:
    if (part is not None) != wanted:
        raise ShapeError(f"Decoder: {name} must {'' if part is None else 'not '}be given.")


def _require_names(what: str, have: Collection[str], want: Collection[str]) -> None:
    if set(have) != set(want):
        raise ShapeError(f"Decoder: {what} must be {', '.join(want)}; got {', '.join(have) or 'none'}.")


@dataclass
class Decoder:
    """A decoder-only language model.

    Parameters
    ----------
    config : ModelConfig
    embed_tokens : array of any float dtype, or of bfloat16 as uint16 words, shape (vocab_size, hidden_size)
        Only the rows that are looked up are converted to float32.
    blocks : list of Block
    norm : float32 array, shape (hidden_size,), or None
        What the final norm multiplies by (`Block`); None in families without.
    lm_head : LinearOperator
        hidden_size -> vocab_size; with tied embeddings an operator over the same matrix.
    norm_bias : float32 array, shape (hidden_size,), or None
        What the final norm adds, in families whose norms have biases.
    entrance : Entrance
        What some families have between embedding and blocks.
    project_out : LinearOperator or None
        hidden_size -> the embedding's width, before lm_head, where that is another.

    Raises
    ------
    ShapeError
        If a part is missing or does not have the size that config gives it.
    DtypeError
        If a norm is not float32, or embed_tokens of another dtype.
    """

    config: ModelConfig
    embed_tokens: AnyFloat | U16
    blocks: list[Block]
    norm: F32 | None
    lm_head: LinearOperator
    norm_bias: F32 | None = None
    entrance: Entrance = Entrance()
    project_out: LinearOperator | None = None

    def __post_init__(self) -> None:
        hidden, vocab, width = self.config.hidden_size, self.config.vocab_size, self.config.embedding_width
        require_shape("Decoder", "embed_tokens", self.embed_tokens, (vocab, width))
        require_dtype("Decoder", "embed_tokens", self.embed_tokens, *TABLE_DTYPES)
        _require_linear("lm_head", self.lm_head, (vocab, width))
        check_entrance(self.entrance, self.config)
        _require_given("project_out", self.project_out, self.config.projects)
        if self.project_out is not None:
            _require_linear("project_out", self.project_out, (width, hidden))
        if len(self.blocks) != self.config.num_hidden_layers:
            raise ShapeError(
                f"Decoder: blocks must be {self.config.num_hidden_layers}; got {len(self.blocks)}."
            )
        for layer, block in enumerate(self.blocks):
            shapes = block_linear_shapes(self.config, layer) | block_router_shapes(self.config, layer)
            norm_shapes = block_norm_shapes(self.config)
            _require_names(f"linears of layer {layer}", block.linears, shapes)
            _require_names(f"norms of layer {layer}", block.norms, norm_shapes)
            for name, linear in block.linears.items():
                _require_linear(f"layer {layer}, {name}", linear, shapes[name])
            for name, weight in block.norms.items():
                _require_norm(f"layer {layer}, {name}", weight, norm_shapes[name])
        has_norm = bool(self.config.family.final_norm)
        _require_given("norm", self.norm, has_norm)
        _require_given("norm_bias", self.norm_bias, has_norm and self.config.family.norm_bias)
        for name, weight in (("norm", self.norm), ("norm_bias", self.norm_bias)):
            if weight is not None:
                _require_norm(name, weight, (hidden,))

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    # ---- forward ----

    def embed(self, token_ids: I64, positions: I64 | None = None) -> F32:
        """Map ids (batch, tokens) to what enters the first block, float32 (batch, tokens, hidden_size).

        positions (batch or 1, tokens) are 0, 1, ... when left out; only learned positions look at them.
        """
        rows = widened(self.embed_tokens[token_ids])
        where = np.arange(token_ids.shape[1], dtype=np.int64) if positions is None else positions
        return enter(rows, where, self.entrance, self.config)

    def _pass(
        self, ids: I64, mask: Bool | None, cache: KVCache | None, length: int = 0
    ) -> tuple[F32, KVCache | None]:
        """Send tokens through all blocks; return the stream before the final norm, and the longer cache."""
        context = make_context(self.config, ids.shape[1], attention_mask=mask, cache=cache, length=length)
        x = self.embed(ids, context.positions)
        with arithmetic():
            for layer, block in enumerate(self.blocks):
                x = block_forward(x, block, self.config, context.at_layer(layer))
        return x, context.cache

    def _final_norm(self, x: F32) -> F32:
        if self.norm is None:
            return x
        with arithmetic():
            kind, eps = self.config.family.norm, self.config.rms_norm_eps
            return apply_norm(kind, x, self.norm, self.norm_bias, eps=eps)

    def hidden(self, token_ids: I64, *, attention_mask: Bool | None = None) -> F32:
        """Return the final hidden states, normalized; `head` turns them, or some of them, into logits.

        Parameters
        ----------
        token_ids, attention_mask
            As for `forward`.

        Returns
        -------
        hidden : float32 array, shape (batch, tokens, hidden_size)

        Raises
        ------
        ShapeError, DtypeError, RangeError
            As for `forward`.
        """
        ids = checked_ids(self.config, token_ids)
        x, _ = self._pass(ids, checked_mask(attention_mask, ids.shape), None)
        return self._final_norm(x)

    def head(self, hidden: F32) -> F32:
        """Map hidden states (..., hidden_size) to logits, float32 (..., vocab_size).

        They are divided by logits_scaling, multiplied by logit_scale [LLM-8] and capped [LLM-6] where the configuration
        says so.
        """
        with arithmetic():
            logits = self.lm_head(hidden if self.project_out is None else self.project_out(hidden))
            if self.config.logits_scaling != 1.0:
                logits = logits / self.config.logits_scaling
            if self.config.logit_scale != 1.0:
                logits = logits * self.config.logit_scale
            cap = self.config.final_logit_softcapping
            return soft_cap(logits, cap) if cap else logits

    def logits(self, token_ids: I64, *, attention_mask: Bool | None = None) -> F32:
        """Return logits of every token, float32 (batch, tokens, vocab_size); else as `forward`."""
        return self.head(self.hidden(token_ids, attention_mask=attention_mask))

    def forward(
        self,
        token_ids: I64,
        cache: KVCache | None = None,
        *,
        attention_mask: Bool | None = None,
        last_only: bool = False,
    ) -> tuple[F32, KVCache | None]:
        """Return logits of new tokens, and the cache that knows them.

        Parameters
        ----------
        token_ids : int array, shape (batch, tokens)
        cache : KVCache, optional
            What came before (`new_cache` for the start of a text). With a cache, long inputs go through the
            layers in chunks of PREFILL_CHUNK tokens.
        attention_mask : bool array, shape (batch, tokens), optional
            False (or 0) marks padding. Padding changes nothing for the other tokens; its own logits mean
            nothing.
        last_only : bool
            Only the logits of the last token of each row.

        Returns
        -------
        logits : float32 array, shape (batch, tokens or 1, vocab_size)
        cache : KVCache, longer by the new tokens; None if none was given

        Raises
        ------
        ShapeError
            If token_ids has not two axes, is empty, or does not fit the mask or the cache.
        DtypeError
            If token_ids are not integers.
        RangeError
            If an id is not in the vocabulary (the message names it and its position), the text is longer than
            the context or the cache, or a row of the mask is all padding.
        """
        before = 0 if cache is None else cache.length
        ids = checked_ids(self.config, token_ids, before=before)
        mask = checked_mask(attention_mask, ids.shape, before=before)
        if cache is not None and cache.batch != len(ids):
            raise ShapeError(f"Decoder: token_ids must have the cache's {cache.batch} rows; got {len(ids)}.")
        chunk = ids.shape[1] if cache is None else PREFILL_CHUNK
        pieces: list[F32] = []
        length = text_length(ids, mask, None if cache is None else cache.valid[:, :before])
        for first in range(0, ids.shape[1], chunk):
            part = None if mask is None else mask[:, first : first + chunk]
            x, cache = self._pass(ids[:, first : first + chunk], part, cache, length)
            pieces = [x[:, -1:]] if last_only else [*pieces, x]
        x = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
        return self.head(self._final_norm(x)), cache

    # ---- text ----

    def stream(
        self,
        token_ids: I64 | Sequence[int],
        *,
        max_new_tokens: int,
        pick: loops.Pick = loops.greedy,
        eos_token_ids: Collection[int] | None = None,
        overflow: str = "error",
        speculate: int | Speculation = 0,
    ) -> Iterator[int]:
        """Yield the tokens that follow a prompt as they come; see `generate.stream`."""
        return loops.stream(
            self,
            token_ids,
            max_new_tokens=max_new_tokens,
            pick=pick,
            eos_token_ids=eos_token_ids,
            overflow=overflow,
            speculate=speculate,
        )

    def generate(self, token_ids: I64 | Sequence[int], **options: Any) -> list[int]:
        """Return the tokens that follow a prompt; the options are those of `stream`."""
        return list(self.stream(token_ids, **options))

    def resident_bytes(self) -> dict[str, int]:
        """Return the bytes that stay in memory, by part; a head over the embedding's own memory adds 0."""
        head_weight = getattr(self.lm_head, "weight", None)
        tied = isinstance(head_weight, np.ndarray) and np.may_share_memory(head_weight, self.embed_tokens)
        linears = [linear for block in self.blocks for linear in block.linears.values()]
        entrance, out = self.entrance, self.project_out
        outer = [self.norm, self.norm_bias, entrance.norm, entrance.norm_bias]
        norms = [*outer, *(weight for block in self.blocks for weight in block.norms.values())]
        tables = [self.embed_tokens, entrance.positions]
        projections = [linear.resident_bytes for linear in (entrance.project, out) if linear is not None]
        return {
            "embeddings": sum(table.nbytes for table in tables if table is not None) + sum(projections),
            "linears": sum(linear.resident_bytes for linear in linears),
            "head": 0 if tied else self.lm_head.resident_bytes,
            "norms": sum(weight.nbytes for weight in norms if weight is not None),
        }
