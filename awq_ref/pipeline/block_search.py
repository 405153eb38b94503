"""The search over one observed block of a model: what `search_block` has to know, from the model's configuration.

norm_storage    the form in which a norm's weight is stored
search_sites    all sites of a block
"""

import warnings

from awq_ref.errors import CalibrationWarning
from awq_ref.model import ModelConfig
from awq_ref.pipeline.observation import ObservedBlock
from awq_ref.pipeline.plans import layer_plan
from awq_ref.pipeline.rounding import site_importance
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import BlockResult, Recipe, ScaleGroup, query_head_tie, search_block
from awq_ref.search.folding import StorageDtype
from awq_ref.spec import QuantSpec

# By the name of the dtype in a safetensors header and the family's norm_offset; float32 for any other dtype.
NORM_STORAGE: dict[tuple[str, float], StorageDtype] = {
    ("F32", 0.0): "float32",
    ("F16", 0.0): "float16",
    ("BF16", 0.0): "bfloat16",
    ("F32", 1.0): "1+float32",
    ("F16", 1.0): "1+float16",
    ("BF16", 1.0): "1+bfloat16",
}


def norm_storage(config: ModelConfig, stored_dtype: str) -> StorageDtype:
    """Return the form in which norms are stored, for `fold_into_norm`."""
    offset = config.family.norm_offset
    return NORM_STORAGE.get((stored_dtype, offset), NORM_STORAGE["F32", offset])


def _reached(found: ObservedBlock, plan: tuple[ScaleGroup, ...]) -> tuple[ScaleGroup, ...]:
    """Return the rows whose sites tokens have reached; warn if experts were left out."""
    known = found.observations.statistics
    missed = [group.consumers[0] for group in plan if group.routed and group.site not in known]
    if missed:
        warnings.warn(
            f"layer {found.layer}: no token of the calibration was sent to the experts of {', '.join(missed)}: these "
            "layers are rounded to nearest, without channel scales and clips. Calibrate on more text.",
            CalibrationWarning,
            stacklevel=2,
        )
    return tuple(group for group in plan if group.consumers[0] not in missed)


def search_sites(
    found: ObservedBlock, config: ModelConfig, *, recipe: Recipe, spec: QuantSpec, norm_dtype: str
) -> BlockResult:
    """Search one block.

    Parameters
    ----------
    found : ObservedBlock
    config : ModelConfig
    recipe : Recipe
    spec : QuantSpec
    norm_dtype : str
        In which norms are stored, by its name in a safetensors header.

    Returns
    -------
    result : BlockResult
        Norms as the decoder has them (`Block.norms`); reports in the order of the plan.

    Notes
    -----
    An expert's site that no token reached has scales of 1, no clips and no report.
    """
    tie = query_head_tie(
        n_heads=config.num_attention_heads, n_kv_heads=config.num_key_value_heads, head_dim=config.head_dim
    )
    return search_block(
        found.weights(),
        found.block.norms,
        found.observations.statistics,
        plan=_reached(found, layer_plan(config, found.layer)) if recipe.searches else (),
        recipe=recipe,
        spec=spec,
        pseudo_quantize=pseudo_quantize,
        norm_dtype=norm_storage(config, norm_dtype),
        ties={"self_attn.o": tie},
        modules=found.modules,
        clip_tokens=found.observations.tokens,
        importance=site_importance(found.observations.statistics, recipe),
    )
