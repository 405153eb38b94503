"""A float model and a quantized one, side by side: what happened to each linear.

    compare_models   two folders and calibration text -> ErrorReport

One block of the float model, with its statistics, is in memory at a time, and one linear of the quantized.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from awq_ref.checkpoint import RECORD, Checkpoint, QuantizationConfig, model_name
from awq_ref.dtypes import F32, AnyFloat
from awq_ref.errors import ShapeError, UnsupportedError
from awq_ref.model import ModelConfig, block_prefix, model_linear_shapes, stored_place
from awq_ref.pipeline.load import open_tokenizer
from awq_ref.pipeline.observation import ObservedBlock, located, open_float
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.reading import open_model
from awq_ref.pipeline.stored import (
    check_complete,
    is_float,
    open_quantization,
    read_norm,
    read_quantized_linear,
    read_weight,
)
from awq_ref.pipeline.stored_scales import ScaleSource, require_same_run, stored_folds
from awq_ref.pipeline.texts import Calibration, calibration_windows
from awq_ref.pipeline.walk import observed_blocks
from awq_ref.quantize import choose_grid, dequantize_linear, pseudo_quantize
from awq_ref.report.error_tables import ErrorReport, LinearRow
from awq_ref.report.errors import LinearErrors, linear_errors
from awq_ref.report.progress import progress
from awq_ref.report.quantization import QuantizationReport
from awq_ref.search import (
    RECIPES,
    LinearFold,
    Statistics,
    query_head_tie,
)
from awq_ref.search.unfolding import unfold
from awq_ref.spec import QuantizedLinear

WHO = "inspect --errors"


@dataclass(frozen=True)
class _Pair:
    """The two checkpoints."""

    original: Checkpoint
    quantized: Checkpoint
    config: ModelConfig
    quantization: QuantizationConfig
    source: ScaleSource

    def is_quantized(self, name: str) -> bool:
        return not is_float(self.quantized, self.config, name)

    def stored(self, name: str) -> F32:
        """Return a linear of the quantized model as float32."""
        if not self.is_quantized(name):
            return read_weight(self.quantized, self.config, name)
        return dequantize_linear(self.integers(name))

    def integers(self, name: str) -> QuantizedLinear:
        """Return a linear of the quantized model as it is stored."""
        return read_quantized_linear(self.quantized, self.config, name, self.quantization)


def _require_roles(original: Checkpoint, quantized: Checkpoint) -> None:
    """Raise UnsupportedError unless the first is float and the second quantized."""
    kinds = [checkpoint.quantization_config is not None for checkpoint in (original, quantized)]
    if kinds == [False, True]:
        return
    said = " and ".join("quantized" if kind else "float" for kind in kinds)
    hint = "Swap them" if kinds == [True, False] else "Give the original first, what was made from it second"
    raise UnsupportedError(
        f"{WHO}: the first model must be float and the second quantized; got {said} "
        f"({original.folder}, {quantized.folder}). {hint}."
    )


def _require_same_shape(config: ModelConfig, other: ModelConfig) -> None:
    """Raise ShapeError, naming the first difference, unless all linears of the blocks have the same shapes."""
    ours, theirs = model_linear_shapes(config), model_linear_shapes(other)
    facts: dict[str, tuple[object, object]] = {
        "num_hidden_layers": (config.num_hidden_layers, other.num_hidden_layers)
    }
    facts |= {name: (shape, theirs.get(name)) for name, shape in ours.items()}
    for name, (first, second) in facts.items():
        if first != second:
            raise ShapeError(
                f"{WHO}: both models must have the same shape; got {name} {first} in the first, {second} in the "
                "second. Was the second made from the first?"
            )


def _open_pair(source: str | Path, quantized: str | Path, report: QuantizationReport | None) -> _Pair:
    """Open both checkpoints and check, from their headers alone, that they belong together."""
    other, original = Checkpoint.open(quantized), Checkpoint.open(source)
    _require_roles(original, other)
    original, config = open_float(original.folder)
    other, other_config = open_model(other.folder)
    quantization = open_quantization(other)
    if not isinstance(quantization, QuantizationConfig):
        raise UnsupportedError(
            f"{WHO}: the second model must hold integers; {other.folder} holds float8 numbers."
        )
    _require_same_shape(config, other_config)
    check_complete(other, other_config, quantization)
    if report is not None:
        require_same_run(report, quantization.spec, config.num_hidden_layers)
    recipe = RECIPES.get((other.config.get(RECORD) or {}).get("recipe", ""))
    scaled = recipe is None or recipe.searches
    return _Pair(original, other, config, quantization, ScaleSource(report, scaled))


def _steps(linear: QuantizedLinear, rounded: AnyFloat) -> tuple[AnyFloat, AnyFloat]:
    """Return the steps of a stored linear and of plain rounding: by group, or by input if groups are not neighbours."""
    delta: AnyFloat = np.abs(linear.scales)  # MLX has steps of both signs
    if linear.input_order is None and delta.shape == rounded.shape:
        return delta, rounded
    by_input = np.empty(linear.int_weight.shape, dtype=delta.dtype)
    order = slice(None) if linear.input_order is None else linear.input_order
    by_input[:, order] = np.repeat(delta, linear.group_size, axis=1)
    return by_input, np.repeat(rounded, linear.in_features // rounded.shape[1], axis=1)


def _errors(pair: _Pair, weight: F32, name: str, statistics: Statistics, fold: LinearFold) -> LinearErrors:
    """Return the errors of one quantized linear; name is its full name."""
    spec = pair.quantization.spec_of(stored_place(pair.config, name)[0])
    with located(name):
        delta, rounded = _steps(pair.integers(name), choose_grid(weight, spec=spec)[0])
        return linear_errors(
            weight,
            unfold(pair.stored(name), fold),
            pseudo_quantize(weight, spec=spec),
            statistics,
            delta=delta,
            delta_rounded=rounded,
            fold=fold,
        )


def _compared_block(pair: _Pair, found: ObservedBlock) -> Iterator[LinearRow]:
    """Yield the rows of one block."""
    config, prefix = pair.config, block_prefix(pair.config, found.layer)
    weights, plan = found.weights(), layer_plan(config, found.layer)
    norms = {name: read_norm(pair.quantized, config, f"{prefix}{name}") for name in config.family.norms}
    tie = query_head_tie(
        n_heads=config.num_attention_heads, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim
    )
    with located(prefix.rstrip(".")):
        folds = stored_folds(
            plan,
            weights,
            (found.block.norms, norms),
            lambda name: pair.stored(prefix + name),
            ties={group.site: tie for group in plan if group.tied},
            source=pair.source,
            layer=found.layer,
        )
    sites = {name: group.site for group in plan for name in group.readers}
    for name, weight in weights.items():
        statistics = found.observations.statistics.get(sites[name])
        if statistics is not None and pair.is_quantized(prefix + name):
            errors = _errors(pair, weight, prefix + name, statistics, folds.folds[name])
            known = (folds.columns_from.get(name, "-"), folds.rows_from.get(name, "-"))
            yield LinearRow(found.layer, name, errors, *known)


def _seen_before(pair: _Pair, calibration: dict[str, Any]) -> bool:
    record = (pair.quantized.config.get(RECORD) or {}).get("calibration") or {}
    return bool(record) and record.get("sha256") == calibration["sha256"]


def _notes(pair: _Pair, calibration: dict[str, Any], rows: tuple[LinearRow, ...]) -> tuple[str, ...]:
    """Return what a reader must know about the numbers."""
    tokens = calibration["windows"] * calibration["seq_len"]
    notes = [
        f"Measured on {tokens:,} tokens ({calibration['source']}), with the float model's inputs: errors of earlier "
        "layers are not in them."
    ]
    if _seen_before(pair, calibration):
        notes.append(
            "The quantization was fitted to the same tokens: on other text the errors are a little larger."
        )
    linears = model_linear_shapes(pair.config)
    widest = max(into for _, into in linears.values())
    if tokens < widest:
        notes.append(
            f"{tokens} tokens are fewer than the {widest} inputs of the widest linear: in the directions that none of "
            "them shows, an error counts as 0. Take more --samples."
        )
    if any("estimate" in (row.columns_from, row.rows_from) for row in rows):
        notes.append(
            "The scales between v_proj and o_proj, and up_proj and down_proj, are least-squares estimates: a "
            "checkpoint holds only their rounded product. --report FILE, saved by quantize --report, has them exactly."
        )
    if any(row.errors.weight_error >= 1.0 for row in rows):
        notes.append(
            "Some weights are as far from the original's as zeros are: was QUANTIZED made from MODEL?"
        )
    n_float = sum(not pair.is_quantized(name) for name in linears)
    if n_float:
        notes.append(f"{n_float} of {len(linears)} linears are stored as float and not listed.")
    if n_missed := len(linears) - n_float - len(rows):
        notes.append(
            f"{n_missed} linears of experts to which no token was sent are not listed. Take more --samples."
        )
    return tuple(notes)


def compare_models(
    source: str | Path,
    quantized: str | Path,
    *,
    report: QuantizationReport | str | Path | None = None,
    calibration: Calibration = None,
    samples: int = 128,
    seq_len: int = 512,
    shown: bool | None = None,
) -> ErrorReport:
    """Say what quantization did to every linear of a model.

    Parameters
    ----------
    source : str or Path
        Folder of the float model, or its name on the hub.
    quantized : str or Path
        Folder of what was made from it, or its name on the hub.
    report : QuantizationReport or the file of one, optional
        Of the run that made it: then all channel scales are known exactly.
    calibration : files (Path), texts (str), ids (windows, seq), or None
        What the errors are measured on. None: the calibration part of the standard library's source.
    samples, seq_len : int
        How many windows, of how many tokens.
    shown : bool, optional
        Draw a progress bar; by default on a terminal only.

    Returns
    -------
    report : ErrorReport

    Raises
    ------
    UnsupportedError
        If the first model is not float or the second not quantized.
    ShapeError
        If the two do not have the same shape.
    RangeError
        If their norms cannot belong together, or a weight or an activation is NaN or infinite.
    FormatError
        If the report is that of another model.
    CorpusError, MissingTensorError, DtypeError
        As `calibrate` and `load_model`.

    Notes
    -----
    Memory: one float block with its Gram matrices, the hidden states of all windows, and about four arrays as large
    as its largest linear.
    """
    if isinstance(report, str | Path):
        report = QuantizationReport.load(report)
    pair = _open_pair(source, quantized, report)
    windows, fingerprint = calibration_windows(
        open_tokenizer(pair.original.folder, pair.config),
        calibration,
        samples=samples,
        seq_len=min(seq_len, pair.config.max_position_embeddings),
        vocab_size=pair.config.vocab_size,
    )
    blocks = observed_blocks(pair.original, pair.config, windows)
    rows: list[LinearRow] = []
    n_layers = pair.config.num_hidden_layers
    for _ in progress(range(n_layers), total=n_layers, label="errors", unit="block", shown=shown):
        rows += _compared_block(pair, next(blocks))
    names = [model_name(checkpoint.folder) for checkpoint in (pair.original, pair.quantized)]
    notes = _notes(pair, fingerprint, tuple(rows))
    return ErrorReport(names[0], names[1], pair.quantization.spec, fingerprint, tuple(rows), notes)
