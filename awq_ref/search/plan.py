"""The plan: which linear layers share channel scales, and what absorbs the inverse.

    ScaleGroup       one row of a plan
    PLANS            model_type -> rows
    EXPERT_PLANS     the same for layers with experts
    plan_for         the rows of a family
    site_inputs      for every site a linear layer to watch during calibration

To add a family: one row set in PLANS. Layers have Hugging Face's names below `model.layers.N.`.
Source: Lin et al. 2023, arXiv:2306.00978, section 3.2; llm-awq, awq/quantize/auto_scale.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from awq_ref.errors import UnsupportedError


@dataclass(frozen=True)
class ScaleGroup:
    """One input site: its consumers are multiplied by s, its producer is divided by s.

    site          : the name under which statistics and reports go
    producer      : the norm or linear layer whose output is the site (through an elementwise product at most)
    producer_kind : "norm" or "linear"; "none": nothing can absorb a scale (the stream itself, after a block without a
                    norm before its modules), so the site is only observed, clipped and rounded
    consumers     : the linear layers that read the site
    judged        : the module on whose output the objective "module" judges ("both": attention and MLP together); a
                    consumer's own name when it is the linear layer itself, where "module" and "gram" are the same
                    number
    followers     : linear layers that read the site, are scaled with it and stay in float: the router of a mixture of
                    experts. They have no part in what is judged
    routed        : an expert's: only tokens that are sent to it reach the site, perhaps none
    tied          : the producer's rows are repeated to make the site (values under grouped queries), so that
                    one scale serves several channels; search_block takes the index as `ties[site]`
    """

    site: str
    producer: str
    producer_kind: Literal["norm", "linear", "none"]
    consumers: tuple[str, ...]
    judged: str
    tied: bool = False
    followers: tuple[str, ...] = ()
    routed: bool = False

    @property
    def readers(self) -> tuple[str, ...]:
        """All linears whose columns are multiplied by s."""
        return self.consumers + self.followers

    @property
    def judged_itself(self) -> bool:
        return self.judged in self.consumers

    @property
    def fixed(self) -> bool:
        """True where nothing can be scaled."""
        return self.producer_kind == "none"


LLAMA = (
    ScaleGroup(
        site="self_attn.qkv",
        producer="input_layernorm",
        producer_kind="norm",
        consumers=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        judged="self_attn",
    ),
    ScaleGroup(
        site="self_attn.o",
        producer="self_attn.v_proj",
        producer_kind="linear",
        consumers=("self_attn.o_proj",),
        judged="self_attn.o_proj",
        tied=True,
    ),
    ScaleGroup(
        site="mlp.gate_up",
        producer="post_attention_layernorm",
        producer_kind="norm",
        consumers=("mlp.gate_proj", "mlp.up_proj"),
        judged="mlp",
    ),
    ScaleGroup(
        site="mlp.down",
        producer="mlp.up_proj",
        producer_kind="linear",
        consumers=("mlp.down_proj",),
        judged="mlp.down_proj",
    ),
)


def _replaced(plan: tuple[ScaleGroup, ...], **changes: ScaleGroup) -> tuple[ScaleGroup, ...]:
    """Return a plan with some of its rows exchanged, by the last word of their site."""
    return tuple(changes.get(group.site.rpartition(".")[2], group) for group in plan)


def _unscaled(group: ScaleGroup) -> ScaleGroup:
    """Return the row of a site that nothing can scale; it is judged on a layer of its own."""
    return replace(group, producer="", producer_kind="none", judged=group.consumers[0])


GEMMA2 = _replaced(LLAMA, gate_up=replace(LLAMA[2], producer="pre_feedforward_layernorm"))
# Norms stand after the modules only: attention and MLP read the stream, which other layers read too.
OLMO2 = _replaced(LLAMA, qkv=_unscaled(LLAMA[0]), gate_up=_unscaled(LLAMA[2]))

# Between the two linears of an MLP without a gate stands the activation, through which no scale passes.
STARCODER2 = _replaced(
    LLAMA,
    gate_up=replace(LLAMA[2], site="mlp.up", consumers=("mlp.c_fc",), judged="mlp"),
    down=_unscaled(replace(LLAMA[3], consumers=("mlp.c_proj",))),
)
# Attention and MLP read one norm's output: five linears, one site.
COHERE = (
    replace(
        LLAMA[0],
        site="qkv_gate_up",
        consumers=(*LLAMA[0].consumers, *LLAMA[2].consumers),
        judged="both",
    ),
    LLAMA[1],
    LLAMA[3],
)


def _without_gate(before_attention: str, before_mlp: str) -> tuple[ScaleGroup, ...]:
    """Return the plan of a block with these two norms and an MLP without a gate."""
    return _replaced(
        LLAMA,
        qkv=replace(LLAMA[0], producer=before_attention),
        gate_up=replace(LLAMA[2], site="mlp.up", producer=before_mlp, consumers=("mlp.up_proj",)),
        down=_unscaled(LLAMA[3]),
    )


WITHOUT_GATE = _without_gate("input_layernorm", "post_attention_layernorm")
# Attention and MLP read one norm's output, and the MLP has no gate: four linears, one site.
PHI = (
    replace(LLAMA[0], site="qkv_up", consumers=(*LLAMA[0].consumers, "mlp.up_proj"), judged="both"),
    LLAMA[1],
    _unscaled(LLAMA[3]),
)
MPT = _without_gate("norm_1", "norm_2")
# A ReLU lets a positive factor through: max(u / s, 0) = max(u, 0) / s.
OPT = _replaced(_without_gate("self_attn_layer_norm", "final_layer_norm"), down=LLAMA[3])
# Norms of the stream: what attention and MLP read is what they are added to.
OPT_POST_NORM = _replaced(OPT, qkv=_unscaled(OPT[0]), up=_unscaled(OPT[2]))

PLANS: dict[str, tuple[ScaleGroup, ...]] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "olmo2": OLMO2,
    "granite": LLAMA,
    "gemma": LLAMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2,
    "phi3": LLAMA,
    "glm4": LLAMA,
    "stablelm": LLAMA,
    "starcoder2": STARCODER2,
    "smollm3": LLAMA,
    "cohere": COHERE,
    "gpt_neox": WITHOUT_GATE,
    "gpt_neox_sequential": WITHOUT_GATE,
    "phi": PHI,
    "opt": OPT,
    "opt_post_norm": OPT_POST_NORM,
    "gpt2": _without_gate("ln_1", "ln_2"),
    "falcon": PHI,
    "falcon_two_norms": _without_gate("ln_attn", "ln_mlp"),
    "falcon_sequential": WITHOUT_GATE,
    "bloom": WITHOUT_GATE,
    "mpt": MPT,
    "mpt_clipped": _replaced(MPT, o=replace(_unscaled(MPT[1]), tied=False)),  # v is clipped before o reads it
    "mixtral": LLAMA,  # of its layers without experts, should there be any
    "qwen3_moe": LLAMA,
}


def _expert_plan(router: str, gate: str, up: str, down: str) -> tuple[ScaleGroup, ...]:
    """Return the plan of a block with experts, rows with {expert} in their names standing for one of each expert.

    All experts and the router read one norm's output, so that they share one s. Each down projection has an s of its
    own, which its expert's up projection absorbs.
    """
    return (
        LLAMA[0],
        LLAMA[1],
        replace(LLAMA[2], site="mlp.gate_up", consumers=(gate, up), followers=(router,)),
        ScaleGroup(
            site="mlp.{expert}.down",
            producer=up,
            producer_kind="linear",
            consumers=(down,),
            judged=down,
            routed=True,
        ),
    )


EXPERT_PLANS: dict[str, tuple[ScaleGroup, ...]] = {
    "mixtral": _expert_plan(
        "block_sparse_moe.gate",
        "block_sparse_moe.experts.{expert}.w1",
        "block_sparse_moe.experts.{expert}.w3",
        "block_sparse_moe.experts.{expert}.w2",
    ),
    "qwen3_moe": _expert_plan(
        "mlp.gate",
        "mlp.experts.{expert}.gate_proj",
        "mlp.experts.{expert}.up_proj",
        "mlp.experts.{expert}.down_proj",
    ),
}


def _with_experts(group: ScaleGroup, n_experts: int) -> tuple[ScaleGroup, ...]:
    """Return a row for every expert, or, of a site that all of them read, one row with the linears of all."""
    if not n_experts:
        return (group,)

    def named(names: Iterable[str]) -> tuple[str, ...]:
        every = (name.format(expert=expert) for expert in range(n_experts) for name in names)
        return tuple(dict.fromkeys(every))

    if not group.routed:
        return (replace(group, consumers=named(group.consumers)),)
    columns = (group.site, group.producer, *group.consumers)
    rows = ([name.format(expert=expert) for name in columns] for expert in range(n_experts))
    return tuple(
        replace(group, site=site, producer=producer, consumers=(down,), judged=down)
        for site, producer, down in rows
    )


def plan_for(model_type: str, n_experts: int = 0) -> tuple[ScaleGroup, ...]:
    """Return the plan of a family's block, one with so many experts or, for 0, one with a single MLP.

    Raises
    ------
    UnsupportedError
        If there is none; a wrong plan would change the model's function.
    """
    plans, kind, table = (
        (EXPERT_PLANS, f" with {n_experts} experts", "EXPERT_PLANS") if n_experts else (PLANS, "", "PLANS")
    )
    if model_type not in plans:
        raise UnsupportedError(
            f"plan_for: model_type must have a scale-sharing plan; got {model_type!r}{kind}. Known: "
            f"{', '.join(plans)}. A plan is a row of {table} in awq_ref/search/plan.py; the recipe rtn needs none."
        )
    return tuple(row for group in plans[model_type] for row in _with_experts(group, n_experts))


def site_inputs(plan: Iterable[ScaleGroup]) -> dict[str, str]:
    """Return site -> a linear layer that reads all of it: the first one, or the router, where that reads it too."""
    return {group.site: (*group.followers, *group.consumers)[0] for group in plan}


def routed_sites(plan: Iterable[ScaleGroup]) -> frozenset[str]:
    """Return the sites that perhaps no token reaches."""
    return frozenset(group.site for group in plan if group.routed)
