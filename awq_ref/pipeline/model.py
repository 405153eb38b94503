"""A decoder with its tokenizer: what a checkpoint folder becomes.

Model                   logits, generate, stream, stream_text
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from awq_ref.checkpoint import Quantization
from awq_ref.dtypes import F32, AnyArray
from awq_ref.errors import CorpusError
from awq_ref.model import Decoder, ModelConfig, Speculation
from awq_ref.text import GenerationDefaults, Sampling, Tokenizer, sampler


@dataclass(frozen=True)
class Model:
    """A decoder with its tokenizer. Make one with `load_model`.

    decoder         the network
    tokenizer       None if the folder has no tokenizer.json
    quantization    how the linears are stored; None for a float model
    residency_note  how the weights stay in memory, for people
    defaults        what generation_config.json recommends: tokens that end a text, how to sample
    """

    decoder: Decoder
    tokenizer: Tokenizer | None
    quantization: Quantization | None
    residency_note: str
    defaults: GenerationDefaults = field(default_factory=GenerationDefaults)

    @property
    def config(self) -> ModelConfig:
        return self.decoder.config

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def is_quantized(self) -> bool:
        return self.quantization is not None

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text: those of generation_config.json, else of config.json."""
        return self.defaults.eos_token_ids or tuple(self.config.eos_token_ids)

    def require_tokenizer(self) -> Tokenizer:
        """Return the tokenizer, or raise CorpusError if the folder has none."""
        if self.tokenizer is None:
            raise CorpusError(
                "this model's folder has no tokenizer.json, so it takes token ids only, no text."
            )
        return self.tokenizer

    def resident_bytes(self) -> dict[str, int]:
        """Return the bytes of the weights in memory by part: embeddings, linears, head, norms."""
        return self.decoder.resident_bytes()

    def hidden(self, token_ids: AnyArray) -> F32:
        """Map ids (batch, seq) to final hidden states (batch, seq, hidden_size) float32."""
        return self.decoder.hidden(token_ids)

    def head(self, hidden: F32) -> F32:
        """Map hidden states (..., hidden_size) to logits (..., vocab_size) float32."""
        return self.decoder.head(hidden)

    def logits(self, token_ids: AnyArray, attention_mask: AnyArray | None = None) -> F32:
        """Map token ids to logits.

        Parameters
        ----------
        token_ids : integer array, shape (batch, seq)
        attention_mask : array of 0 and 1, shape (batch, seq), optional
            0 marks padding.

        Returns
        -------
        logits : float32 array, shape (batch, seq, vocab_size)

        Raises
        ------
        ShapeError
            If token_ids is not 2-D.
        RangeError
            If an id lies outside the vocabulary or seq exceeds the context.
        """
        return self.decoder.logits(np.asarray(token_ids), attention_mask=attention_mask)

    def stream(
        self,
        token_ids: AnyArray | list[int],
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        eos_token_ids: Collection[int] | None = None,
        overflow: str = "error",
        speculate: int | Speculation = 0,
    ) -> Iterator[int]:
        """Yield new token ids one by one; temperature 0 takes the likeliest each time.

        Parameters
        ----------
        token_ids : integer array or list, shape (n_tokens,)
            The prompt.
        max_new_tokens : int
            Stop after this many, after an end-of-text id, or at the end of the context.
        temperature, top_p, top_k, min_p, repetition_penalty
            How to sample: see `awq_ref.text.Sampling`. `Model.defaults.sampling` has what the folder recommends.
        seed : int, optional
            With a seed the same call gives the same ids.
        eos_token_ids : collection of int, optional
            Ids that end the text; the model's own when left out, none for ().
        overflow : "error" or "roll"
            "error": the prompt must fit the context. "roll": the oldest tokens are dropped, from the prompt too, and
            the text goes on; see `awq_ref.model.stream`.
        speculate : int or Speculation
            Tokens to guess in a step from what the text has repeated so far, and to check in one pass; the ids stay the
            same. A `Speculation` counts how many were right.

        Raises
        ------
        ShapeError
            If the prompt is empty or not 1-D.
        RangeError
            If an id lies outside the vocabulary, the prompt exceeds the context and does not roll, or a sampling value
            exceeds its range.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        pick = sampler(sampling, seed=seed, prompt=np.asarray(token_ids).ravel())
        ends = self.eos_token_ids if eos_token_ids is None else eos_token_ids
        return self.decoder.stream(
            np.asarray(token_ids),
            max_new_tokens=max_new_tokens,
            pick=pick,
            eos_token_ids=ends,
            overflow=overflow,
            speculate=speculate,
        )

    def generate(self, token_ids: AnyArray | list[int], **options: Any) -> list[int]:
        """Return the new ids as a list; the options, and what is raised, are those of `stream`."""
        return list(self.stream(token_ids, **options))

    def stream_text(self, prompt: str, **options: Any) -> Iterator[str]:
        """Yield the continuation of a text, a piece per token; the options are those of `stream`."""
        tokenizer = self.require_tokenizer()
        pieces = tokenizer.stream_decoder()
        for token_id in self.stream(tokenizer.encode(prompt), **options):
            yield pieces.push(token_id)
        yield pieces.flush()
