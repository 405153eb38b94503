"""[LLM-15], a mixture of experts, as a loop over scalars. Which experts a token goes to is decided on its values.

mixture   one token -> the weighted sum of its experts
"""

from collections.abc import Callable

from helpers.bounded import Bounded, total

from awq_ref.model import ModelConfig

Vector = list[Bounded]


def mixture(x: Vector, scores: Vector, mlp: Callable[[int, Vector], Vector], config: ModelConfig) -> Vector:
    """The experts with the largest scores; probabilities over all experts, or over the chosen ones."""
    top = max(score.value for score in scores)
    parts = [(score - Bounded(top)).exp() for score in scores]
    order = sorted(range(len(scores)), key=lambda e: -scores[e].value)
    chosen = sorted(order[: config.num_experts_per_tok])
    whole = total([parts[e] for e in chosen] if config.norm_topk_prob else parts)
    made = [[parts[e] / whole * y for y in mlp(e, x)] for e in chosen]
    return [total(list(column)) for column in zip(*made, strict=True)]
