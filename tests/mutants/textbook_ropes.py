"""The frequencies of rope for the second backend: one method for each step that a mutant may get wrong."""

import numpy as np

F64 = np.float64


class Ropes:
    def length_of(self, positions):
        return int(positions.max(initial=-1)) + 1

    def frequencies(self, params, dim):
        """Return the angle of each pair; params has the text's `length`."""
        f = params["theta"] ** (-2.0 * np.arange(dim // 2, dtype=F64) / dim)
        rescaled = getattr(self, f"rope_{params.get('rope_type', 'default')}")
        return rescaled(f, params, dim)

    def rope_default(self, f, params, dim):
        return f

    def rope_linear(self, f, params, dim):
        return f / params["factor"]

    def rope_llama3(self, f, params, dim):
        turns = params["original_max_position_embeddings"] * f / (2 * np.pi)
        low, high = params["low_freq_factor"], params["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return kept * f + (1 - kept) * f / params["factor"]

    def counted(self, length, original):
        """The length that the base of `dynamic` grows with."""
        return max(length, original)

    def base_power(self, dim):
        return dim / (dim - 2)

    def rope_dynamic(self, f, params, dim):
        s, original = params["factor"], params["original_max_position_embeddings"]
        grown = s * self.counted(params["length"], original) / original - (s - 1)
        return f * grown ** (-self.base_power(dim) * 2.0 * np.arange(dim // 2, dtype=F64) / dim)

    def ramp_end(self, turns, params, dim):
        """The pair, a fraction, that turns so many times in the original length."""
        waves = params["original_max_position_embeddings"] / (2 * np.pi * turns)
        return dim / 2 * np.log(waves) / np.log(params["theta"])

    def ramp_ends(self, params, dim):
        first, last = (self.ramp_end(params[beta], params, dim) for beta in ("beta_fast", "beta_slow"))
        if params["truncate"]:
            first, last = np.floor(first), np.ceil(last)
        return max(first, 0), min(last, dim - 1)

    def slowed(self, i, first, last):
        """How much of the way to the slow frequency each pair goes."""
        return np.where(i <= first, 0.0, np.where(i >= last, 1.0, (i - first) / max(last - first, 1e-9)))

    def rope_yarn(self, f, params, dim):
        r = self.slowed(np.arange(dim // 2, dtype=F64), *self.ramp_ends(params, dim))
        return (1 - r) * f + r * f / params["factor"]

    def is_long(self, length, original):
        return length > original

    def rope_longrope(self, f, params, dim):
        is_long = self.is_long(params["length"], params["original_max_position_embeddings"])
        return f / np.array(params["long_factor" if is_long else "short_factor"], dtype=F64)

    def yarn_attention(self, params):
        def term(scale):
            return 0.1 * scale * np.log(params["factor"]) + 1

        if params.get("mscale") and params.get("mscale_all_dim"):
            return term(params["mscale"]) / term(params["mscale_all_dim"])
        return term(1.0)

    def longrope_attention(self, params):
        return np.sqrt(1 + np.log(params["factor"]) / np.log(params["original_max_position_embeddings"]))

    def attention_factor(self, params):
        kind = params.get("rope_type")
        if kind == "yarn":
            return self.yarn_attention(params)
        return self.longrope_attention(params) if kind == "longrope" else 1.0
