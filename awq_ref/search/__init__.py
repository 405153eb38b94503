"""Search: statistics and float weights -> channel scales and clips.

plan             which layers share scales, what absorbs them
recipes          named rows of choices
candidates       the scales of one alpha
channel_scales   the alpha search
clipping         the clip search
objective        how a choice is judged
folding          how it is put into the weights
unfolding        what a quantized checkpoint's weights are in the float model's terms
block            all of it, for one block
result           what comes out
"""

from awq_ref.search.block import search_block
from awq_ref.search.candidates import candidate, candidate_llm_awq
from awq_ref.search.channel_scales import ScaleSearch, pool, search_channel_scales
from awq_ref.search.clipping import (
    ClipSearch,
    diagonal_blocks,
    keep_better_rows,
    scale_blocks,
    search_clip,
    token_blocks,
)
from awq_ref.search.folding import (
    LinearFold,
    fold_into_linear,
    fold_into_norm,
    round_to,
    scale_consumer,
    scaled_gram,
)
from awq_ref.search.objective import (
    GramObjective,
    ModuleObjective,
    Statistics,
    direct_loss,
    gram_loss,
    gram_row_losses,
    row_losses,
)
from awq_ref.search.plan import (
    EXPERT_PLANS,
    PLANS,
    ScaleGroup,
    plan_for,
    routed_sites,
    site_inputs,
)
from awq_ref.search.recipes import RECIPES, Recipe, recipe_named
from awq_ref.search.result import BlockResult, SiteReport
from awq_ref.search.ties import query_head_tie

__all__ = [
    "EXPERT_PLANS",
    "PLANS",
    "RECIPES",
    "BlockResult",
    "ClipSearch",
    "GramObjective",
    "LinearFold",
    "ModuleObjective",
    "Recipe",
    "ScaleGroup",
    "ScaleSearch",
    "SiteReport",
    "Statistics",
    "candidate",
    "candidate_llm_awq",
    "diagonal_blocks",
    "direct_loss",
    "fold_into_linear",
    "fold_into_norm",
    "gram_loss",
    "gram_row_losses",
    "keep_better_rows",
    "plan_for",
    "pool",
    "query_head_tie",
    "recipe_named",
    "round_to",
    "row_losses",
    "scale_blocks",
    "scale_consumer",
    "scaled_gram",
    "search_block",
    "search_channel_scales",
    "search_clip",
    "routed_sites",
    "site_inputs",
    "token_blocks",
]
