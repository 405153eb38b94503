"""One block of a decoder: attention and MLP, each added to the stream, with norms where the family has them.

    Block               norms and linears of one layer
    arithmetic          the circumstances
    normed              x -> what a norm of the block makes of it, if the family has one at that place
    add_branch          the stream plus what a module made
    attention_forward   normalized x -> output of the attention
    mlp_input           what the MLP reads
    mlp_forward         normalized x -> output of the MLP
    block_forward       the whole block

A linear is whatever maps an array to an array (`spec.LinearOperator`): float, packed, or a wrapper that
records what comes in. q_proj, k_proj and v_proj receive the same array object, and so do gate_proj and
up_proj, unless they are parts of one product (`joined`). An array that a linear has returned is never written to.

Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2; Shazeer 2020, arXiv:2002.05202 (gated MLP).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from awq_ref.dtypes import F32
from awq_ref.model.attention import Scores, attention
from awq_ref.model.config import ModelConfig
from awq_ref.model.context import Context
from awq_ref.model.experts import mixture
from awq_ref.model.family import Place
from awq_ref.model.joined import project
from awq_ref.model.ops import ACTIVATIONS, apply_norm
from awq_ref.model.rope import apply_rope
from awq_ref.spec import LinearOperator
from awq_ref.threads import blas_on_one_thread, default_threads, run_in_shares

# Where a module's output is added -> the norm of the sum, in families that have one.
STREAM_NORMS: dict[Place, Place] = {
    "after_attention": "stream_after_attention",
    "after_mlp": "stream_after_mlp",
}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
THREADED_NUMBERS = 2**18  # fewer are normed or turned before a second thread has started
GATE_TILE = 2**16  # elements of the MLP's gate that are worked on at a time: 256 KiB


@dataclass
class Block:
    """The parts of one layer.

    norms   : name below the layer ("input_layernorm") -> float32 (its size,), what the norm multiplies by: where a
              checkpoint stores the distance from 1 (`Family.norm_offset`), 1 has been added; and what it adds, under
              "input_layernorm.bias", in families whose norms have biases
    linears : name below the layer ("self_attn.q_proj") -> operator; replace entries to watch their inputs
    """

    norms: dict[str, F32]
    linears: dict[str, LinearOperator]


@contextmanager
def arithmetic() -> Iterator[None]:
    """How blocks compute: on our threads, in silence.

    BLAS starts no threads of its own, which would go on spinning beside ours. NumPy does not warn of overflow: who
    reads the results looks for inf and NaN, and raises (`greedy`, perplexity, calibration).
    """
    # overflow: of activations, of exponentials; it reaches the reader as inf or NaN
    with blas_on_one_thread(), np.errstate(over="ignore", invalid="ignore"):
        yield


def _in_shares(work: Callable[[int, int], None], rows: int, size: int) -> None:
    """Call work(start, stop) on shares of rows that hold `size` numbers together, on threads if those are many."""
    run_in_shares(work, rows, n_threads=default_threads() if size >= THREADED_NUMBERS else 1)


def _turn(x: F32, config: ModelConfig, context: Context, *, out: F32) -> None:
    """Turn queries or keys (B, T, G, R, D) by their positions, into out; copy them in a layer without rope."""
    if not config.has_rope(context.layer):
        out[...] = x
        return
    near = context.near if config.window(context.layer) else None
    cos, sin = near or (context.cos, context.sin)

    def some_tokens(start: int, stop: int) -> None:
        here = np.s_[:, start:stop]
        apply_rope(x[here], cos[here], sin[here], out=out[here], neighbours=config.rope.neighbours)

    _in_shares(some_tokens, x.shape[1], x.size)


def _keys_and_values(k: F32, v: F32, config: ModelConfig, context: Context) -> tuple[F32, F32]:
    """Turn the new keys, put both into the cache if there is one; return the columns seen, (B, G, S, D) each."""
    B, T, G, _, D = k.shape
    if context.cache is None:
        keys, values = np.empty((B, G, T, D), dtype=np.float32), v.transpose(0, 2, 1, 3)
        new_keys = keys
    else:
        keys, values = context.cache.columns(context.layer, T)
        new_keys = keys[:, :, -T:]
        values[:, :, -T:] = v.transpose(0, 2, 1, 3)
    _turn(k, config, context, out=new_keys.transpose(0, 2, 1, 3)[:, :, :, None])
    return keys, values


def normed(x: F32, block: Block, config: ModelConfig, place: Place) -> F32:
    """Return x after the block's norm at a place; x itself where the family has none there.

    Equation [LLM-7]  queries and keys: y = rms_norm over the norm's own width, one head or all of them
        x -> x    (..., n * width), the norm's weight (width,)
    Source: Henry et al. 2020, arXiv:2010.04245; docs/equations.md#llm-7.
    """
    name = config.family.norm_at(place)
    if name is None:
        return x
    weight, bias = block.norms[name], block.norms.get(f"{name}.bias")
    parts = x.reshape(-1, len(weight))  # of a token one, or one for each head
    y = np.empty(parts.shape, dtype=np.float32)

    def some_parts(start: int, stop: int) -> None:
        here = slice(start, stop)
        apply_norm(config.family.norm, parts[here], weight, bias, eps=config.rms_norm_eps, out=y[here])

    _in_shares(some_parts, len(parts), x.size)
    return y.reshape(x.shape)


def add_branch(stream: F32, y: F32, block: Block, config: ModelConfig, place: Place) -> F32:
    """Return the stream plus what a module made of it, a new array.

    Equation [LLM-8]  x <- norm'(x + r norm(y)),    norm, norm': only where the family has one there
        x -> stream    (..., hidden_size)
        r -> config.residual_multiplier
    Source: docs/equations.md#llm-8.
    """
    more = normed(y, block, config, place)
    stream = stream + (more if config.residual_multiplier == 1.0 else more * config.residual_multiplier)
    return normed(stream, block, config, STREAM_NORMS[place])


def _clipped(x: F32, config: ModelConfig) -> F32:
    """Return queries, keys or values, cut off at clip_qkv where the configuration has one [LLM-3]."""
    return x.clip(-config.clip_qkv, config.clip_qkv) if config.clip_qkv else x


def attention_forward(x: F32, block: Block, config: ModelConfig, context: Context) -> F32:
    """Return the output of the attention, before it is added to the stream.

    Parameters
    ----------
    x : float32 array, shape (batch, tokens, hidden_size)
        The normalized stream.

    Returns
    -------
    y : float32 array, shape (batch, tokens, hidden_size)
    """
    # B texts, T new tokens, G key-value heads, R query heads per key-value head, D head_dim
    B, T, _ = x.shape
    G, R, D = config.num_key_value_heads, config.queries_per_key, config.head_dim
    q, k, v = (_clipped(y, config) for y in project(x, block.linears, QKV))
    q = normed(q, block, config, "query").reshape(B, T, G, R, D)
    k = normed(k, block, config, "key").reshape(B, T, G, 1, D)
    v = v.reshape(B, T, G, D)
    keys, values = _keys_and_values(k, v, config, context)  # (B, G, S, D)
    turned = np.empty((B, G, T, R, D), dtype=np.float32)
    _turn(q, config, context, out=turned.transpose(0, 2, 1, 3, 4))
    scores = Scores(
        config.score_scale(context.layer), config.attn_logit_softcapping, config.window(context.layer)
    )
    padding, alibi = (
        None if bias is None else bias[..., -keys.shape[2] :] for bias in (context.padding, context.alibi)
    )
    mixed = attention(turned, keys, values, scores=scores, padding=padding, alibi=alibi)
    return block.linears["self_attn.o_proj"](mixed.reshape(B, T, G * R * D))  # mixed (B, T, G, R, D)


def mlp_input(stream: F32, before: F32, entered: F32, block: Block, config: ModelConfig) -> F32:
    """Return what the MLP reads: the normed stream after the attention; in parallel blocks, the stream before it.

    Equation [LLM-8]  n_3(x), x the stream after the attention;  parallel: n_3(x), x the stream before it, or, without
        an n_3,  u = n_1(x)
        x -> stream; before
        u -> entered
    Source: docs/equations.md#llm-8.
    """
    if config.family.parallel and config.family.norm_at("before_mlp") is None:
        return entered
    return normed(before if config.family.parallel else stream, block, config, "before_mlp")


def mlp_forward(x: F32, block: Block, config: ModelConfig) -> F32:
    """Return the output of the MLP, or of a mixture of them [LLM-15], before it is added to the stream.

    Equation [LLM-4]  y = W_down (act(W_gate x) * (W_up x)),  without a gate  y = W_down act(W_up x)
        W_down, W_gate, W_up -> block.linears, by the names of `Family.mlp`
        act                  -> config.hidden_act
    Source: Shazeer 2020, arXiv:2002.05202, eq. 6; docs/equations.md#llm-4.

    Parameters
    ----------
    x : float32 array, shape (..., hidden_size)
        The normalized stream.

    Returns
    -------
    y : float32 array, shape (..., hidden_size)
    """
    experts = config.family.experts
    if experts is None or experts.router not in block.linears:
        return _mlp(x, block, config, config.family.mlp)
    return mixture(
        x,
        block.linears[experts.router],
        lambda expert, tokens: _mlp(tokens, block, config, experts.of(expert)),
        top_k=config.num_experts_per_tok,
        normalized=config.norm_topk_prob,
    )


def _mlp(x: F32, block: Block, config: ModelConfig, names: tuple[str, str, str]) -> F32:
    """Return the output of the MLP made of these linears: gate, up, down."""
    activation = ACTIVATIONS[config.hidden_act]
    gate_proj, up_proj, down_proj = names
    *gates, up = project(x, block.linears, (gate_proj, up_proj) if gate_proj else (up_proj,))
    gate = gates[0] if gates else up  # (..., intermediate_size)
    gated = np.empty(gate.shape, dtype=np.float32)
    width = gate.shape[-1]
    rows_of_gate, rows_of_up, rows = (
        y.reshape(-1, width) for y in (gate, up, gated)
    )  # views, (tokens, width)
    step = max(1, GATE_TILE // width)

    def one_share(start: int, stop: int) -> None:
        for first in range(start, stop, step):  # a tile at a time, so that it stays in a core's cache
            tile = slice(first, min(first + step, stop))
            part = activation(rows_of_gate[tile], out=rows[tile])
            if gates:
                part *= rows_of_up[tile]

    n_threads = default_threads() if len(rows) > step else 1
    run_in_shares(one_share, len(rows), n_threads=n_threads, multiple=step)
    return block.linears[down_proj](gated)


def block_forward(x: F32, block: Block, config: ModelConfig, context: Context) -> F32:
    """Return the stream after the block; x itself is not written to.

    Parameters
    ----------
    x : float32 array, shape (batch, tokens, hidden_size)
    context : Context
        From `make_context`, `at_layer` of this block.

    Returns
    -------
    y : float32 array, shape (batch, tokens, hidden_size)
    """
    entered = normed(x, block, config, "before_attention")
    y = attention_forward(entered, block, config, context)
    stream = add_branch(x, y, block, config, "after_attention")
    y = mlp_forward(mlp_input(stream, x, entered, block, config), block, config)
    return add_branch(stream, y, block, config, "after_mlp")
