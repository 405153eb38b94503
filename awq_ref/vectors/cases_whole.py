"""Level 6: a tiny Llama, with float weights and with integers in its linears.

    whole_cases   all cases of the level

The weights are drawn, not trained; the seed is one whose greedy tokens are clear: at every step the largest logit is
farther from the next than both may be wrong.
"""

from collections.abc import Iterator

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.case import Case, exact
from awq_ref.vectors.cases_model import SOURCE, array32, bounded, draw_layer
from awq_ref.vectors.draws import Draws, to_float32
from awq_ref.vectors.oracle_model import Model, Sizes, largest, margin
from awq_ref.vectors.running import Vector, float_weights

SIZES = Sizes(64, 96, 4, 2, 16, theta=10000.0, eps=1e-5)
VOCAB, LAYERS = 96, 2
PROMPT = [1, 17, 42, 5, 63, 88, 30, 9]
NEW_TOKENS, TOP = 64, 5
SEED = "tiny llama 1"


def make_model(group_size: int | None, seed: str = SEED) -> tuple[Model, dict[str, AnyArray]]:
    """Return the model and its arrays; with a group size, the same weights rounded to integers."""
    draws = Draws(seed)
    embed = draws.floats(VOCAB, SIZES.hidden)
    head = draws.floats(VOCAB, SIZES.hidden, 0.25)
    norm = [to_float32(1.0 + 0.2 * value) for value in draws.floats(1, SIZES.hidden)[0]]
    arrays: dict[str, AnyArray] = {"embed_tokens": array32(embed)}
    layers = [draw_layer(draws, SIZES, group_size, arrays, f"layers.{layer}.") for layer in range(LAYERS)]
    arrays |= {"norm": array32(norm), "lm_head": array32(head)}
    return Model(SIZES, embed, layers, norm, float_weights(head)), arrays


def generate(model: Model) -> tuple[list[Vector], list[int], float]:
    """Return the logits of the prompt, the greedy tokens, and the least margin of any step."""
    logits = [model.step(token, position) for position, token in enumerate(PROMPT)]
    tokens, least, last = [], float("inf"), logits[-1]
    for n in range(NEW_TOKENS):
        least = min(least, margin(last, 1))
        tokens.append(largest(last, 1)[0])
        if n + 1 < NEW_TOKENS:
            last = model.step(tokens[-1], len(PROMPT) + n)
    return logits, tokens, least


def _params(group_size: int | None) -> dict[str, object]:
    sizes = SIZES.params()
    first = {"vocab_size": VOCAB, **{name: sizes.pop(name) for name in ("hidden_size", "intermediate_size")}}
    bits = None if group_size is None else 4
    return {**first, "layers": LAYERS, **sizes, "bits": bits, "group_size": group_size}


def _pair(name: str, group_size: int | None, flag: str) -> Iterator[Case]:
    model, arrays = make_model(group_size)
    logits, tokens, least = generate(model)
    assert least > 0.0, f"{name}: the greedy tokens are not clear"
    assert all(margin(row, TOP) > 0.0 for row in logits), f"{name}: the five largest logits are not clear"
    inputs = {"ids": np.array(PROMPT, dtype=np.int64), **arrays}
    params = _params(group_size)
    bundle = f"L6/data/{name}.safetensors"
    top = [largest(row, TOP) for row in logits]
    outputs = {"logits": bounded(logits), "top5": exact(top, "int64")}
    comment = f"{len(PROMPT)} tokens of a prompt; the order of the five largest logits is certain."
    kept = ("ids",)
    yield Case(
        f"L6/model_logits/{name}",
        params,
        inputs,
        outputs,
        comment,
        SOURCE,
        (flag,),
        bundle=bundle,
        inline=kept,
    )
    comment = (
        f"{NEW_TOKENS} greedy tokens; a largest logit is at least {least:.1e} clear of what rounding may do."
    )
    yield Case(
        f"L6/model_generate/{name}",
        {**params, "n_tokens": NEW_TOKENS},
        inputs,
        {"tokens": exact(tokens, "int64")},
        comment,
        SOURCE,
        (flag, "Greedy"),
        bundle=bundle,
        inline=kept,
    )


def whole_cases() -> Iterator[Case]:
    """Yield every case of level 6."""
    yield from _pair("float", None, "Float")
    yield from _pair("int4", 32, "Int4")
