"""AutoAWQ: a folder and windows of tokens -> the seconds of AWQ, INT4, with zero points, by group.

The clock runs over `quantize` alone, told to leave integers and packing for later (`export_compatible`): inputs caught,
scales searched and folded, clips found. Loading is outside, and so is one run on the first window. What it does
otherwise than ours:

- all tokens go through the module that reads the site, again for each of 20 alphas, and its output is compared; ours
  compares layers, on Gram matrices, for 11 alphas and 2 more;
- 10 clips per row and group on 512 tokens, by elementwise products; q and k are left out;
- no scales for o_proj where v_proj has another shape than it;
- on a CPU the search's copies of the weights are none (`.cpu()`), so the first candidate's scales stay in them: columns
  of q_proj times its norm came out at 0.71 to 1.42 of what they were. The time is that of the search, the model is not
  one to compare.
"""

import time
from importlib.metadata import version

import numpy as np
import torch
from awq import AutoAWQForCausalLM
from result import options, report

given = options()
torch.set_num_threads(given["threads"])
windows = np.load(given["windows"])
config = {"zero_point": True, "q_group_size": given["group_size"], "w_bit": 4, "version": "GEMM"}
for ids in (windows[:1], windows):
    model = AutoAWQForCausalLM.from_pretrained(
        given["folder"], torch_dtype=getattr(torch, given["dtype"]), device_map="cpu"
    )
    started = time.perf_counter()
    model.quantize(
        None,
        quant_config=config,
        calib_data=ids.tolist(),
        max_calib_samples=len(ids),
        max_calib_seq_len=ids.shape[1],
        export_compatible=True,
    )
    seconds = time.perf_counter() - started
report(seconds=seconds, versions={name: version(name) for name in ("autoawq", "transformers", "torch")})
