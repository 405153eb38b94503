"""Which plan a layer of a model has.

layer_plan   the rows of one layer: layers of a model with experts may differ
"""

from awq_ref.model import ModelConfig
from awq_ref.search import ScaleGroup, plan_for


def layer_plan(config: ModelConfig, layer: int) -> tuple[ScaleGroup, ...]:
    """Return the plan of a layer.

    Raises
    ------
    UnsupportedError
        If the family has none.
    """
    return plan_for(config.model_type, config.n_experts(layer))
