"""Comparisons of arrays that say, when they fail, what one needs to know.

    assert_same_bits    dtype, shape and every bit (integers, packed words, stored scales)
    assert_close        dtype, shape and |actual - expected| <= bound, the bound derived where it is passed
    frozen              a copy that cannot be written to

A mismatch names the share of bad elements, the first and the worst index, and both values there.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def assert_same_bits(actual: NDArray[Any], expected: ArrayLike, *, dtype: Any = None) -> None:
    """Fail unless both arrays have one dtype, one shape and the same bytes: -0.0 is not 0.0, a NaN equals itself.

    `expected` may be a list: it is read in `dtype`, or in the dtype of `actual` where the test has checked that.
    """
    __tracebackhide__ = True
    wanted = (
        expected if isinstance(expected, np.ndarray) and dtype is None else _read(actual, expected, dtype)
    )
    _assert_same_form(actual, wanted)
    if actual.size == 0:
        return
    different = _byte_rows(actual) != _byte_rows(wanted)
    bad = different.any(axis=-1).reshape(actual.shape)
    if bad.any():
        raise AssertionError(_report("not the same bits", actual, wanted, bad, bad.astype(np.float64)))


def assert_close(
    actual: NDArray[Any], expected: ArrayLike, *, atol: ArrayLike = 0.0, rtol: float = 0.0
) -> None:
    """Fail unless |actual - expected| <= atol + rtol * |expected| in float64, element by element.

    No tolerance has a default: the test that passes one derives it. `expected` may be of a wider dtype than `actual`
    (an oracle in float64); shapes must agree. Two equal infinities are close; a NaN is close to nothing.
    """
    __tracebackhide__ = True
    wanted = np.asarray(expected)
    if actual.shape != wanted.shape:
        raise AssertionError(f"shape {actual.shape}, expected {wanted.shape}")
    wide_actual, wide_wanted = actual.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf: settled by the comparison for equality
        error = np.abs(wide_actual - wide_wanted)
        allowed = np.asarray(atol, dtype=np.float64) + rtol * np.abs(wide_wanted)
        bad = ~((error <= allowed) | (wide_actual == wide_wanted))
        excess = np.nan_to_num(error - allowed, nan=np.inf, posinf=np.inf)
    if bad.any():
        raise AssertionError(
            _report("not close", actual, wanted, bad, np.where(bad, excess, -np.inf), allowed)
        )


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that raises when written to: a function that takes it cannot change its input unseen."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _read(actual: NDArray[Any], expected: ArrayLike, dtype: Any) -> NDArray[Any]:
    return np.asarray(expected, dtype=actual.dtype if dtype is None else dtype)


def _assert_same_form(actual: NDArray[Any], wanted: NDArray[Any]) -> None:
    __tracebackhide__ = True
    if actual.dtype != wanted.dtype:
        raise AssertionError(f"dtype {actual.dtype}, expected {wanted.dtype}")
    if actual.shape != wanted.shape:
        raise AssertionError(f"shape {actual.shape}, expected {wanted.shape}")


def _byte_rows(array: NDArray[Any]) -> NDArray[np.uint8]:
    contiguous = np.ascontiguousarray(array).reshape(-1)
    return contiguous.view(np.uint8).reshape(array.size, array.itemsize)


def _report(
    what: str,
    actual: NDArray[Any],
    wanted: NDArray[Any],
    bad: NDArray[np.bool_],
    badness: NDArray[np.float64],
    allowed: ArrayLike | None = None,
) -> str:
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(badness)), bad.shape))
    lines = [
        f"{what}: {int(bad.sum())} of {bad.size} elements ({bad.mean():.1%}), {actual.dtype} {actual.shape}"
    ]
    for name, index in (("first", first), ("worst", worst)):
        line = f"{name} at {index}: got {actual[index]!r}, expected {wanted[index]!r}"
        if allowed is not None:
            bound = np.broadcast_to(np.asarray(allowed), bad.shape)[index]
            error = abs(float(actual[index]) - float(wanted[index]))
            line += f", apart by {error:.3e}, allowed {bound:.3e}"
        lines.append(line)
    return "\n  ".join(lines)
