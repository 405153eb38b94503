"""The bench: a float model and all that experiments do with it, so that each is a few lines.

    Bench        calibrate, quantize, measure
    open_bench   options -> Bench
    Calibrated   calibration windows and the statistics of the float model on them

A quantized model goes through the public way: `quantize_model` writes a folder, `load_model` reads it back, so what is
measured is what ships. Statistics are observed once and serve every recipe and bit width.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from awq_ref.checkpoint import demo_model_path, model_name
from awq_ref.dtypes import F32, I64
from awq_ref.errors import CorpusError
from awq_ref.paper.capacity import require_memory
from awq_ref.paper.experiment import AS_IT_IS, Options, Row, Setup
from awq_ref.paper.shapes import require_dense
from awq_ref.pipeline import Model, ModelStatistics, calibrate, evaluation_tokens, load_model, quantize_model
from awq_ref.pipeline.fit import require_group_sizes
from awq_ref.pipeline.observation import open_float
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.pipeline.texts import encode_texts
from awq_ref.report.divergence import kl_divergence
from awq_ref.report.perplexity import LanguageModel, perplexity
from awq_ref.report.quantization import QuantizationReport
from awq_ref.search import Recipe, recipe_named
from awq_ref.text.corpus import stdlib_texts


@dataclass(frozen=True)
class Calibrated:
    """Calibration windows int64 (n, seq_len), and what the float model's inputs look like on them."""

    windows: I64
    statistics: ModelStatistics


@dataclass
class Remembered:
    """A model that keeps the hidden states of ids it has seen: two measures, or many comparisons, are one pass."""

    model: LanguageModel
    known: dict[bytes, F32] = field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        return self.model.vocab_size

    def hidden(self, token_ids: I64) -> F32:
        """Return the final hidden states of ids (batch, seq)."""
        key = repr(token_ids.shape).encode() + token_ids.tobytes()
        if key not in self.known:
            self.known[key] = self.model.hidden(token_ids)
        return self.known[key]

    def head(self, hidden: F32) -> F32:
        """Map hidden states to logits."""
        return self.model.head(hidden)


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of a folder's safetensors files, one after the other in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def ids_sha256(token_ids: I64) -> str:
    """Return the SHA-256 of token ids as little-endian int64: that of `Calibration` fingerprints."""
    return hashlib.sha256(np.ascontiguousarray(token_ids, dtype="<i8").tobytes()).hexdigest()


class Bench:
    """A float model, its evaluation text, and what is done with them. Make one with `open_bench`.

    source    : its folder; `name` is what the setup calls it
    model     : the float model
    seq_len   : tokens of a window: the option, or the model's context where that is shorter
    token_ids : int64 (n_tokens,), the evaluation text
    """

    def __init__(
        self, source: Path, model: Model, options: Options, evaluation: tuple[I64, str], *, name: str
    ) -> None:
        self.source, self.model, self.name = source, model, name
        self.seq_len = min(options.seq_len, model.config.max_position_embeddings)
        self.token_ids, self._evaluation = evaluation
        self._samples = options.samples
        self._calibrations: dict[str, Any] = {}
        self._reference = Remembered(model)

    # ---- calibration ----

    @cached_property
    def calibration_ids(self) -> I64:
        """The calibration part of the standard library as ids, int64 (n_tokens,)."""
        return encode_texts(self.model.require_tokenizer(), stdlib_texts("calibration"))

    def windows(self, seed: int, *, samples: int | None = None, token_ids: I64 | None = None) -> I64:
        """Draw calibration windows int64 (n, seq_len) in random order, so that the first k are a draw of k.

        Raises CorpusError if the text is shorter than one window.
        """
        ids = self.calibration_ids if token_ids is None else token_ids
        blocks = len(ids) // self.seq_len
        if blocks == 0:
            raise CorpusError(
                f"awq-ref paper: the calibration text must have at least {self.seq_len} tokens; it has {len(ids)}."
            )
        chosen = np.random.default_rng(seed).permutation(blocks)[: samples or self._samples]
        return ids[: blocks * self.seq_len].reshape(blocks, self.seq_len)[chosen]

    def calibrate(self, windows: I64, *, name: str = "calibration") -> Calibrated:
        """Observe the float model on windows; the setup remembers their fingerprint under this name."""
        statistics = calibrate(self.source, calibration=windows, shown=False)
        self.remember(name, windows)
        return Calibrated(windows, statistics)

    def remember(self, name: str, windows: I64) -> None:
        """Put the fingerprint of calibration windows into the setup."""
        self._calibrations[name] = {
            "windows": len(windows),
            "seq_len": int(windows.shape[1]),
            "sha256": ids_sha256(windows),
        }

    # ---- quantized models ----

    def quantize(
        self, recipe: str | Recipe, calibrated: Calibrated, *, bits: int, group_size: int
    ) -> tuple[Model, QuantizationReport]:
        """Quantize the float model, write it, read it back as float32; return it and the report."""
        row = recipe if isinstance(recipe, Recipe) else recipe_named(recipe)
        given: dict[str, Any] = {"statistics": calibrated.statistics}
        if row.needs_tokens:  # statistics alone do not say what it judges on
            given = {"calibration": calibrated.windows}
        with TemporaryDirectory() as folder:
            target = Path(folder) / "model"
            report = quantize_model(
                self.source, target, recipe=row, bits=bits, group_size=group_size, shown=False, **given
            )
            return load_model(target, residency="dense"), report

    # ---- measures ----

    def perplexity(self, model: LanguageModel, token_ids: I64 | None = None) -> float:
        """Return the perplexity of a model on the evaluation text, or on other ids."""
        ids = self.token_ids if token_ids is None else token_ids
        return perplexity(model, ids, seq_len=self.seq_len, shown=False).perplexity

    def kl(self, model: LanguageModel) -> float:
        """Return the mean divergence of a model's predictions from the float model's, in nats per token."""
        return kl_divergence(self._reference, model, self.token_ids, seq_len=self.seq_len, shown=False)

    def measures(self, model: Model) -> Row:
        """Return both, as a part of a row; the text goes through the model once."""
        once = Remembered(model)
        return {"perplexity": self.perplexity(once), "kl": self.kl(once)}

    def setup(self, **more: Any) -> Setup:
        """Return what is needed to measure the same again: model, calibration, evaluation text."""
        config = self.model.config
        model = {
            "name": self.name,
            "architecture": config.family.architecture,
            "sha256": weights_sha256(self.source),
        }
        evaluation = {
            "source": self._evaluation,
            "tokens": len(self.token_ids),
            "seq_len": self.seq_len,
            "sha256": ids_sha256(self.token_ids),
        }
        return {"model": model, "calibration": self._calibrations, "evaluation": evaluation} | more


@contextmanager
def _float_folder(options: Options) -> Iterator[tuple[Path, str]]:
    """Yield the folder of the float model, and its name; one with outliers is made for as long as it is used."""
    source = demo_model_path() if options.model is None else options.model
    name = model_name(source)
    if options.outliers == AS_IT_IS:
        yield source, name
        return
    with TemporaryDirectory() as scratch:
        grown = Path(scratch) / "model"
        grow_outliers(source, grown, factor=options.outliers)
        yield grown, f"{name}, outliers x{options.outliers:g}"


def _require_fit(options: Options) -> None:
    """Raise unless the model is a float one, its linears fit the groups, and memory suffices: from headers alone."""
    _, config = open_float(demo_model_path() if options.model is None else options.model)
    require_dense(config)
    for group_size in options.group_size:
        require_group_sizes(config, group_size)
    seq_len = min(options.seq_len, config.max_position_embeddings)
    require_memory(config, windows=options.samples, tokens=options.tokens, seq_len=seq_len)


@contextmanager
def open_bench(options: Options) -> Iterator[Bench]:
    """Open the model that the options name, and read its evaluation text: `with open_bench(options) as bench`.

    Raises
    ------
    RangeError
        If the model needs more memory than is free.
    ShapeError
        If a group size does not divide in_features of a linear.
    FormatError, MissingTensorError, UnsupportedError
        If the folder is not a float checkpoint of a known architecture.
    """
    _require_fit(options)
    with _float_folder(options) as (source, name):
        model = load_model(source, residency="dense")
        token_ids, text, _ = evaluation_tokens(model.require_tokenizer(), None, limit=options.tokens)
        yield Bench(source, model, options, (token_ids, text), name=name)
