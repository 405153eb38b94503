"""The layer that is explained: its weight, what enters it, and the search for its channel scales.

Trial          one alpha: its loss, its channel scales
Subject        the layer with all of that
open_subject   float checkpoint and name of a linear -> Subject

The search is that of recipe `awq` before clips: the same objective, candidates, ties and folds, of the one site.
"""

import difflib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from awq_ref.calibration import clip_token_stride
from awq_ref.checkpoint import Checkpoint, model_name
from awq_ref.checks import require_group_size
from awq_ref.dtypes import F32, I64
from awq_ref.errors import RangeError
from awq_ref.model import ModelConfig, block_prefix, model_linear_shapes
from awq_ref.pipeline.block_search import norm_storage
from awq_ref.pipeline.load import open_tokenizer
from awq_ref.pipeline.observation import ObservedBlock, open_float
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.texts import Calibration, calibration_windows
from awq_ref.pipeline.walk import observed_blocks
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import (
    GramObjective,
    ScaleGroup,
    Statistics,
    candidate,
    fold_into_norm,
    query_head_tie,
    recipe_named,
    search_channel_scales,
)
from awq_ref.spec import QuantSpec
from awq_ref.text import Tokenizer

WHO = "explain"
RECIPE = recipe_named("awq")
KEPT = 2  # tokens that are kept whole: the first of the text, and one from its middle, which is shown
NEAR = 3  # names of layers that an error offers


@dataclass(frozen=True)
class Trial:
    """One alpha of the search: loss [AWQ-7] of all layers of the site, channel_scales float32 (in_features,)."""

    alpha: float
    loss: float
    channel_scales: F32


@dataclass(frozen=True)
class Subject:
    """A layer and what is known of it.

    model, name : of the checkpoint and of the linear in it
    weight      : float32 (out_features, in_features)
    statistics  : of the inputs
    group       : the row of the plan: which layers share the scales, what absorbs them
    trials      : in the order of alpha
    chosen      : index of the one with the least loss
    token       : float32 (in_features,), what one token of the calibration makes of the input
    piece       : that token's text, None where it is not known
    calibration : the fingerprint of the tokens
    """

    model: str
    name: str
    weight: F32
    statistics: Statistics
    group: ScaleGroup
    spec: QuantSpec
    trials: tuple[Trial, ...]
    chosen: int
    token: F32
    piece: str | None
    calibration: dict[str, Any]


def _place(config: ModelConfig, name: str) -> tuple[int, str]:
    """Return layer and short name of a linear; RangeError names the nearest if there is none of that name."""
    names = list(model_linear_shapes(config))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=NEAR) or names[:NEAR]
        raise RangeError(
            f"{WHO}: the layer must be a linear of the model's blocks; got {name!r}. Nearest: {', '.join(near)}."
        )
    prefixes = [(layer, block_prefix(config, layer)) for layer in range(config.num_hidden_layers)]
    return next((layer, name[len(start) :]) for layer, start in prefixes if name.startswith(start))


def _observed(checkpoint: Checkpoint, config: ModelConfig, windows: I64, layer: int) -> ObservedBlock:
    """Run the float model up to a layer; return that block with its statistics and some tokens."""
    recipe = replace(RECIPE, clip_tokens=KEPT)
    for found in observed_blocks(checkpoint, config, windows, recipe=recipe):
        if found.layer == layer:
            return found
    raise AssertionError("every layer is observed")


def _search(
    found: ObservedBlock, group: ScaleGroup, config: ModelConfig, spec: QuantSpec, norm_dtype: str
) -> tuple[tuple[Trial, ...], int]:
    """Search one site and keep the scales of every alpha."""
    weights, statistics = found.weights(), found.observations.statistics[group.site]
    quantizer = partial(pseudo_quantize, spec=RECIPE.search_spec(spec))
    objective = GramObjective([weights[name] for name in group.consumers], statistics, quantizer)
    asked: list[float] = []
    scales: dict[float, F32] = {}

    def tried(act_mean_abs: F32, alpha: float) -> F32:
        asked.append(alpha)
        return candidate(act_mean_abs, alpha)

    def loss(channel_scales: F32) -> float:
        scales.setdefault(asked[-1], channel_scales)
        return objective(channel_scales)

    tie = query_head_tie(
        n_heads=config.num_attention_heads, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim
    )
    storage = norm_storage(config, norm_dtype)
    norm = found.block.norms.get(group.producer)
    search = search_channel_scales(
        loss,
        statistics.act_mean_abs,
        alphas=(0.0,) if group.fixed else RECIPE.alphas,
        refine=0.0 if group.fixed else RECIPE.refine,
        candidate=tried,
        tie=tie if group.tied else None,
        realize=None if norm is None else lambda s: fold_into_norm(norm, s, storage_dtype=storage)[1],
    )
    trials = zip(search.alphas, search.losses, strict=True)
    return tuple(Trial(a, value, scales[a]) for a, value in trials), search.alphas.index(search.alpha)


def _piece(tokenizer: Tokenizer | None, windows: I64, group: ScaleGroup) -> str | None:
    """Return the text of the token that is shown."""
    if tokenizer is None or group.routed:  # which tokens an expert got is not kept
        return None
    stride = clip_token_stride(windows.size, KEPT)
    last = (windows.size - 1) // stride * stride
    return tokenizer.decode(windows.ravel()[last : last + 1])


def open_subject(
    source: str | Path,
    layer: str,
    *,
    group_size: int = 32,
    calibration: Calibration = None,
    samples: int = 8,
    seq_len: int = 512,
) -> Subject:
    """Calibrate a float model up to one layer and search that layer's channel scales.

    Parameters
    ----------
    source : str or Path
        Float checkpoint folder, or its name on the hub.
    layer : str
        The whole name of a linear of a block, e.g. model.layers.0.mlp.down_proj.
    group_size : int
        Weights that share a scale; -1: a row.
    calibration, samples, seq_len
        As `quantize_model`.

    Returns
    -------
    subject : Subject
        At 4 bits, asymmetric.

    Raises
    ------
    RangeError
        If there is no such linear (the nearest names are given), or no token was sent to the expert it belongs to.
    UnsupportedError
        If the checkpoint is quantized already, or its family has no plan.
    ShapeError
        If group_size does not divide the layer's inputs.
    CorpusError, FormatError, HubError, MissingTensorError
        As `quantize_model`.
    """
    checkpoint, config = open_float(source)
    index, name = _place(config, layer)
    require_group_size(WHO, model_linear_shapes(config)[layer][1], group_size, layer)
    tokenizer = open_tokenizer(checkpoint.folder, config)
    windows, fingerprint = calibration_windows(
        tokenizer,
        calibration,
        samples=samples,
        seq_len=min(seq_len, config.max_position_embeddings),
        vocab_size=config.vocab_size,
    )
    (group,) = (row for row in layer_plan(config, index) if name in row.consumers)
    found = _observed(checkpoint, config, windows, index)
    if group.site not in found.observations.statistics:
        raise RangeError(
            f"{WHO}: a token must reach {layer}; none was sent to its expert. Take more --samples."
        )
    spec = RECIPE.storage_spec(QuantSpec(bits=4, group_size=group_size))
    norm_dtype = checkpoint.info(
        f"{block_prefix(config, index)}{next(iter(config.family.norms))}.weight"
    ).dtype
    trials, chosen = _search(found, group, config, spec, norm_dtype)
    return Subject(
        model=model_name(checkpoint.folder),
        name=layer,
        weight=found.weights()[name],
        statistics=found.observations.statistics[group.site],
        group=group,
        spec=spec,
        trials=trials,
        chosen=chosen,
        token=found.observations.tokens[group.site][-1],
        piece=_piece(tokenizer, windows, group),
        calibration=fingerprint,
    )
