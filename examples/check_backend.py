"""Hold a backend of ten lines to the golden vectors: first right, then with a classic bug.

python examples/check_backend.py

The backend knows one operation, `dequantize`; to all others it answers that it does not. A program in another
language does the same over standard input: `awq-ref conform --cmd ./my_backend`, docs/conformance.md.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from awq_ref.errors import UnsupportedError
from awq_ref.vectors import Outcome, make_cases, run_cases
from awq_ref.vectors.backends import FunctionBackend
from awq_ref.vectors.protocol import Hello


def dequantize(inputs: Mapping[str, Any], group_size: int, zero_minus: int = 0) -> np.ndarray:
    """Return (q - z) * delta, every group with its own z and delta."""
    zero = np.repeat(inputs["zero_point"].astype(np.int32) - zero_minus, group_size, axis=1)
    step = np.repeat(inputs["scales"].astype(np.float32), group_size, axis=1)
    return (inputs["int_weight"].astype(np.int32) - zero).astype(np.float32) * step


def outcomes(zero_minus: int) -> list[Outcome]:
    """Ask the backend every case that `dequantize` has."""

    def answer(request: Mapping[str, Any]) -> dict[str, np.ndarray]:
        params, inputs = request["params"], request["inputs"]
        if "zero_point" not in inputs or "g_idx" in inputs:
            raise UnsupportedError("this backend knows neither offsets nor groups of arbitrary columns")
        largest = max(inputs["int_weight"].max(), inputs["zero_point"].max())
        if not np.isfinite(inputs["scales"]).all() or largest >= 2 ** params["bits"]:
            raise ValueError("a scale is not finite, or a code has too many bits")
        size = params["group_size"] if params["group_size"] != -1 else inputs["int_weight"].shape[1]
        return {"weight": dequantize(inputs, size, zero_minus).astype(params["weight_dtype"])}

    backend = FunctionBackend(answer, Hello("ten lines", "1"))
    return run_cases(backend, [case for case in make_cases() if case.op == "dequantize"])


if __name__ == "__main__":
    for title, minus in (("right", 0), ("zero point minus one", 1)):
        found = outcomes(minus)
        print(f"{title}: {dict(Counter(outcome.status for outcome in found))}")
        for outcome in [one for one in found if one.status == "failed"][:2]:
            print(f"  {outcome.case.id}: {outcome.message.splitlines()[0]}")
