"""What a model family is made of: the records whose rows `families` holds.

    LinearShape     sizes of a linear layer, by name, and what gives it a bias
    Norm            where a norm stands in a block, and how wide it is
    Experts         what a router and the MLPs that it chooses from are called
    Family          names of tensors, order of linears, norms, windows, what config.json means where it is silent
    gated_linears, plain_linears    the linears of a block whose MLP has a gate, or none

Source: the parameter names of Hugging Face transformers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from awq_ref.model.alibi import Alibi

Place = Literal[
    "before_attention",
    "query",
    "key",
    "after_attention",
    "before_mlp",
    "after_mlp",
    "stream_after_attention",
    "stream_after_mlp",
]


@dataclass(frozen=True)
class LinearShape:
    """A linear layer (out_features, in_features), each the name of a size in `ModelConfig.sizes`.

    bias is True, False, or the field of ModelConfig that says whether the layer has one.
    """

    out_features: str
    in_features: str
    bias: str | bool


@dataclass(frozen=True)
class Norm:
    """A norm of a block.

    place : before_attention, before_mlp: of what a module reads; after_attention, after_mlp: of what it adds to the
            stream; stream_after_attention, stream_after_mlp: of the stream itself, when a module's output has been
            added; query, key: of what q_proj and k_proj make, before rope
    size  : name of its width in `ModelConfig.sizes`; "head": every head by itself
    """

    place: Place
    size: str = "hidden"


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of a block's MLP.

    router : the linear that chooses
    mlp    : gate, up, down of every expert, with {expert} for its number
    """

    router: str
    mlp: tuple[str, str, str]

    def of(self, expert: int) -> tuple[str, str, str]:
        """Return gate, up and down of one expert."""
        gate, up, down = (name.format(expert=expert) for name in self.mlp)
        return gate, up, down

    def linears(self, n_experts: int) -> dict[str, LinearShape]:
        """Return the linears of all experts; their width is the size "expert"."""
        shapes = [
            LinearShape("expert", "hidden", bias=False),
            LinearShape("expert", "hidden", bias=False),
            LinearShape("hidden", "expert", bias=False),
        ]
        return {
            name: shape
            for expert in range(n_experts)
            for name, shape in zip(self.of(expert), shapes, strict=True)
        }


LLAMA_NORMS = {
    "input_layernorm": Norm("before_attention"),
    "post_attention_layernorm": Norm("before_mlp"),
}


@dataclass(frozen=True)
class Family:
    """What one architecture calls its tensors and which parts it is built of.

    architecture : the class name in config.json's ``architectures``
    linears      : name below the layer -> its sizes, in the order in which a block uses them
    norms        : name below the layer -> its place, in the order of use
    parallel     : attention and MLP read the same stream, and both are added to it; the MLP by a norm of its own
                   (before_mlp) or, without one, what the attention reads
    mlp          : the linears of the MLP: gate, up, down; gate "": there is none, up goes through the activation
    experts      : what stands in place of the MLP in layers that have experts (`ModelConfig.n_experts`)
    norm         : a key of `ops.NORMS`
    norm_bias    : norms have a bias too, stored beside their weight
    norm_offset  : what is added to a norm's stored weight: 1 where it is stored as its distance from 1
    fused        : tensor name -> the linears whose rows it holds, one below the other; with one linear: its name there
    by_head      : the fused tensors whose rows go by key-value head instead: its queries, its key, its value, the next
    transposed   : float linears are stored as (in_features, out_features)
    rope_neighbours : rope pairs a channel with its neighbour, not with the one half a head away
    sliding      : a key of `windows.WINDOWS`: which layers look no further back than the window
    scaled_embedding : embeddings are multiplied by sqrt(hidden_size)
    activation   : the activation where config.json names none, a key of `ops.ACTIVATIONS`
    keys         : field of ModelConfig -> the key of config.json that says it, where that has another name; of several
                   keys the first that is there; "a.b": key b of the object a
    derived      : field of ModelConfig -> what computes it from config.json, whatever that says under the field's name
    defaults     : what keys mean where config.json leaves them out, beside or instead of ModelConfig's defaults
    needs        : key of config.json -> the only value of it that runs here, or a tuple of them
    variants     : (keys of config.json with their values, or with what tells whether a value is meant, the row that
                   describes such a model instead of this one)
    alibi        : scores fall with the distance, instead of rope, unless the key "alibi" is false
    position_table : name of the learned positions, instead of rope; "": none
    position_offset : the row of that table for the first token
    embed_norm   : name of a norm of the embeddings; "": none
    project_in, project_out : names of the linears between embeddings of another width and the stream
    final_norm   : "": none
    head_bias    : the head has a bias
    other_architectures : other class names by which files call the same model
    base_prefix  : what the names of all tensors but the head begin with, in files that do not leave it out
    """

    architecture: str
    linears: Mapping[str, LinearShape]
    norms: Mapping[str, Norm] = field(default_factory=lambda: LLAMA_NORMS)
    parallel: bool = False
    mlp: tuple[str, str, str] = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    experts: Experts | None = None
    norm: str = "rms"
    norm_bias: bool = False
    norm_offset: float = 0.0
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rope_neighbours: bool = False
    sliding: str = "never"
    scaled_embedding: bool = False
    activation: str = "silu"
    keys: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    by_head: tuple[str, ...] = ()
    transposed: bool = False
    derived: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    variants: tuple[tuple[Mapping[str, Any], str], ...] = ()
    alibi: Alibi | None = None
    position_table: str = ""
    position_offset: int = 0
    embed_norm: str = ""
    project_in: str = ""
    project_out: str = ""
    head_bias: bool = False
    other_architectures: tuple[str, ...] = ()
    base_prefix: str = ""
    layer_prefix: str = "model.layers.{layer}."
    embed_tokens: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    lm_head: str = "lm_head"

    @cached_property
    def _norm_names(self) -> dict[Place, str]:
        return {norm.place: name for name, norm in self.norms.items()}

    def norm_at(self, place: Place) -> str | None:
        """Return the name of the norm at a place of the block; None if there is none."""
        return self._norm_names.get(place)

    def stored_linears(self, linears: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Return linears as a float checkpoint has them: tensor name -> the linears whose rows it holds.

        linears: which; those of a block without experts when left out.
        """
        parts = {part: name for name, parts in self.fused.items() for part in parts}
        names = dict.fromkeys(
            parts.get(name, name) for name in (self.linears if linears is None else linears)
        )
        return {name: self.fused.get(name, (name,)) for name in names}

    def kept_linears(self) -> tuple[str, ...]:
        """Return the names of the linears outside the blocks, which stay float; most programs call one lm_head."""
        names = ("lm_head", self.lm_head, self.project_in, self.project_out)
        return tuple(dict.fromkeys(name for name in names if name))


def gated_linears(*, qkv: str | bool, o: str | bool, mlp: str | bool) -> dict[str, LinearShape]:
    """Return the seven linears of a block with a gated MLP, given what says whether they have biases."""
    return {
        "self_attn.q_proj": LinearShape("query", "hidden", qkv),
        "self_attn.k_proj": LinearShape("key_value", "hidden", qkv),
        "self_attn.v_proj": LinearShape("key_value", "hidden", qkv),
        "self_attn.o_proj": LinearShape("hidden", "query", o),
        "mlp.gate_proj": LinearShape("intermediate", "hidden", mlp),
        "mlp.up_proj": LinearShape("intermediate", "hidden", mlp),
        "mlp.down_proj": LinearShape("hidden", "intermediate", mlp),
    }


def plain_linears(up: str, down: str, *, attention: str | bool, mlp: str | bool) -> dict[str, LinearShape]:
    """Return the six linears of a block whose MLP has no gate."""
    shared = list(gated_linears(qkv=attention, o=attention, mlp=mlp).items())[:4]
    return dict(shared) | {
        up: LinearShape("intermediate", "hidden", mlp),
        down: LinearShape("hidden", "intermediate", mlp),
    }
