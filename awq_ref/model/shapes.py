"""Names and shapes of a model's tensors, from its configuration alone.

block_linear_shapes     linears of a block: name -> (out_features, in_features)
linears_of_one_input    which linears of a block read the same array
block_router_shapes     the router of a block with experts, which stays in float
model_linear_shapes     linears of all blocks
block_stored_shapes     the same as a checkpoint has them, where some are one tensor
stored_place            where a checkpoint keeps a linear;  part_rows, stored_order: how fused rows lie
block_norm_shapes       norms of a block, and their biases: name -> shape
norm_tensor             the name of a norm's tensor
block_tensor_shapes     tensors of one layer: name in the checkpoint -> shape
outer_tensor_shapes     tensors outside the layers: embedding, final norm, head
model_tensor_shapes     all of them
"""

from itertools import accumulate

import numpy as np

from awq_ref.dtypes import I64
from awq_ref.model.config import ModelConfig
from awq_ref.model.family import Family, LinearShape

Shape = tuple[int, ...]


def _linears(config: ModelConfig, layer: int) -> dict[str, LinearShape]:
    """Return the rows of a layer's linears: the family's, its MLP exchanged for experts where the layer has some."""
    family, n_experts = config.family, config.n_experts(layer)
    if family.experts is None or not n_experts:
        return dict(family.linears)
    attention = {name: row for name, row in family.linears.items() if name not in family.mlp}
    return attention | family.experts.linears(n_experts)


def block_linear_shapes(config: ModelConfig, layer: int = 0) -> dict[str, tuple[int, int]]:
    """Return the linears of a block, name below the layer -> (out_features, in_features), in order of use.

    Without the router of a block with experts, which is never quantized.
    """
    sizes = config.sizes
    rows = _linears(config, layer).items()
    return {name: (sizes[row.out_features], sizes[row.in_features]) for name, row in rows}


def linears_of_one_input(config: ModelConfig, layer: int = 0) -> list[tuple[str, ...]]:
    """Return the linears of a block that read the same array and are used together: q, k and v; gate and up."""
    family, n_experts = config.family, config.n_experts(layer)
    has_experts = family.experts is not None and n_experts
    mlps = (
        [family.experts.of(e) for e in range(n_experts)] if family.experts and has_experts else [family.mlp]
    )
    gates = [(gate, up) for gate, up, _ in mlps if gate]
    return [tuple(f"self_attn.{name}_proj" for name in "qkv"), *gates]


def block_router_shapes(config: ModelConfig, layer: int = 0) -> dict[str, tuple[int, int]]:
    """Return the router of a block with experts, name below the layer -> (experts, hidden_size); none in others."""
    experts, n_experts = config.family.experts, config.n_experts(layer)
    return {experts.router: (n_experts, config.hidden_size)} if experts is not None and n_experts else {}


def model_linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return the linears of all blocks, whole name -> (out_features, in_features)."""
    return {
        f"{block_prefix(config, layer)}{name}": shape
        for layer in range(config.num_hidden_layers)
        for name, shape in block_linear_shapes(config, layer).items()
    }


def block_stored_shapes(config: ModelConfig, layer: int = 0) -> dict[str, tuple[int, int]]:
    """Return the linears of a block as a checkpoint stores them: linears that are one tensor add up their rows."""
    shapes = block_linear_shapes(config, layer)
    stored = config.family.stored_linears(shapes).items()
    return {name: (sum(shapes[part][0] for part in parts), shapes[parts[0]][1]) for name, parts in stored}


def _rows_by_head(first: int, last: int, total: int, n_heads: int) -> I64:
    """Return rows first to last of each head's share of a fused tensor, of `total` rows a head."""
    heads = total * np.arange(n_heads, dtype=np.int64)[:, None]
    return (heads + np.arange(first, last, dtype=np.int64)).ravel()


def part_rows(config: ModelConfig, name: str) -> dict[str, slice | I64]:
    """Return which rows of a stored tensor are those of each of its parts, by the parts' names."""
    if name not in config.family.fused:
        return {name: slice(None)}
    shapes, parts = block_linear_shapes(config), config.family.fused[name]
    by_head = name in config.family.by_head
    n_heads = config.num_key_value_heads if by_head else 1
    ends = list(accumulate(shapes[part][0] // n_heads for part in parts))
    found: dict[str, slice | I64] = {}
    for part, first, last in zip(parts, [0, *ends], ends, strict=False):
        found[part] = _rows_by_head(first, last, ends[-1], n_heads) if by_head else slice(first, last)
    return found


def stored_order(config: ModelConfig, name: str) -> slice | I64:
    """Return for every row of a stored tensor its row in its parts put one below the other."""
    if name not in config.family.by_head:
        return slice(None)
    return np.argsort(np.concatenate([np.asarray(rows) for rows in part_rows(config, name).values()]))


def stored_place(config: ModelConfig, linear: str) -> tuple[str, slice | I64]:
    """Return where a checkpoint keeps a linear: the name of the module that holds it, and its rows of that.

    linear is a whole name, such as ``model.layers.0.mlp.up_proj``.
    """
    for name, parts in config.family.fused.items():
        for part in parts:
            if linear.endswith(f".{part}"):
                rows = part_rows(config, name)[part] if len(parts) > 1 else slice(None)
                return linear.removesuffix(part) + name, rows
    return linear, slice(None)


def norm_ends(family: Family) -> tuple[str, ...]:
    """Return what is put behind a norm's name to name its arrays."""
    return ("", ".bias") if family.norm_bias else ("",)


def block_norm_shapes(config: ModelConfig) -> dict[str, tuple[int]]:
    """Return the norms of a block, name below the layer -> shape, in order of use; a bias under "NAME.bias"."""
    shapes: dict[str, tuple[int]] = {}
    for name, norm in config.family.norms.items():
        shapes |= {f"{name}{end}": (config.sizes[norm.size],) for end in norm_ends(config.family)}
    return shapes


def norm_tensor(name: str) -> str:
    """Return the name of the tensor of a norm, or of a norm's bias, in a checkpoint."""
    return name if name.endswith(".bias") else f"{name}.weight"


def has_bias(config: ModelConfig, linear: str) -> bool:
    """Tell whether a linear of the blocks has a bias."""
    row = config.family.linears.get(linear)  # None: of an expert
    bias = row.bias if row else False
    return bool(getattr(config, bias)) if isinstance(bias, str) else bias


def block_prefix(config: ModelConfig, layer: int) -> str:
    """Return what the names of a layer's tensors begin with, e.g. ``model.layers.0.``."""
    return config.family.layer_prefix.format(layer=layer)


def block_tensor_shapes(config: ModelConfig, layer: int) -> dict[str, Shape]:
    """Return the tensors of one layer: name in a float checkpoint -> shape."""
    prefix = block_prefix(config, layer)
    shapes: dict[str, Shape] = {
        f"{prefix}{norm_tensor(name)}": shape for name, shape in block_norm_shapes(config).items()
    }
    linears, routers = block_stored_shapes(config, layer), block_router_shapes(config, layer)
    stored = config.family.stored_linears([*block_linear_shapes(config, layer), *routers])
    for name, (out_features, in_features) in {**linears, **routers}.items():
        shape = (out_features, in_features)
        shapes[f"{prefix}{name}.weight"] = shape[::-1] if config.family.transposed else shape
        if has_bias(config, stored[name][0]):
            shapes[f"{prefix}{name}.bias"] = (out_features,)
    return shapes


def outer_tensor_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return the tensors outside the layers: embedding, what follows it, final norm, and the head unless it is tied."""
    family, hidden, table = config.family, config.hidden_size, (config.vocab_size, config.embedding_width)
    shapes: dict[str, Shape] = {f"{family.embed_tokens}.weight": table}
    if family.position_table:
        rows = config.max_position_embeddings + family.position_offset
        shapes[f"{family.position_table}.weight"] = (rows, hidden)
    if config.projects:
        shapes[f"{family.project_in}.weight"] = (hidden, config.embedding_width)
        shapes[f"{family.project_out}.weight"] = (config.embedding_width, hidden)
    for name in filter(None, (family.embed_norm, family.final_norm)):
        shapes |= {norm_tensor(f"{name}{end}"): (hidden,) for end in norm_ends(family)}
    if not config.tie_word_embeddings:
        shapes[f"{family.lm_head}.weight"] = table
    if family.head_bias:
        shapes[f"{family.lm_head}.bias"] = (config.vocab_size,)
    return shapes


def model_tensor_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return every tensor of a float checkpoint: name -> shape."""
    shapes = outer_tensor_shapes(config)
    for layer in range(config.num_hidden_layers):
        shapes |= block_tensor_shapes(config, layer)
    return shapes
