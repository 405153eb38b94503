"""Mutants of the operators of a decoder, of its cache and of its loop."""

import math

import numpy as np
from mutants.mutant import mutant, original

F64 = np.float64


def eps_beside_the_root(self, x, weight, eps):
    x = x.astype(F64)
    return weight * x / (np.sqrt((x * x).mean(axis=-1, keepdims=True)) + eps)


def rms_around_the_mean(self, x, weight, eps):
    x = x - x.mean(axis=-1, keepdims=True)
    return original("rms")(self, x, weight, eps)


def rms_of_the_sum(self, x, weight, eps):
    x = x.astype(F64)
    return weight * x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + eps)


def layer_norm_unbiased(self, params, inputs):
    x = inputs["x"].astype(F64)
    scaled = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(
        x.var(axis=-1, keepdims=True, ddof=1) + params["eps"]
    )
    return {"y": scaled * inputs["weight"] + inputs["bias"]}


def layer_norm_not_centred(self, params, inputs):
    return {"y": self.rms(inputs["x"], inputs["weight"], params["eps"]) + inputs["bias"]}


def pairs_exchanged(self, pairing, dim):
    return original("pairs")(self, "neighbours" if pairing == "half" else "half", dim)


def turned_backwards(self, x, positions, params, dim):
    return original("rope")(self, x, -positions, params, dim)


def positions_from_one(self, x, positions, params, dim):
    return original("rope")(self, x, positions + 1, params, dim)


def whole_head_turns(self, params, inputs):
    return {"y": self.rope(inputs["x"], inputs["positions"], params, inputs["x"].shape[-1])}


def exponents_of_the_head(self, params, inputs):
    dim, whole = params["rotary_dim"], inputs["x"].shape[-1]
    twin = type(self)()
    twin.frequencies = lambda p, d: original("frequencies")(self, p, whole)[: d // 2]
    return {"y": twin.rope(inputs["x"], inputs["positions"], params, dim)}


def exponents_halved(self, params, dim):
    return original("frequencies")(self, {**params, "theta": math.sqrt(params["theta"])}, dim)


def all_frequencies_divided(self, params, dim):
    kind = "linear" if params.get("rope_type") == "llama3" else params.get("rope_type", "default")
    return original("frequencies")(self, {**params, "rope_type": kind}, dim)


def frequencies_multiplied(self, params, dim):
    if params.get("rope_type") == "linear":
        params = {**params, "factor": 1 / params["factor"]}
    return original("frequencies")(self, params, dim)


def no_rescaling(self, params, dim):
    return original("frequencies")(self, {**params, "rope_type": "default"}, dim)


def seen_to(end_of):
    def seen(self, t, tokens, columns, window):
        start, end = original("seen")(self, t, tokens, columns, window)
        end = end_of(end, t, columns)
        return min(start, max(end - 1, 0)), end

    return seen


def window_without_its_own(self, t, tokens, columns, window):
    return original("seen")(self, t, tokens, columns, window + 1 if window else 0)


def no_window(self, t, tokens, columns, window):
    return original("seen")(self, t, tokens, columns, 0)


def capped_sharply(self, scores, cap):
    return np.clip(scores, -cap, cap) if cap else scores


def plain_softmax(self, scores):
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.exp(scores)
        return p / p.sum()


def erf_gelu(self, x, kind):
    if kind == "silu":
        return original("act")(self, x, kind)
    return x / 2 * (1 + np.vectorize(math.erf, otypes=[F64])(x / math.sqrt(2)))


def quick_gelu(self, x, kind):
    return x / (1 + np.exp(-1.702 * x))


def cache_of_one_layer(self, caches, tokens):
    caches[:] = [caches[0]] * len(caches)


def cache_lost(self, caches, tokens):
    caches[:] = [(k[:0], v[:0]) for k, v in caches]


def oldest_column_lost(self, caches, tokens):
    if len(tokens) > 40:
        caches[:] = [(k[1:], v[1:]) for k, v in caches]


def head_norm_forgotten(self, x, params, inputs):
    return x


def five_smallest(self, logits):
    return original("top")(self, logits)[:, ::-1]


def heads_interleaved(self, x, dim):
    return x.reshape(len(x), dim, -1).transpose(0, 2, 1)


MODELS = [
    mutant("eps-beside-root", "x / (sqrt(mean) + eps)", rms=eps_beside_the_root),
    mutant("eps-forgotten", "no eps", rms=lambda self, x, w, eps: original("rms")(self, x, w, 0.0)),
    mutant(
        "eps-constant",
        "eps is 1e-6 whatever the model says",
        rms=lambda self, x, w, eps: original("rms")(self, x, w, 1e-6),
    ),
    mutant("rms-centred", "rms_norm subtracts the mean", rms=rms_around_the_mean),
    mutant("rms-of-sum", "the sum of squares, not their mean", rms=rms_of_the_sum),
    mutant(
        "norm-plus-1",
        "the norm's weight is 1 + w (Gemma)",
        rms=lambda self, x, w, eps: original("rms")(self, x, 1 + w, eps),
    ),
    mutant("layer-norm-unbiased", "the variance is divided by n - 1", op_layer_norm=layer_norm_unbiased),
    mutant(
        "layer-norm-not-centred",
        "layer_norm does not subtract the mean",
        op_layer_norm=layer_norm_not_centred,
    ),
    mutant("rope-pairs", "halves and neighbours exchanged", pairs=pairs_exchanged),
    mutant("rope-sign", "turned the other way", rope=turned_backwards),
    mutant("rope-from-one", "positions counted from 1", rope=positions_from_one),
    mutant("rope-whole-head", "all channels turn where only the first should", op_rope=whole_head_turns),
    mutant(
        "rope-exponents-of-head", "exponents count all channels of the head", op_rope=exponents_of_the_head
    ),
    mutant("rope-exponents-halved", "theta^(-i / D)", frequencies=exponents_halved),
    mutant(
        "rope-llama3-linear", "llama3: all frequencies divided, no blend", frequencies=all_frequencies_divided
    ),
    mutant("rope-linear-multiplied", "linear: multiplied by the factor", frequencies=frequencies_multiplied),
    mutant("rope-not-rescaled", "rescaling ignored", frequencies=no_rescaling),
    mutant(
        "heads-modulo",
        "query head h reads key-value head h mod kv_heads",
        head_of=lambda self, h, heads, kv: h % kv,
    ),
    mutant("heads-interleaved", "channels of heads interleaved in q, k and v", by_head=heads_interleaved),
    mutant(
        "mask-sees-next",
        "a query sees the column after its own",
        seen=seen_to(lambda end, t, columns: min(end + 1, columns)),
    ),
    mutant(
        "mask-not-own",
        "a query does not see its own column",
        seen=seen_to(lambda end, t, columns: max(end - 1, 1)),
    ),
    mutant(
        "mask-forgets-cache",
        "the mask starts at column 0: cached columns hide the new ones",
        seen=seen_to(lambda end, t, columns: t + 1),
    ),
    mutant("mask-none", "no mask at all", seen=seen_to(lambda end, t, columns: columns)),
    mutant(
        "window-off-by-one", "the window does not count the query's own column", seen=window_without_its_own
    ),
    mutant("window-ignored", "no window", seen=no_window),
    mutant("cap-ignored", "no cap", capped=lambda self, scores, cap: scores),
    mutant("cap-sharp", "scores clipped at the cap", capped=capped_sharply),
    mutant("softmax-overflows", "exp without subtracting the maximum", softmax=plain_softmax),
    mutant("scale-not-root", "scores divided by head_dim", softmax_scale=lambda self, dim: 1 / dim),
    mutant(
        "gate-and-up",
        "the activation acts on up",
        gated=lambda self, gate, up, kind: gate * self.act(up, kind),
    ),
    mutant("gelu-erf", "gelu by erf where the approximation is asked for", act=erf_gelu),
    mutant("gelu-quick", "x sigmoid(1.702 x)", act=quick_gelu),
    mutant(
        "positions-restart",
        "new tokens stand at position 0 whatever is cached",
        first_position=lambda self, past: 0,
    ),
    mutant(
        "position-off-by-one",
        "new tokens stand one position too far",
        first_position=lambda self, past: past + 1 if past else 0,
    ),
    mutant(
        "block-parallel",
        "the MLP reads what the attention read",
        mlp_reads=lambda self, stream, normed: normed,
    ),
    mutant("final-norm-forgotten", "no norm before the head", final=head_norm_forgotten),
    mutant(
        "head-tied", "the embedding is taken for the head", head=lambda self, inputs: inputs["embed_tokens"]
    ),
    mutant(
        "layers-backwards",
        "layers in the wrong order",
        layer_order=lambda self, layers: range(layers - 1, -1, -1),
    ),
    mutant("ids-off-by-one", "the row before each id is looked up", rows_of=lambda self, ids: ids - 1),
    mutant("top-rising", "the five largest in rising order", top=five_smallest),
    mutant("cache-shared", "all layers share the first one's cache", before_step=cache_of_one_layer),
    mutant("cache-lost", "the cache is forgotten after each token", before_step=cache_lost),
    mutant(
        "cache-too-short", "the cache has 48 columns, the oldest falls out", before_step=oldest_column_lost
    ),
]
