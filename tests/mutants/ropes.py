"""Mutants of the newer ropes: dynamic, yarn, longrope."""

import numpy as np
from mutants.mutant import mutant, original


def with_params(step, **changes):
    """A method that runs the original one with other parameters."""

    def changed(self, f, params, dim):
        return original(step)(self, f, {**params, **changes}, dim)

    return changed


def base_only_stretched(self, f, params, dim):
    s, old = params["factor"], params["original_max_position_embeddings"]
    grown = s * self.counted(params["length"], old) / old
    return f * grown ** (-self.base_power(dim) * 2.0 * np.arange(dim // 2) / dim)


def pair_by_channels(self, turns, params, dim):
    return 2 * original("ramp_end")(self, turns, params, dim)


def ends_rounded_inwards(self, params, dim):
    first, last = (self.ramp_end(params[beta], params, dim) for beta in ("beta_fast", "beta_slow"))
    if params["truncate"]:
        first, last = np.ceil(first), np.floor(last)
    return max(first, 0), min(last, dim - 1)


def ends_not_held(self, params, dim):
    first, last = (self.ramp_end(params[beta], params, dim) for beta in ("beta_fast", "beta_slow"))
    return (np.floor(first), np.ceil(last)) if params["truncate"] else (first, last)


def ramp_of_turns(self, f, params, dim):
    turns = params["original_max_position_embeddings"] * f / (2 * np.pi)
    kept = np.clip((turns - params["beta_slow"]) / max(params["beta_fast"] - params["beta_slow"], 1e-9), 0, 1)
    return kept * f + (1 - kept) * f / params["factor"]


def periods_blended(self, f, params, dim):
    r = self.slowed(np.arange(dim // 2), *self.ramp_ends(params, dim))
    return 1 / ((1 - r) / f + r * params["factor"] / f)


def list_of_each_position(self, x, positions, params, dim):
    turned = [original("rope")(self, x[t : t + 1], positions[t : t + 1], params, dim) for t in range(len(x))]
    return np.concatenate(turned)


def scales_exchanged(self, params):
    return original("yarn_attention")(
        self, {**params, "mscale": params.get("mscale_all_dim"), "mscale_all_dim": params.get("mscale")}
    )


ROPES = [
    mutant("dynamic-ignored", "dynamic: the base never grows", rope_dynamic=lambda self, f, params, dim: f),
    mutant(
        "dynamic-any-length",
        "dynamic: the base shrinks below the original length",
        counted=lambda self, length, old: length,
    ),
    mutant(
        "dynamic-off-by-one",
        "dynamic: the last position is taken for the length",
        counted=lambda self, length, old: max(length - 1, old),
    ),
    mutant(
        "dynamic-length-plus-1",
        "dynamic: one token more than there is",
        counted=lambda self, length, old: max(length + 1, old),
    ),
    mutant(
        "dynamic-power", "dynamic: the stretch is not raised to D / (D - 2)", base_power=lambda self, dim: 1.0
    ),
    mutant("dynamic-stretch", "dynamic: s L / L0 without s - 1 taken off", rope_dynamic=base_only_stretched),
    mutant(
        "dynamic-linear",
        "dynamic taken for linear",
        rope_dynamic=lambda self, f, params, dim: f / params["factor"],
    ),
    mutant(
        "yarn-linear",
        "yarn: all frequencies divided, no ramp",
        rope_yarn=lambda self, f, params, dim: f / params["factor"],
    ),
    mutant("yarn-ignored", "yarn: no frequency divided", rope_yarn=lambda self, f, params, dim: f),
    mutant(
        "yarn-no-ramp",
        "yarn: a step in the middle for the ramp",
        slowed=lambda self, i, first, last: np.where(i > (first + last) / 2, 1.0, 0.0),
    ),
    mutant(
        "yarn-ramp-backwards",
        "yarn: fast pairs slowed down, slow ones kept",
        slowed=lambda self, i, a, b: 1 - original("slowed")(self, i, a, b),
    ),
    mutant(
        "yarn-ramp-from-next",
        "yarn: the ramp starts one pair late",
        slowed=lambda self, i, a, b: original("slowed")(self, i - 1, a, b),
    ),
    mutant(
        "yarn-ramp-of-turns",
        "yarn: linear in turns, as in the paper, not in the pair's number",
        rope_yarn=ramp_of_turns,
    ),
    mutant("yarn-periods", "yarn: wave lengths blended, not frequencies", rope_yarn=periods_blended),
    mutant("yarn-channels", "yarn: pairs counted as channels", ramp_end=pair_by_channels),
    mutant("yarn-inwards", "yarn: the ramp's ends rounded inwards", ramp_ends=ends_rounded_inwards),
    mutant(
        "yarn-ends-not-held", "yarn: ends beyond the first pair are not held to it", ramp_ends=ends_not_held
    ),
    mutant(
        "yarn-always-truncated",
        "yarn: the ends rounded though truncate is false",
        rope_yarn=with_params("rope_yarn", truncate=True),
    ),
    mutant(
        "yarn-never-truncated",
        "yarn: the ends never rounded",
        rope_yarn=with_params("rope_yarn", truncate=False),
    ),
    mutant(
        "yarn-betas",
        "yarn: 32 and 1 whatever the model says",
        rope_yarn=with_params("rope_yarn", beta_fast=32.0, beta_slow=1.0),
    ),
    mutant("yarn-no-attention", "yarn: no attention factor", yarn_attention=lambda self, params: 1.0),
    mutant(
        "yarn-attention-squared",
        "yarn: the factor of the scores on cosines and sines",
        yarn_attention=lambda self, params: original("yarn_attention")(self, params) ** 2,
    ),
    mutant(
        "yarn-mscale-ignored",
        "yarn: mscale and mscale_all_dim ignored",
        yarn_attention=lambda self, params: 0.1 * np.log(params["factor"]) + 1,
    ),
    mutant(
        "yarn-mscale-exchanged", "yarn: mscale and mscale_all_dim exchanged", yarn_attention=scales_exchanged
    ),
    mutant("longrope-short", "longrope: always the short list", is_long=lambda self, length, old: False),
    mutant("longrope-long", "longrope: always the long list", is_long=lambda self, length, old: True),
    mutant(
        "longrope-boundary",
        "longrope: long from the original length on",
        is_long=lambda self, length, old: length >= old,
    ),
    mutant(
        "longrope-late",
        "longrope: the last position is taken for the length",
        is_long=lambda self, length, old: length - 1 > old,
    ),
    mutant(
        "rope-by-position",
        "every position is taken for the last of a text of its own",
        rope=list_of_each_position,
    ),
    mutant(
        "longrope-multiplied",
        "longrope: multiplied by the list",
        rope_longrope=lambda self, f, params, dim: f * f / original("rope_longrope")(self, f, params, dim),
    ),
    mutant(
        "longrope-no-attention", "longrope: no attention factor", longrope_attention=lambda self, params: 1.0
    ),
    mutant(
        "longrope-attention-of-yarn",
        "longrope: yarn's attention factor",
        longrope_attention=lambda self, params: 0.1 * np.log(params["factor"]) + 1,
    ),
]
