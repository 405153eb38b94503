"""All cases, made from their oracles.

MAKERS       level -> the function that yields its cases
make_cases   the cases of some levels
selected     those of some levels and layouts
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from awq_ref.vectors.case import Case
from awq_ref.vectors.cases_bits import bit_cases
from awq_ref.vectors.cases_blocks import block_cases
from awq_ref.vectors.cases_dequantize import dequantize_cases
from awq_ref.vectors.cases_matmul import matmul_cases
from awq_ref.vectors.cases_model import model_cases
from awq_ref.vectors.cases_quantize import quantize_cases
from awq_ref.vectors.cases_search import search_cases
from awq_ref.vectors.cases_whole import whole_cases


def _level_0() -> Iterator[Case]:
    yield from bit_cases()
    yield from block_cases()


MAKERS: dict[str, Callable[[], Iterator[Case]]] = {
    "L0": _level_0,
    "L1": dequantize_cases,
    "L2": quantize_cases,
    "L3": matmul_cases,
    "L4": search_cases,
    "L5": model_cases,
    "L6": whole_cases,
}


def make_cases(levels: Iterable[str] = tuple(MAKERS)) -> list[Case]:
    """Return the cases of these levels, computed anew: what the files must hold."""
    return [case for level in levels for case in MAKERS[level]()]


def selected(cases: Iterable[Case], levels: Sequence[str], layouts: Sequence[str]) -> list[Case]:
    """Return the cases of these levels and layouts; an empty sequence stands for all."""
    return [
        case
        for case in cases
        if (not levels or case.level in levels) and (not layouts or case.params.get("layout") in layouts)
    ]
