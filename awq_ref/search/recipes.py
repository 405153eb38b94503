"""Recipes: named rows of choices for the search.

    Recipe    the choices
    RECIPES   rtn, gptq, gptq-r, awq, awq+gptq, llm-awq, autoawq, best
    recipe_named

A recipe is data: to add one, add a row. docs/decisions.md gives the reasons for the row `awq`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from awq_ref.checks import require_one_of
from awq_ref.spec import QuantSpec, RangeRule, Rounding


@dataclass(frozen=True)
class Recipe:
    """How a block's channel scales and clips are searched.

    name         : its name
    alphas       : the grid of alphas; (0.0,) scales nothing
    refine       : the step tried on both sides of the grid's best; 0 for none
    candidates   : a key of `candidates.CANDIDATES` or `WEIGHTED_CANDIDATES`
    objective    : "gram"; "module": judge on the site's `judged` module, where that is not the layer; "feedback": on
                   what error feedback will leave, with the importance of a channel in the place of mean |x|
    tied_sites   : "shared": one scale for all channels that a producer's row feeds (values under grouped
                   queries); "skip": such a site is scaled only if producer and consumer have one shape
    fold         : "compensated": consumers get what the stored norm really divides by; "plain": s
    range_rule   : of the quantizer, in the search and after it
    search_scale_dtype : "stored": scales rounded as in the checkpoint while searching; "float32": not
    clip_ratios  : ratios of max |w|; () for no clip search
    clip_skips   : a layer whose name contains one of these is not clipped
    clip_tokens  : 0: clips are judged on the Gram matrix; n: on tokens taken with stride total // n
    clip_guard   : undo clips in rows whose whole loss did not gain
    rounding     : how the scaled weights become integers
    follows_drift : weights are rounded to what the float model makes of its inputs, on the inputs that the layers
                   before, rounded already, leave
    recovers     : with it, the share of the stream's error that the last layer of a module takes back
    """

    name: str
    alphas: tuple[float, ...] = (0.0,)
    refine: float = 0.0
    candidates: str = "awq"
    objective: Literal["gram", "module", "feedback"] = "gram"
    tied_sites: Literal["shared", "skip"] = "shared"
    fold: Literal["compensated", "plain"] = "compensated"
    range_rule: RangeRule = "zero"
    search_scale_dtype: Literal["stored", "float32"] = "stored"
    clip_ratios: tuple[float, ...] = ()
    clip_skips: tuple[str, ...] = ()
    clip_tokens: int = 0
    clip_guard: bool = True
    rounding: Rounding = Rounding()
    follows_drift: bool = False
    recovers: float = 0.0

    @property
    def searches(self) -> bool:
        """False for round-to-nearest: nothing is chosen, no statistics are needed."""
        return self.alphas != (0.0,) or bool(self.clip_ratios) or self.rounding.feeds_back

    @property
    def needs_tokens(self) -> bool:
        """True where statistics do not suffice: something is judged on the tokens themselves, or follows them."""
        return self.objective == "module" or self.clip_tokens > 0 or self.follows_drift

    def storage_spec(self, spec: QuantSpec) -> QuantSpec:
        """Return the spec with which the layers are quantized in the end."""
        return replace(spec, range_rule=self.range_rule)

    def search_spec(self, spec: QuantSpec) -> QuantSpec:
        """Return the spec of the quantizer inside the search."""
        stored = self.storage_spec(spec)
        return stored if self.search_scale_dtype == "stored" else replace(stored, scale_dtype="float32")

    def clips(self, linear: str) -> bool:
        """Tell whether a linear layer's clips are searched."""
        return bool(self.clip_ratios) and not any(skip in linear for skip in self.clip_skips)


_CLIP_RATIOS = tuple(1.0 - i / 20 for i in range(10))  # 1, 0.95, ..., 0.55

_AWQ = Recipe(
    name="awq",
    alphas=tuple(i / 10 for i in range(11)),  # 0 and 1 are candidates; with refine: steps of 1/20
    refine=0.05,
    clip_ratios=_CLIP_RATIOS,  # of all layers: leaving out q and k was measured to be worse
)
_LLM_AWQ = Recipe(
    name="llm-awq",
    alphas=tuple(i / 20 for i in range(20)),  # quirk: alpha = 1 is never tried
    candidates="llm-awq",  # quirk: a dead channel gets 1e-4 and moves the normalization of all
    objective="module",
    tied_sites="skip",  # quirk: v -> o only if the two weights have the same shape
    fold="plain",  # quirk: the rounding of the stored norm is not compensated
    range_rule="minmax",  # quirk: a group of one sign is destroyed
    search_scale_dtype="float32",  # quirk: what is judged is not what is stored
    clip_ratios=_CLIP_RATIOS,
    clip_skips=("q_", "k_", "query", "key", "Wqkv"),  # quirk: substrings ("block_sparse" has "k_")
    clip_tokens=512,  # quirk: 512 to 1023 tokens, by a stride
    clip_guard=False,  # quirk: groups are judged apart, their sum never
)
_GPTQ = Rounding(method="feedback")
_GPTQ_R = Rounding(method="feedback", act_order=True)  # on static groups: no index of groups is stored

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="rtn"),
        Recipe(name="gptq", rounding=_GPTQ),
        Recipe(name="gptq-r", rounding=_GPTQ_R),
        _AWQ,
        replace(_AWQ, name="awq+gptq", rounding=_GPTQ),
        _LLM_AWQ,
        replace(_LLM_AWQ, name="autoawq", candidates="autoawq"),  # quirk: identity is never a candidate
        Recipe(
            name="best",
            alphas=tuple(i / 10 for i in range(11)),
            objective="feedback",  # scales and ranges by the importance that feedback gives a channel
            rounding=replace(_GPTQ_R, searched_ranges=True, descent=1, guard=True),
            follows_drift=True,
            recovers=0.5,
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """Return a recipe by its name; RangeError lists the known ones."""
    require_one_of("recipe_named", "recipe", name, RECIPES)
    return RECIPES[name]
