"""The plan: which linear layers share channel scales, and what absorbs the inverse.

    ScaleGroup       one row of a plan
    PLANS            model_type -> rows
    EXPERT_PLANS     the same for layers with experts
    plan_for         the rows of a family
    site_inputs      for every site a linear layer to watch during calibration
    query_head_tie   which row of v_proj feeds which input channel of o_proj

To add a family: one row set in PLANS. Layers have Hugging Face's names below `model.layers.N.`.
Source: Lin et al. 2023, arXiv:2306.00978, section 3.2; llm-awq, awq/quantize/auto_scale.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from awq_ref.checks import require_between
from awq_ref.dtypes import I64
from awq_ref.errors import RangeError, UnsupportedError


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
    "stablelm": LLAMA,
    "starcoder2": STARCODER2,
    "smollm3": LLAMA,
    "cohere": COHERE,
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


def query_head_tie(*, n_heads: int, n_kv_heads: int, head_dim: int) -> I64:
    """Return for every input channel of o_proj the row of v_proj that feeds it.

    Channel d of query head h reads row (h // (n_heads / n_kv_heads)) * head_dim + d.

    Parameters
    ----------
    n_heads, n_kv_heads, head_dim : int
        num_attention_heads, num_key_value_heads and head_dim of the configuration.

    Returns
    -------
    tie : int64 array, shape (n_heads * head_dim,), values in [0, n_kv_heads * head_dim)

    Raises
    ------
    RangeError
        If a number is less than 1, or n_kv_heads does not divide n_heads.

    Examples
    --------
    >>> query_head_tie(n_heads=4, n_kv_heads=2, head_dim=2).tolist()
    [0, 1, 0, 1, 2, 3, 2, 3]
    """
    for name, value in (("n_heads", n_heads), ("n_kv_heads", n_kv_heads), ("head_dim", head_dim)):
        require_between("query_head_tie", name, value, 1, 2**31)
    if n_heads % n_kv_heads:
        raise RangeError(
            f"query_head_tie: n_kv_heads must divide n_heads; got n_heads={n_heads}, n_kv_heads={n_kv_heads}."
        )
    rows = np.arange(n_kv_heads * head_dim, dtype=np.int64).reshape(n_kv_heads, 1, head_dim)
    return np.repeat(rows, n_heads // n_kv_heads, axis=1).ravel()  # (n_heads * head_dim,)
