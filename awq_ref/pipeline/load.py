"""A checkpoint folder becomes a model that computes.

Model                   decoder and tokenizer: logits, generate, stream, stream_text
load_model              float or quantized folder -> Model
read_block              one layer's weights -> Block, as the checkpoint stores them
open_tokenizer          the folder's tokenizer, if it has one
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from awq_ref.checkpoint import Checkpoint, Float8Config, Quantization
from awq_ref.checks import require_one_of
from awq_ref.dtypes import F32, AnyArray
from awq_ref.errors import CorpusError
from awq_ref.matmul import RESIDENCIES, DenseLinear, Residency
from awq_ref.model import Block, Decoder, ModelConfig, block_linear_shapes, block_norm_shapes, block_prefix
from awq_ref.pipeline.stored import check_complete, open_quantization, read_linear, read_norm, read_table
from awq_ref.text import Tokenizer, sampler


@dataclass(frozen=True)
class Model:
    """A decoder with its tokenizer. Make one with `load_model`.

    decoder         the network
    tokenizer       None if the folder has no tokenizer.json
    quantization    how the linears are stored; None for a float model
    residency_note  how the weights stay in memory, for people
    """

    decoder: Decoder
    tokenizer: Tokenizer | None
    quantization: Quantization | None
    residency_note: str

    @property
    def config(self) -> ModelConfig:
        return self.decoder.config

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def is_quantized(self) -> bool:
        return self.quantization is not None

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
        seed: int | None = None,
        eos_token_ids: Collection[int] | None = None,
    ) -> Iterator[int]:
        """Yield new token ids one by one; temperature 0 takes the likeliest each time.

        Parameters
        ----------
        token_ids : integer array or list, shape (n_tokens,)
            The prompt.
        max_new_tokens : int
            Stop after this many, after an end-of-text id, or at the end of the context.
        temperature, top_p, top_k, seed
            How to sample: see `awq_ref.text.sampler`. With a seed the same call gives the same ids.
        eos_token_ids : collection of int, optional
            Ids that end the text; the model's own when left out, none for ().

        Raises
        ------
        ShapeError
            If the prompt is empty or not 1-D.
        RangeError
            If an id lies outside the vocabulary, the prompt exceeds the context, or a sampling value its range.
        """
        pick = sampler(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
        return self.decoder.stream(
            np.asarray(token_ids), max_new_tokens=max_new_tokens, pick=pick, eos_token_ids=eos_token_ids
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


def read_block(
    checkpoint: Checkpoint,
    config: ModelConfig,
    layer: int,
    *,
    quantization: Quantization | None = None,
    residency: Residency = "packed",
) -> Block:
    """Read one layer of a checkpoint; of a float one all weights are float32."""
    prefix = block_prefix(config, layer)
    norms = {name: read_norm(checkpoint, config, f"{prefix}{name}") for name in block_norm_shapes(config)}
    names = block_linear_shapes(config)
    return Block(
        norms, {n: read_linear(checkpoint, config, prefix + n, quantization, residency) for n in names}
    )


def _residency_note(blocks: list[Block], quantization: Quantization | None) -> str:
    """Say how many linears stay in memory in which form."""
    linears = [linear for block in blocks for linear in block.linears.values()]
    counts = Counter(getattr(linear, "residency", "dense") for linear in linears)
    parts = [f"{count} {form}" for form, count in counts.most_common()]
    if quantization is None or isinstance(quantization, Float8Config):
        origin = "" if quantization is None else ", from float8"
        return f"float32 linears: {len(linears)}{origin}"
    return f"linears: {', '.join(parts)}"


def open_tokenizer(path: str | Path) -> Tokenizer | None:
    """Return the folder's tokenizer, or None if it has none."""
    return Tokenizer.load(path) if (Path(path) / "tokenizer.json").is_file() else None


def load_model(path: str | Path, *, residency: Residency = "packed") -> Model:
    """Load a float or quantized checkpoint.

    Parameters
    ----------
    path : str or Path
        Folder with config.json, one or several safetensors files, and tokenizer.json if text is wanted; or a name on
        the Hugging Face hub, NAME or NAME@REVISION, if there is no such path.
    residency : "packed", "codes" or "dense"
        How quantized linears stay in memory: their bits, a byte per weight, or float32. Linears whose group size
        does not fit the packed planes are held as codes; `Model.residency_note` says so. A float checkpoint is
        always float32, one of float8 numbers too, and embedding and head of any.

    Raises
    ------
    FormatError, MissingTensorError, ShapeError, DtypeError, RangeError, UnsupportedError
        If the folder is not a complete checkpoint of a known architecture and format; each message names the file
        or tensor and what to try.
    HubError
        If it is a name on the hub and cannot be had from there.

    Examples
    --------
    >>> from awq_ref.checkpoint import demo_model_path
    >>> model = load_model(demo_model_path())
    >>> model.logits(np.array([[0, 1, 2]])).shape
    (1, 3, 4096)
    """
    require_one_of("load_model", "residency", residency, RESIDENCIES)
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_json(checkpoint.config)
    quantization = open_quantization(checkpoint)
    check_complete(checkpoint, config, quantization)
    blocks = [
        read_block(checkpoint, config, layer, quantization=quantization, residency=residency)
        for layer in range(config.num_hidden_layers)
    ]
    family = config.family
    embed_tokens = read_table(checkpoint, config, family.embed_tokens, quantization)
    tied = config.tie_word_embeddings
    head = embed_tokens if tied else read_table(checkpoint, config, family.lm_head, quantization)
    norm = read_norm(checkpoint, config, family.final_norm)
    norm_bias = read_norm(checkpoint, config, f"{family.final_norm}.bias") if family.norm_bias else None
    decoder = Decoder(config, embed_tokens, blocks, norm, DenseLinear(head), norm_bias)
    tokenizer = open_tokenizer(checkpoint.folder)
    return Model(decoder, tokenizer, quantization, _residency_note(blocks, quantization))
