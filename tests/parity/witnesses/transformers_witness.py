"""torch and transformers: the operators of a decoder, and a whole Llama with the vectors' weights."""

from importlib.metadata import version

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

NAME, VERSION = "transformers", version("transformers")
functional = torch.nn.functional


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


def rms_norm(params, inputs):
    norm = LlamaRMSNorm(len(inputs["weight"]), params["eps"])
    norm.weight.data = tensor(inputs["weight"])
    return {"y": norm(tensor(inputs["x"]))}


def layer_norm(params, inputs):
    x, weight, bias = (tensor(inputs[n]) for n in ("x", "weight", "bias"))
    return {"y": functional.layer_norm(x, weight.shape, weight, bias, params["eps"])}


def rope(params, inputs):
    if params["pairing"] != "half" or params["rotary_dim"] != inputs["x"].shape[2]:
        raise NotImplementedError("other pairs, part of a head")
    other = {"theta", "rotary_dim", "pairing"}
    parameters = {name: value for name, value in params.items() if name not in other}
    original = params.get("original_max_position_embeddings", 2048)
    is_dynamic = params["rope_type"] == "dynamic"  # whose original length is the model's
    config = LlamaConfig(
        head_dim=params["rotary_dim"],
        max_position_embeddings=original if is_dynamic else int(original * params.get("factor", 1.0)),
        rope_parameters={"rope_theta": params["theta"], **parameters},
    )
    x = tensor(inputs["x"]).transpose(0, 1)[None]  # (1, heads, tokens, head_dim)
    cos, sin = LlamaRotaryEmbedding(config)(x, tensor(inputs["positions"])[None])
    return {"y": apply_rotary_pos_emb(x, x, cos, sin)[0][0].transpose(0, 1)}


def attention(params, inputs):
    if params["cap"]:
        raise NotImplementedError("cap")
    q, k, v = (tensor(inputs[n]).transpose(0, 1)[None] for n in ("q", "k", "v"))
    tokens, columns = q.shape[2], k.shape[2]
    own, keys = torch.arange(columns - tokens, columns)[:, None], torch.arange(columns)[None, :]
    seen = (keys <= own) & (keys > own - params["window"] if params["window"] else keys >= 0)
    y = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, scale=params["scale"], enable_gqa=True
    )
    return {"y": y[0].transpose(0, 1)}


def gated_mlp(params, inputs):
    x, gate, up, down = (tensor(inputs[n]) for n in ("x", "gate", "up", "down"))
    gated = x @ gate.T
    act = (
        functional.silu(gated)
        if params["activation"] == "silu"
        else functional.gelu(gated, approximate="tanh")
    )
    return {"y": (act * (x @ up.T)) @ down.T}


def float_weight(name, inputs):
    if name in inputs:
        return tensor(inputs[name])
    codes, scales, zeros = (inputs[f"{name}.{part}"] for part in ("int_weight", "scales", "zero_point"))
    size = codes.shape[1] // scales.shape[1]
    steps = codes.astype(np.float32) - zeros.repeat(size, axis=1)
    return tensor(steps * scales.astype(np.float32).repeat(size, axis=1))


def llama(params, inputs):
    config = LlamaConfig(
        vocab_size=params["vocab_size"],
        hidden_size=params["hidden_size"],
        intermediate_size=params["intermediate_size"],
        num_hidden_layers=params["layers"],
        num_attention_heads=params["heads"],
        num_key_value_heads=params["kv_heads"],
        head_dim=params["head_dim"],
        rms_norm_eps=params["eps"],
        rope_parameters={"rope_type": "default", "rope_theta": params["theta"]},
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    state = {}
    for name in model.state_dict():
        short = name.removesuffix(".weight").removeprefix("model.")
        state[name] = float_weight(short.replace("self_attn.", "").replace("mlp.", ""), inputs)
    model.load_state_dict(state)
    return model


def model_logits(params, inputs):
    logits = llama(params, inputs)(tensor(inputs["ids"])[None]).logits[0]
    return {"logits": logits, "top5": logits.topk(5, dim=1).indices}


def model_generate(params, inputs):
    ids = tensor(inputs["ids"])[None]
    text = llama(params, inputs).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=params["n_tokens"],
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return {"tokens": text[0, ids.shape[1] :]}


OPS = {
    f.__name__: f for f in (rms_norm, layer_norm, rope, attention, gated_mlp, model_logits, model_generate)
}


def answer(request):
    if request["op"] not in OPS:
        raise NotImplementedError(request["op"])
    with torch.no_grad():
        outputs = OPS[request["op"]](request["params"], request["inputs"])
    return {name: array.numpy() for name, array in outputs.items()}
