"""A checkpoint folder becomes one GGUF file, which llama.cpp runs.

    convert_to_gguf   the whole job
    GgufReport        which linears became which type, which were rounded, what the file cannot say

A linear of integers keeps them: symmetric ones of 4 bits become q4_0, others q4_1, symmetric ones of 8 bits q8_0; what
is float becomes F16 where that is exact and F32 elsewhere, norms and biases F32. `awq_ref.pipeline.refit` measures what
rounds.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from awq_ref.checkpoint import (
    Checkpoint,
    GgufTensor,
    Quantization,
    QuantizationConfig,
    model_name,
    write_gguf,
)
from awq_ref.checkpoint.writer import require_new
from awq_ref.dtypes import F32, I64
from awq_ref.errors import UnsupportedError
from awq_ref.model import ModelConfig, block_linear_shapes, block_norm_shapes, block_prefix
from awq_ref.pipeline.gguf_families import GgufFamily, gguf_family, gguf_metadata, rope_factors
from awq_ref.pipeline.reading import open_model
from awq_ref.pipeline.refit import Refitted, refit
from awq_ref.pipeline.stored import (
    check_complete,
    is_float,
    open_quantization,
    read_norm,
    read_quantized_linear,
    read_table,
    read_weight,
)
from awq_ref.quantize import dequantize_linear, take_rows
from awq_ref.spec import QuantizedLinear
from awq_ref.text.ggml import ggml_tokenizer

FILE_TYPES = {"F32": 0, "F16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7}  # general.file_type, for people


@dataclass(frozen=True)
class GgufReport:
    """What a conversion did.

    kinds   : type -> how many tensors have it
    rounded : linear -> largest change of a weight, relative to the linear's largest
    notes   : what the file cannot say
    """

    kinds: dict[str, int]
    rounded: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return what a person wants to know."""
        lines = ["gguf: " + ", ".join(f"{count} tensors {kind}" for kind, count in self.kinds.items())]
        if self.rounded:
            worst = max(self.rounded, key=self.rounded.__getitem__)
            lines.append(
                f"{len(self.rounded)} linears rounded; largest change of a weight, relative to its layer's largest: "
                f"{self.rounded[worst]:.2e}, in {worst}"
            )
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class _Source:
    """What is read, and as what it is written; dequantized: every tensor as float32."""

    checkpoint: Checkpoint
    config: ModelConfig
    quantization: Quantization | None
    family: GgufFamily
    dequantized: bool
    allow_rounding: bool
    rounded: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, source: str | Path, *, dequantized: bool, allow_rounding: bool) -> "_Source":
        checkpoint, config = open_model(source)
        family, quantization = gguf_family(config), open_quantization(checkpoint)
        check_complete(checkpoint, config, quantization)
        return cls(checkpoint, config, quantization, family, dequantized, allow_rounding)

    def order(self, name: str) -> slice | I64:
        """Return the order of a linear's rows: of q and k of some architectures pairs of rope become neighbours."""
        part = name.rpartition(".")[2]
        if not self.family.pairs_neighbours or part not in ("q_proj", "k_proj"):
            return slice(None)
        config = self.config
        heads = config.num_attention_heads if part == "q_proj" else config.num_key_value_heads
        rows = np.arange(heads * config.head_dim, dtype=np.int64).reshape(heads, 2, config.head_dim // 2)
        return rows.swapaxes(1, 2).ravel()

    def floats(self, name: str, array: F32) -> GgufTensor:
        """Return a tensor of floats: float16 where that is exact, which one dimension never becomes."""
        with np.errstate(over="ignore"):  # what float16 cannot hold stays float32
            half = array.astype(np.float16)
        if self.dequantized or array.ndim == 1 or not np.array_equal(half, array):
            return GgufTensor(name, array.shape, "F32", array)
        return GgufTensor(name, array.shape, "F16", half)

    def integers(self, name: str) -> QuantizedLinear | None:
        """Return a linear's integers in the order of rows that is written; None if it is stored as floats."""
        if not isinstance(self.quantization, QuantizationConfig) or is_float(
            self.checkpoint, self.config, name
        ):
            return None
        linear = read_quantized_linear(self.checkpoint, self.config, name, self.quantization)
        return _said_symmetric(take_rows(linear, self.order(name)))

    def fitted(self, name: str, linear: QuantizedLinear) -> tuple[str, Refitted]:
        """Return the type of a linear's blocks, and the blocks; refuse what rounds unless that is allowed."""
        kind = _kind(linear)
        try:
            done = refit(linear, kind)
        except UnsupportedError as error:
            raise UnsupportedError(f"{name}: {error}") from error
        if not done.is_exact and not self.allow_rounding:
            raise UnsupportedError(
                f"{name}: convert must keep every weight, and {kind} would change some by up to {done.max_error:.3g} "
                f"(of {done.max_abs:.3g}). Allow it with allow_rounding=True, --allow-rounding."
            )
        return kind, done


def _said_symmetric(linear: QuantizedLinear) -> QuantizedLinear:
    """Return a linear whose zero points are all the middle as a symmetric one: not every layout's file says so."""
    spec = linear.spec
    if linear.offset is not None or (linear.zero_point != spec.symmetric_zero_point).any():
        return linear
    return replace(linear, spec=replace(spec, symmetric=True))


def _kind(linear: QuantizedLinear) -> str:
    """Return the type of blocks for a linear: a row of LAYOUTS, which may still refuse it."""
    if linear.spec.bits == 8:
        return "q8_0"
    return "q4_0" if linear.spec.symmetric and linear.offset is None else "q4_1"


def _linear(source: _Source, name: str, target: str) -> GgufTensor:
    """Return a linear's weight."""
    linear = source.integers(name)
    if linear is None:
        weight = read_weight(source.checkpoint, source.config, name, source.quantization)
        return source.floats(target, weight[source.order(name)])
    if source.dequantized:
        return source.floats(target, dequantize_linear(linear))
    kind, done = source.fitted(name, linear)
    if not done.is_exact:
        source.rounded[name] = done.max_error / done.max_abs
    return GgufTensor(target, linear.int_weight.shape, kind, done.tensors["weight"])


def _block(source: _Source, layer: int) -> Iterator[GgufTensor]:
    config, checkpoint = source.config, source.checkpoint
    prefix, ours = block_prefix(config, layer), source.family.names
    for name in block_norm_shapes(config):
        norm = read_norm(checkpoint, config, f"{prefix}{name}")
        yield source.floats(f"blk.{layer}.{ours[name]}.weight", norm)
    for name in block_linear_shapes(config, layer):
        target = f"blk.{layer}.{ours[name]}"
        yield _linear(source, f"{prefix}{name}", f"{target}.weight")
        if f"{prefix}{name}.bias" in checkpoint:
            bias = checkpoint.read(f"{prefix}{name}.bias")[source.order(name)]
            yield source.floats(f"{target}.bias", bias)


def _tensors(source: _Source) -> Iterator[GgufTensor]:
    """Yield every tensor of the file."""
    checkpoint, config = source.checkpoint, source.config
    read = partial(read_table, checkpoint, config)
    yield source.floats("token_embd.weight", read(config.family.embed_tokens, source.quantization))
    if not config.tie_word_embeddings:
        yield source.floats("output.weight", read(config.family.lm_head, source.quantization))
    yield source.floats("output_norm.weight", read_norm(checkpoint, config, config.family.final_norm))
    factors = rope_factors(config)
    if factors is not None:
        yield source.floats("rope_freqs.weight", factors)
    for layer in range(config.num_hidden_layers):
        yield from _block(source, layer)


def _most_common(tensors: list[GgufTensor]) -> str:
    """Return the type of most weights."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.kind] += int(np.prod(tensor.shape, dtype=np.int64))
    return weights.most_common(1)[0][0]


def convert_to_gguf(
    source: str | Path, destination: str | Path, *, allow_rounding: bool = False, dequantized: bool = False
) -> GgufReport:
    """Write a checkpoint as one GGUF file.

    Parameters
    ----------
    source : str or Path
        Folder of a checkpoint, quantized or float, or its name on the hub.
    destination : str or Path
        File to write; it must not exist, and appears when it is complete.
    allow_rounding : bool
        Let weights change where GGUF's blocks cannot hold the grid: m = -z d is rounded to float16. Else an error.
    dequantized : bool
        Write the same weights as float32: what llama.cpp computes from them owes nothing to its 4-bit kernels.

    Returns
    -------
    report : GgufReport

    Raises
    ------
    UnsupportedError
        If llama.cpp has no graph for the model under a name known here, its tokenizer is not byte-level BPE, a linear
        does not fit the blocks, or weights would change.
    FormatError, MissingTensorError, DtypeError
        If the source is damaged.
    OutputError
        If the destination exists or cannot be written; nothing is left behind.
    """
    require_new(Path(destination))
    opened = _Source.open(source, dequantized=dequantized, allow_rounding=allow_rounding)
    tokenizer = ggml_tokenizer(opened.checkpoint.folder, opened.config.vocab_size)
    tensors = list(_tensors(opened))
    metadata = gguf_metadata(opened.config, model_name(opened.checkpoint.folder))
    metadata["general.file_type"] = FILE_TYPES[_most_common(tensors)]
    write_gguf(destination, metadata | tokenizer.metadata, tensors)
    kinds = Counter(tensor.kind for tensor in tensors)
    return GgufReport(dict(kinds), opened.rounded, tokenizer.notes)
