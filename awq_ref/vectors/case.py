"""A golden case: what is asked of a backend, and how its answer is judged.

    Expected    one output: an array and the rule by which an answer is compared with it
    Case        one question with its answers
    exact, within_ulps, within_bound    the three rules

Source: docs/conformance.md#a-case.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from awq_ref.dtypes import F64, AnyArray

LEVELS = ("L0", "L1", "L2", "L3", "L4", "L5", "L6")
FIRST_VERSION = "1.0"


@dataclass(frozen=True)
class Expected:
    """One output of a case.

    array : what is right
    rule  : "exact", "ulp" or "bound"
    ulps  : representable numbers between, at most; for "ulp"
    bound : float64 of the array's shape, the largest allowed |answer - array|; for "bound"
    why   : how the bound was derived, and what it admits
    """

    array: AnyArray
    rule: str = "exact"
    ulps: int = 0
    bound: F64 | None = None
    why: str = ""


def exact(values: Any, dtype: str) -> Expected:
    """Return an output that must be met bit for bit."""
    return Expected(np.array(values, dtype=dtype))


def within_ulps(values: Any, dtype: str, ulps: int, why: str) -> Expected:
    """Return an output that may be so many representable numbers away."""
    return Expected(np.array(values, dtype=dtype), "ulp", ulps=ulps, why=why)


def within_bound(values: Any, bound: Any, why: str) -> Expected:
    """Return an output with a bound on the error of each element."""
    array = np.array(values, dtype=np.float64)
    return Expected(array, "bound", bound=np.array(bound, dtype=np.float64).reshape(array.shape), why=why)


@dataclass(frozen=True)
class Case:
    """One question: docs/conformance.md says what the fields mean.

    bundle, inline : a .safetensors file that holds its inputs, and the inputs that stand in the JSON nevertheless
    """

    id: str
    params: Mapping[str, Any]
    inputs: Mapping[str, AnyArray]
    expected: Mapping[str, Expected]
    comment: str
    source: str
    flags: tuple[str, ...] = ()
    since: str = FIRST_VERSION
    bundle: str = ""
    inline: tuple[str, ...] = ()
    op: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "op", self.id.split("/")[1])

    @property
    def level(self) -> str:
        return self.id.split("/")[0]

    @property
    def is_valid(self) -> bool:
        """False where a backend must refuse the inputs."""
        return bool(self.expected)
