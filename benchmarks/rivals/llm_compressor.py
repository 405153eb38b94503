"""llm-compressor: a folder and windows of tokens -> the seconds of AWQ, INT4, asymmetric, by group.

The clock runs over `oneshot` alone: modules traced, inputs kept, scales searched and folded, the grid of every group
found. Imports, loading and saving are outside, and so is one run on the first window. What it does otherwise than ours:

- all tokens go through the module that reads the site, again for each of 20 alphas (0 without the weights' magnitudes,
  then 0 to 1 with them), and its output is compared; ours compares layers, on Gram matrices, for 11 alphas and 2 more;
- no clips; no scales for o_proj where v_proj has fewer outputs than it has inputs;
- integers and packing come when it saves: not timed.

Without an accelerator its cache still asks torch to pin memory, which fails: here pinning does nothing.
"""

import time
from importlib.metadata import version

import numpy as np
import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from result import options, report
from transformers import AutoModelForCausalLM

given = options()
torch.set_num_threads(given["threads"])
torch.Tensor.pin_memory = lambda tensor, *_: tensor
weights = {
    "num_bits": 4,
    "type": "int",
    "symmetric": False,
    "strategy": "group",
    "group_size": given["group_size"],
}
windows = torch.from_numpy(np.load(given["windows"]))
for ids in (windows[:1], windows):
    model = AutoModelForCausalLM.from_pretrained(given["folder"], dtype=getattr(torch, given["dtype"]))
    batches = [
        {"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids.split(given["batch"])
    ]
    recipe = [
        AWQModifier(),
        QuantizationModifier(
            ignore=["lm_head"], config_groups={"all": {"targets": ["Linear"], "weights": weights}}
        ),
    ]
    started = time.perf_counter()
    oneshot(
        model=model,
        dataset=torch.utils.data.DataLoader(batches, batch_size=None),
        recipe=recipe,
        num_calibration_samples=len(batches),
    )
    seconds = time.perf_counter() - started
report(seconds=seconds, versions={name: version(name) for name in ("llmcompressor", "transformers", "torch")})
