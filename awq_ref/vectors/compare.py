"""Judging an answer: the three rules, and what a person wants to know of a difference.

    compare_outputs   outputs of a backend, and a case -> None, or what is wrong
    ulps_between      how many representable numbers lie between

Source: docs/conformance.md#a-case.
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import F64, AnyArray, Bool
from awq_ref.vectors.case import Case, Expected

FLOATS = ("float16", "float32", "float64")
WIDTHS = {"float16": "int16", "float32": "int32", "float64": "int64"}


def _steps(array: AnyArray) -> F64:
    """Number the floats of a format in their order: neighbours differ by 1, both zeros are 0."""
    width = WIDTHS[array.dtype.name]
    bits = np.ascontiguousarray(array).view(width).astype(np.float64)
    lowest = float(np.iinfo(np.dtype(width)).min)
    return np.where(bits < 0, lowest - bits, bits)


def ulps_between(a: AnyArray, b: AnyArray) -> F64:
    """Return how many steps of their float format lie between two arrays.

    Examples
    --------
    >>> ulps_between(np.float16([1.0, -0.0]), np.float16([1.0009765625, 0.0])).tolist()
    [1.0, 0.0]
    """
    return np.abs(_steps(a) - _steps(b))


def _misses(answer: AnyArray, expected: Expected) -> Bool:
    """Return where an answer of the right shape is not what it must be."""
    if expected.rule == "exact":
        return np.asarray(~(answer == expected.array))
    if expected.rule == "ulp":
        with np.errstate(invalid="ignore"):  # NaN is no number of steps away from anything
            return np.asarray(~(ulps_between(answer, expected.array) <= expected.ulps) | np.isnan(answer))
    assert expected.bound is not None
    with np.errstate(invalid="ignore"):  # an infinite answer: the comparison is false, as it must be
        return np.asarray(~(np.abs(answer.astype(np.float64) - expected.array) <= expected.bound))


def _one(array: AnyArray, index: tuple[int, ...]) -> str:
    value = array[index]
    if array.dtype.kind in "iu":
        width = array.dtype.itemsize * 8
        return (
            f"{int(value)}"
            if abs(int(value)) < 256
            else f"{int(value)} (0x{int(value) % 2**width:0{width // 4}x})"
        )
    return f"{float(value):.9g}"


def _describe(name: str, answer: AnyArray, expected: Expected, misses: Bool) -> str:
    places = np.argwhere(misses)
    first = tuple(int(i) for i in places[0])
    text = (
        f"{name}: {len(places)} of {answer.size} elements differ; first at {list(first)}: expected "
        f"{_one(expected.array, first)}, got {_one(answer, first)}"
    )
    if expected.rule == "ulp":
        return f"{text}; allowed {expected.ulps} ulps"
    if expected.bound is not None:
        with np.errstate(
            invalid="ignore", over="ignore"
        ):  # only to say how far: NaN counts as infinitely far
            off = np.abs(answer.astype(np.float64) - expected.array) / np.maximum(expected.bound, 1e-300)
        worst = float(np.nan_to_num(off, nan=np.inf, posinf=np.inf).max())
        return f"{text}; allowed {float(expected.bound[first]):.3g}; worst {worst:.3g} times the bound"
    return text


def compare_output(name: str, answer: AnyArray, expected: Expected) -> str | None:
    """Return what is wrong with one output, or None."""
    wanted = FLOATS if expected.rule == "bound" else (expected.array.dtype.name,)
    if answer.dtype.name not in wanted:
        return f"{name}: dtype must be {' or '.join(wanted)}; got {answer.dtype.name}"
    if answer.shape != expected.array.shape:
        return f"{name}: shape must be {list(expected.array.shape)}; got {list(answer.shape)}"
    misses = _misses(answer, expected)
    return _describe(name, answer, expected, misses) if misses.any() else None


def compare_outputs(outputs: Mapping[str, AnyArray], case: Case) -> str | None:
    """Return what is wrong with the answer to a case, or None: names, dtypes, shapes, then values."""
    missing = sorted(set(case.expected) - set(outputs))
    unknown = sorted(set(outputs) - set(case.expected))
    if missing or unknown:
        return f"outputs must be {', '.join(case.expected)}; missing: {missing or 'none'}; unknown: {unknown or 'none'}"
    wrong = [compare_output(name, outputs[name], expected) for name, expected in case.expected.items()]
    return "; ".join(text for text in wrong if text) or None
