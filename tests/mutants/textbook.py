"""Levels 4 to 6 of the second backend, and the backend itself: `Textbook().answer(request)`."""

import numpy as np
from mutants.textbook_blocks import Blocks
from mutants.textbook_products import F32, Products
from mutants.textbook_ropes import Ropes

F64 = np.float64


class Textbook(Blocks, Products, Ropes):
    scale_floor = 2.0**-16
    llm_awq_floor = 1e-4

    # ---- L4 ----

    def op_act_mean_abs(self, params, inputs):
        return {"act_mean_abs": np.abs(inputs["x"].astype(F64)).mean(axis=0)}

    def op_gram(self, params, inputs):
        x = inputs["x"].astype(F64)
        return {"gram": x.T @ x / len(x)}

    def powers(self, a, alpha, formula):
        """t, and which channels its extremes are taken over."""
        if formula == "llm-awq":
            return np.maximum(a**alpha, self.llm_awq_floor), np.ones(len(a), dtype=bool)
        return np.maximum(a / a.max(), self.scale_floor) ** alpha, a > 0

    def middle_power(self, t):
        return np.sqrt(t.max() * t.min())

    def channel_scales(self, a, alpha, formula):
        t, live = self.powers(a.astype(F64), alpha, formula)
        return np.where(live, t / self.middle_power(t[live]), 1.0)

    def op_channel_scales(self, params, inputs):
        return {
            "channel_scales": self.channel_scales(inputs["act_mean_abs"], params["alpha"], params["formula"])
        }

    def rounded(self, weight, params):
        scales, zeros, used = self.grid(weight, params)
        codes = self.codes(weight, used, zeros, params)
        return self.weight({"int_weight": codes, "scales": scales, "zero_point": zeros})

    def back(self, rounded, scales):
        return rounded / scales

    def quadratic(self, error, gram):
        return np.einsum("oi,ij,oj->o", error, gram.astype(F64), error)

    def loss(self, weight, gram, scales, params):
        scaled = (weight * scales.astype(F32)).astype(F32)
        error = self.back(self.rounded(scaled, params).astype(F64), scales) - weight
        return self.quadratic(error, gram).mean()

    def op_search_loss(self, params, inputs):
        loss = self.loss(inputs["weight"], inputs["gram"], inputs["channel_scales"], params)
        return {"loss": np.array(loss, dtype=F64)}

    def pick(self, losses):
        return np.argmin(losses, axis=0)

    def op_search_scales(self, params, inputs):
        weight, gram, a = (inputs[name] for name in ("weight", "gram", "act_mean_abs"))
        scales = [self.channel_scales(a, alpha, params["formula"]) for alpha in params["alphas"]]
        losses = np.array([self.loss(weight, gram, s, params) for s in scales], dtype=F64)
        return {"losses": losses, "choice": np.array(self.pick(losses), dtype=np.int64)}

    def op_search_clip(self, params, inputs):
        weight, gram = inputs["weight"], inputs["gram"]
        groups = self.split(weight, params)  # (O, G, size)
        one = {**params, "group_size": -1}
        losses = np.zeros((len(params["ratios"]), *groups.shape[:2]), dtype=F64)
        for g in range(groups.shape[1]):
            span = slice(g * groups.shape[2], (g + 1) * groups.shape[2])
            group = np.ascontiguousarray(groups[:, g])
            largest = self.group_extent(group)
            for r, ratio in enumerate(params["ratios"]):
                limit = (largest * F32(ratio))[:, None]
                error = self.rounded(np.clip(group, -limit, limit), one).astype(F64) - group
                losses[r, :, g] = self.quadratic(error, self.block_of(gram, span))
        return {"losses": losses, "choice": self.pick(losses).astype(np.int64)}

    def group_extent(self, group):
        return np.abs(group).max(axis=1)

    def block_of(self, gram, span):
        return gram[span, span]

    # ---- L5 ----

    def rms(self, x, weight, eps):
        x = x.astype(F64)
        return weight * x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)

    def op_rms_norm(self, params, inputs):
        return {"y": self.rms(inputs["x"], inputs["weight"], params["eps"])}

    def op_layer_norm(self, params, inputs):
        x = inputs["x"].astype(F64)
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + params["eps"])
        return {"y": scaled * inputs["weight"] + inputs["bias"]}

    def rope(self, x, positions, params, dim):
        """Turn x (T, heads, head_dim), of which the first dim channels turn."""
        told = {**params, "length": self.length_of(positions)}
        angles = positions.astype(F64)[:, None, None] * self.frequencies(told, dim)
        cos, sin = (self.attention_factor(params) * f(angles) for f in (np.cos, np.sin))
        y = x.astype(F64)
        first, second = self.pairs(params["pairing"], dim)
        a, b = x[..., first].astype(F64), x[..., second].astype(F64)
        y[..., first], y[..., second] = a * cos - b * sin, b * cos + a * sin
        return y

    def pairs(self, pairing, dim):
        if pairing == "half":
            return slice(0, dim // 2), slice(dim // 2, dim)
        return slice(0, dim, 2), slice(1, dim, 2)

    def op_rope(self, params, inputs):
        return {"y": self.rope(inputs["x"], inputs["positions"], params, params["rotary_dim"])}

    def head_of(self, h, heads, kv_heads):
        return h // (heads // kv_heads)

    def seen(self, t, tokens, columns, window):
        """The first column that token t sees, and the first after the last."""
        end = columns - tokens + t + 1
        return (max(0, end - window) if window else 0), end

    def capped(self, scores, cap):
        return cap * np.tanh(scores / cap) if cap else scores

    def softmax(self, scores):
        p = np.exp(scores - scores.max())
        return p / p.sum()

    def attend(self, q, k, v, scale, window=0, cap=0.0):
        y = np.zeros(q.shape, dtype=F64)
        for t, h in np.ndindex(q.shape[:2]):
            start, end = self.seen(t, len(q), len(k), window)
            kv = self.head_of(h, q.shape[1], k.shape[1])
            scores = scale * (k[start:end, kv].astype(F64) @ q[t, h])
            y[t, h] = self.softmax(self.capped(scores, cap)) @ v[start:end, kv]
        return y

    def op_attention(self, params, inputs):
        arrays = (inputs[name].astype(F64) for name in ("q", "k", "v"))
        return {"y": self.attend(*arrays, params["scale"], params["window"], params["cap"])}

    def act(self, x, kind):
        if kind == "silu":
            return x / (1 + np.exp(-x))
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def gated(self, gate, up, kind):
        return self.act(gate, kind) * up

    def op_gated_mlp(self, params, inputs):
        x, gate, up, down = (inputs[name].astype(F64) for name in ("x", "gate", "up", "down"))
        return {"y": self.gated(x @ gate.T, x @ up.T, params["activation"]) @ down.T}

    # ---- a block, a model ----

    def linear(self, name, inputs):
        if name in inputs:
            return inputs[name].astype(F64)
        parts = ("int_weight", "scales", "zero_point")
        return self.weight({part: inputs[f"{name}.{part}"] for part in parts}).astype(F64)

    def softmax_scale(self, head_dim):
        return 1 / np.sqrt(head_dim)

    def block(self, x, past, params, inputs, prefix=""):
        """Return the stream x (T, hidden) after the block, behind the cached (k, v), and the longer cache."""
        w = {n: self.linear(prefix + n, inputs) for n in ("q_proj", "k_proj", "v_proj", "o_proj")}
        n = self.rms(x, inputs[prefix + "input_layernorm"], params["eps"])
        dim = params["head_dim"]
        q, k, v = (self.by_head(n @ w[name].T, dim) for name in ("q_proj", "k_proj", "v_proj"))
        positions = self.first_position(len(past[0])) + np.arange(len(x), dtype=np.int64)
        q, k = self.rope(q, positions, params, dim), self.rope(k, positions, params, dim)
        keys, values = np.concatenate([past[0], k]), np.concatenate([past[1], v])
        mixed = self.attend(q, keys, values, self.softmax_scale(dim))
        x = x + mixed.reshape(len(x), -1) @ w["o_proj"].T
        n = self.rms(self.mlp_reads(x, n), inputs[prefix + "post_attention_layernorm"], params["eps"])
        gate, up, down = (self.linear(prefix + f"{m}_proj", inputs) for m in ("gate", "up", "down"))
        return x + self.gated(n @ gate.T, n @ up.T, params["activation"]) @ down.T, (keys, values)

    def by_head(self, x, dim):
        return x.reshape(len(x), -1, dim)

    def mlp_reads(self, stream, normed):
        return stream

    def first_position(self, past):
        return past

    def op_decoder_block(self, params, inputs):
        past = (inputs["cache_k"].astype(F64), inputs["cache_v"].astype(F64))
        return {"y": self.block(inputs["x"].astype(F64), past, params, inputs)[0]}

    def forward(self, ids, caches, params, inputs):
        x = inputs["embed_tokens"][self.rows_of(ids)].astype(F64)
        for layer in self.layer_order(params["layers"]):
            x, caches[layer] = self.block(x, caches[layer], params, inputs, f"layers.{layer}.")
        return self.final(x, params, inputs) @ self.head(inputs).astype(F64).T

    def rows_of(self, ids):
        return ids

    def layer_order(self, layers):
        return range(layers)

    def final(self, x, params, inputs):
        return self.rms(x, inputs["norm"], params["eps"])

    def head(self, inputs):
        return inputs["lm_head"]

    def no_cache(self, params):
        empty = np.zeros((0, params["kv_heads"], params["head_dim"]), dtype=F64)
        return [(empty, empty) for _ in range(params["layers"])]

    def op_model_logits(self, params, inputs):
        logits = self.forward(inputs["ids"], self.no_cache(params), params, inputs)
        return {"logits": logits, "top5": self.top(logits)}

    def top(self, logits):
        return np.argsort(-logits, axis=1, kind="stable")[:, :5].astype(np.int64)

    def op_model_generate(self, params, inputs):
        caches, tokens = self.no_cache(params), []
        logits = self.forward(inputs["ids"], caches, params, inputs)
        for _ in range(params["n_tokens"]):
            tokens.append(int(self.top(logits[-1:])[0, 0]))
            self.before_step(caches, tokens)
            logits = self.forward(np.array(tokens[-1:], dtype=np.int64), caches, params, inputs)
        return {"tokens": np.array(tokens, dtype=np.int64)}

    def before_step(self, caches, tokens):
        """What becomes of the cache between two tokens: nothing."""

    # ---- the backend ----

    def answer(self, request):
        operation = getattr(self, f"op_{request['op']}", None)
        if operation is None:
            raise NotImplementedError(request["op"])
        return operation(request["params"], request["inputs"])


def answer(request):
    return Textbook().answer(request)
