"""The alpha search on Gram matrices against the same search by running the module on the calibration tokens.

python benchmarks/gram_vs_module.py [--quick]

One Llama-like block of random weights with a few large channels in its norms; both searches judge the same alphas
with the same quantizer, site after site, in one run. Printed per site: seconds (the Gram column includes forming the
matrix), their ratio, both chosen alphas, and what the choice made on the Gram matrix costs when the module judges it.

Where the module is the layer itself (o_proj, down_proj) both judges compute one number, and the alphas must be equal:
the run fails otherwise. For q, k, v and gate, up the module sees softmax and gate as well, so it may choose another
alpha; the last column says how much that matters.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

from awq_ref.calibration import SiteStatistics
from awq_ref.matmul import DenseLinear
from awq_ref.model import Block, ModelConfig, attention_forward, make_context, mlp_forward
from awq_ref.model.ops import rms_norm
from awq_ref.quantize import pseudo_quantize
from awq_ref.search import (
    GramObjective,
    ModuleObjective,
    ScaleGroup,
    ScaleSearch,
    plan_for,
    search_channel_scales,
)
from awq_ref.spec import QuantSpec

ALPHAS = tuple(i / 20 for i in range(21))
SPEC = QuantSpec(bits=4, group_size=128)
SIZES = {"hidden": 1024, "inner": 2816, "heads": 16, "kv_heads": 4, "windows": 8, "seq": 512}
QUICK = {"hidden": 256, "inner": 768, "heads": 8, "kv_heads": 4, "windows": 16, "seq": 256}
Array = np.ndarray
T = TypeVar("T")


def llama_config(sizes: Mapping[str, int]) -> ModelConfig:
    return ModelConfig.from_json(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": sizes["hidden"],
            "intermediate_size": sizes["inner"],
            "num_hidden_layers": 1,
            "num_attention_heads": sizes["heads"],
            "num_key_value_heads": sizes["kv_heads"],
            "vocab_size": 256,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "max_position_embeddings": sizes["seq"],
            "hidden_act": "silu",
        }
    )


def random_weights(sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, Array]:
    hidden, inner = sizes["hidden"], sizes["inner"]
    kv = hidden // sizes["heads"] * sizes["kv_heads"]
    shapes = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden)}
    names = {f"self_attn.{name}_proj": shape for name, shape in shapes.items()}
    names |= {f"mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
    names["mlp.down_proj"] = (hidden, inner)
    return {n: rng.standard_normal(s, dtype=np.float32) * (s[1] ** -0.5) for n, s in names.items()}


class Bench:
    """A block, the inputs of its modules, and what its linear layers read."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        rng = np.random.default_rng(0)
        self.config = llama_config(sizes)
        self.weights = random_weights(sizes, rng)
        self.context = make_context(self.config, sizes["seq"])
        x = rng.standard_normal((sizes["windows"], sizes["seq"], sizes["hidden"]), dtype=np.float32)
        norm = np.ones(sizes["hidden"], dtype=np.float32)
        norm[rng.choice(len(norm), len(norm) // 64, replace=False)] = 16.0  # outlier channels
        self.module_input = {"self_attn": rms_norm(x, norm, eps=1e-5)}
        y = x + np.concatenate(list(self.run("self_attn", {})))
        self.module_input["mlp"] = rms_norm(y, norm, eps=1e-5)
        self.layer_input: dict[str, list[Array]] = {}
        for module in ("self_attn", "mlp"):
            self._record(module)

    def block(self, replaced: Mapping[str, Array]) -> Block:
        return Block({}, {n: DenseLinear(replaced.get(n, w)) for n, w in self.weights.items()})

    def _forward(self, module: str, x: Array, block: Block) -> Array:
        if module == "self_attn":
            return attention_forward(x, block, self.config, self.context)
        return mlp_forward(x, block, self.config)

    def run(self, module: str, replaced: Mapping[str, Array]):
        """Yield a module's outputs, window by window, with some weights replaced."""
        block = self.block(replaced)
        for window in self.module_input[module]:
            yield self._forward(module, window[None], block)

    def run_layer(self, name: str, replaced: Mapping[str, Array]):
        """Yield the outputs of one linear layer."""
        weight = replaced.get(name, self.weights[name])
        for x in self.layer_input[name]:
            yield x @ weight.T

    def _record(self, module: str) -> None:
        """Keep what the last layer of a module reads."""
        name = {"self_attn": "self_attn.o_proj", "mlp": "mlp.down_proj"}[module]
        block, kept = self.block({}), []
        inner = block.linears[name]

        class Recorder:
            in_features, out_features, resident_bytes = inner.in_features, inner.out_features, 0

            def __call__(self, x: Array) -> Array:
                kept.append(x.copy())
                return inner(x)

        block.linears[name] = Recorder()
        for window in self.module_input[module]:
            self._forward(module, window[None], block)
        self.layer_input[name] = kept

    def inputs(self, group: ScaleGroup) -> Array:
        if group.judged_itself:
            return np.concatenate(self.layer_input[group.judged])
        return self.module_input[group.judged]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def compare(bench: Bench, group: ScaleGroup) -> tuple[str, bool]:
    """Return a row of the table, and whether the alphas agree where they must."""
    weights = {name: bench.weights[name] for name in group.consumers}
    quantizer = partial(pseudo_quantize, spec=SPEC)
    x = bench.inputs(group)

    def on_gram() -> ScaleSearch:
        statistics = SiteStatistics.from_inputs(x)
        objective = GramObjective(list(weights.values()), statistics, quantizer)
        return search_channel_scales(objective, statistics.act_mean_abs, alphas=ALPHAS)

    run = partial(bench.run_layer if group.judged_itself else bench.run, group.judged)
    gram, gram_seconds = timed(on_gram)
    mean_abs = np.abs(x.reshape(-1, x.shape[-1])).mean(axis=0)

    def on_module() -> ScaleSearch:
        return search_channel_scales(ModuleObjective(weights, run, quantizer), mean_abs, alphas=ALPHAS)

    module, module_seconds = timed(on_module)
    cost = module.losses[ALPHAS.index(gram.alpha)] / module.loss
    cells = [
        group.site,
        f"{gram_seconds:.2f}",
        f"{module_seconds:.2f}",
        f"{module_seconds / gram_seconds:.1f}",
        f"{gram.alpha:.2f}",
        f"{module.alpha:.2f}",
        f"{module.loss / module.loss_rtn:.3f}",
        f"{cost:.4f}",
    ]
    return "| " + " | ".join(cells) + " |", not group.judged_itself or gram.alpha == module.alpha


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small block: a few seconds")
    sizes = QUICK if parser.parse_args().quick else SIZES
    bench = Bench(sizes)
    print(", ".join(f"{name} {value}" for name, value in sizes.items()), f"({len(ALPHAS)} alphas)\n")
    print(
        "| site | Gram s | module s | ratio | Gram alpha | module alpha | module: best / RTN | Gram's / best |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for group in plan_for("llama"):
        row, agree = compare(bench, group)
        print(row, flush=True)
        if not agree:
            raise SystemExit(f"{group.site}: both judges compute one number, yet they chose different alphas")


if __name__ == "__main__":
    main()
