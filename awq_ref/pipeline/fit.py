"""Does a grid fit a model? Asked before anything is read, so that the answer costs nothing.

require_group_sizes   group_size divides in_features of every linear
choose_layout         the layout on disk that can hold every linear
require_layout        the layout that was asked for can
"""

import math
from dataclasses import replace

from awq_ref.checks import fitting_group_sizes, require_one_of
from awq_ref.errors import ShapeError, UnsupportedError
from awq_ref.model import ModelConfig, block_stored_shapes
from awq_ref.pack import FOLDER_LAYOUTS, why_not
from awq_ref.spec import QuantSpec


def _stored_kinds(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return the linears of all kinds of blocks as they are stored: of experts, which are alike, the first."""
    one = replace(config, num_experts=min(1, config.num_experts))
    layers = range(config.num_hidden_layers) if config.expert_layers else (0,)
    return {name: shape for layer in layers for name, shape in block_stored_shapes(one, layer).items()}


def require_group_sizes(config: ModelConfig, group_size: int) -> None:
    """Raise ShapeError, naming every linear that does not fit and what would fit all, unless group_size divides."""
    if group_size == -1:
        return
    shapes = _stored_kinds(config)
    bad = {name: into for name, (_, into) in shapes.items() if into % group_size}
    if bad:
        listed = ", ".join(f"{name} ({into})" for name, into in bad.items())
        common = math.gcd(*(into for _, into in shapes.values()))
        fits = ", ".join(str(size) for size in fitting_group_sizes(common))
        raise ShapeError(
            f"quantize_model: group_size must divide in_features of every linear; {group_size} does not divide those "
            f"of {listed}. All would fit {fits}, or -1 for one group per row."
        )


def choose_layout(config: ModelConfig, spec: QuantSpec) -> str:
    """Return AutoAWQ's gemm where it can hold every linear, compressed-tensors' pack-quantized elsewhere."""
    shapes = _stored_kinds(config).values()
    refused = any(why_not("gemm", out, into, spec) for out, into in shapes)
    return "pack-quantized" if refused or spec.group_size == -1 else "gemm"


def require_layout(config: ModelConfig, spec: QuantSpec, layout: str) -> None:
    """Raise UnsupportedError unless the layout that was asked for can hold every linear."""
    require_one_of("quantize_model", "layout", layout, FOLDER_LAYOUTS)
    for name, (out, into) in _stored_kinds(config).items():
        if reason := why_not(layout, out, into, spec):
            raise UnsupportedError(
                f"quantize_model: layout {layout} must hold every linear; {name}: {reason}. Leave layout out to have "
                "one chosen."
            )
