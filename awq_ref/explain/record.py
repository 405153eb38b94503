"""Every number that the page shows, of one row and one group of a layer, at every alpha that the search tried.

layer_record   Subject -> a dict of plain numbers and texts

float32 numbers become the shortest decimals that read back as the same float32 number.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from awq_ref.dtypes import F32, F64, I64, U8
from awq_ref.errors import RangeError
from awq_ref.explain.subject import WHO, Subject, Trial
from awq_ref.explain.words import Holding, holdings, tile_of, word_values
from awq_ref.matmul.planes import block_size, pack_planes
from awq_ref.matmul.reference import matmul_reference, packed_matmul_reference
from awq_ref.quantize import dequantize, dequantize_linear, group_range, pseudo_quantize, quantize_linear
from awq_ref.search import LinearFold, row_losses
from awq_ref.spec import QuantizedLinear

MASK = 0x0F


def _decimals(array: F32 | F64) -> list[float]:
    """Return the shortest decimals that stand for these numbers."""
    return [float(str(value)) for value in array.ravel()]


def _decimal(value: Any) -> float:
    return float(str(np.float32(value)))


@dataclass(frozen=True)
class _View:
    """The row and the group that are looked at."""

    subject: Subject
    row: int
    inputs: range
    held: list[Holding]

    @property
    def columns(self) -> slice:
        return slice(self.inputs.start, self.inputs.stop)

    @property
    def tile(self) -> slice:
        return tile_of(self.row, len(self.subject.weight))


def _losses(subject: Subject, trial: Trial, rows: slice = slice(None)) -> F64:
    """Return the loss of every row with the scales of one alpha."""
    quantizer = partial(pseudo_quantize, spec=subject.spec)
    fold = LinearFold(columns=trial.channel_scales)
    return row_losses(subject.weight[rows], fold, subject.statistics, quantizer)


def loudest_group(subject: Subject) -> range:
    """Return the inputs of the group with the largest mean |x|."""
    size = len(subject.token) if subject.spec.group_size == -1 else subject.spec.group_size
    first = int(np.argmax(subject.statistics.act_mean_abs)) // size * size
    return range(first, first + size)


def _loud_error(subject: Subject, trial: Trial) -> F32:
    """Return |error| of the loudest input's weight in every row, with the scales of one alpha."""
    group = loudest_group(subject)
    columns = slice(group.start, group.stop)
    fold = LinearFold(columns=trial.channel_scales[columns])
    weight = np.ascontiguousarray(subject.weight[:, columns])
    error = pseudo_quantize(fold.apply(weight), spec=subject.spec) / trial.channel_scales[columns] - weight
    loud: F32 = np.abs(error[:, int(np.argmax(subject.statistics.act_mean_abs[columns]))])
    return loud


def _ranks(after: F32 | F64, before: F32 | F64) -> I64:
    """Return the rank of every row by after / before; 1 where nothing was lost before."""
    share = np.divide(after, before, out=np.ones_like(after), where=before > 0)
    return np.argsort(np.argsort(share, kind="stable"), kind="stable")


def typical_row(subject: Subject) -> int:
    """Return a row that is neither lucky nor unlucky with the chosen alpha.

    That is the one nearest to the median of all rows in two things at once: the share of its loss that is left, and
    the share of the error that is left in the weight of the loudest input.
    """
    nearest, chosen = subject.trials[0], subject.trials[subject.chosen]
    by_loss = _ranks(_losses(subject, chosen), _losses(subject, nearest))
    by_error = _ranks(_loud_error(subject, chosen), _loud_error(subject, nearest))
    middle = (len(by_loss) - 1) // 2
    return int(np.argmin(np.abs(by_loss - middle) + np.abs(by_error - middle)))


def _require_row(subject: Subject, row: int | None) -> int:
    rows = len(subject.weight)
    if row is None:
        return typical_row(subject)
    if not 0 <= row < rows:
        raise RangeError(
            f"{WHO}: --row must lie in [0, {rows - 1}], the outputs of {subject.name}; got {row}."
        )
    return row


def _block_start(view: _View) -> int | None:
    """Return where the block of a plane's row begins that is shown, or None where the layer fits no planes."""
    size = block_size(view.subject.spec.bits)
    return None if len(view.subject.token) % size else view.inputs.start // size * size


def _bytes(codes: U8, start: int, bits: int) -> list[dict[str, int]]:
    """Return the bytes of the block at `start` of a row of codes, each with what AND and shift cut out of it."""
    (plane,) = pack_planes(codes[None, start : start + block_size(bits)], bits)
    return [{"byte": byte, "low": byte & MASK, "high": byte >> bits} for byte in plane[0].tolist()]


def _product(x: F32, linear: QuantizedLinear) -> float:
    """Return one output for one token: from the planes, where they fit."""
    if linear.in_features % block_size(linear.spec.bits):
        return float(matmul_reference(x[None], linear)[0, 0])
    planes = pack_planes(linear.int_weight, linear.spec.bits)
    y = packed_matmul_reference(x[None], planes, linear.scales, linear.zero_point, linear.spec.bits)
    return float(y[0, 0])


def _rows(linear: QuantizedLinear, row: int, columns: slice, group: slice) -> QuantizedLinear:
    """Return some groups of one row as a linear of their own."""
    return QuantizedLinear(
        np.ascontiguousarray(linear.int_weight[row : row + 1, columns]),
        linear.scales[row : row + 1, group],
        linear.zero_point[row : row + 1, group],
        linear.spec,
    )


def _dot(view: _View, linear: QuantizedLinear, row: int, scales: F32) -> dict[str, Any]:
    """Return the product of the group's codes and what a token brings, term by term, and the whole output."""
    index = view.inputs.start // linear.group_size
    x, columns = view.subject.token / scales, view.columns
    one = _rows(linear, row, columns, slice(index, index + 1))
    met = x[columns]
    return {
        "x": _decimals(met),
        "codes_x": _decimal(one.int_weight[0].astype(np.float32) @ met),
        "sum_x": _decimal(met.sum(dtype=np.float32)),
        "group": _decimal(_product(met, one)),
        "output": _decimal(_product(x, _rows(linear, row, slice(None), slice(None)))),
    }


def _words(view: _View, linear: QuantizedLinear, row: int) -> dict[str, list[dict[str, Any]]]:
    """Return what every layout's words hold: the number, its bits, high end first, and the codes in it."""
    words = {}
    for holding in (holding for holding in view.held if holding.why_not is None):
        values = word_values(holding, linear, row)
        words[holding.layout] = [
            {
                "hex": f"0x{value:0{holding.width // 4}x}",
                "bits": f"{value:0{holding.width}b}",
                "codes": [int(linear.int_weight[o - view.tile.start, i]) for *_, o, i in word.runs],
            }
            for word, value in zip(holding.words, values, strict=True)
        ]
    return words


def _trial(view: _View, trial: Trial) -> dict[str, Any]:
    """Return everything that depends on alpha."""
    subject, columns, scales = view.subject, view.columns, trial.channel_scales
    row, index = view.row - view.tile.start, view.inputs.start // len(view.inputs)
    scaled = LinearFold(columns=scales).apply(subject.weight[view.tile])
    linear = quantize_linear(scaled, spec=subject.spec)
    landed = dequantize_linear(linear)[row, columns]
    restored = landed / scales[columns]
    error = restored - subject.weight[view.row, columns]
    low, high = group_range(scaled, spec=subject.spec)
    one = _rows(linear, row, columns, slice(index, index + 1))
    every = np.arange(subject.spec.qmax + 1, dtype=np.uint8)[None]
    start, codes = _block_start(view), linear.int_weight[row]
    return {
        "alpha": trial.alpha,
        "loss": trial.loss,
        "relative": trial.loss / subject.trials[0].loss if subject.trials[0].loss else 1.0,
        "row_loss": float(_losses(subject, trial, slice(view.row, view.row + 1))[0]),
        "scales": _decimals(scales[columns]),
        "scaled": _decimals(scaled[row, columns]),
        "low": _decimal(low[row, index]),
        "high": _decimal(high[row, index]),
        "delta": _decimal(one.scales[0, 0]),
        "zero_point": int(one.zero_point[0, 0]),
        "levels": _decimals(dequantize(every, one.scales, one.zero_point)),
        "codes": codes[columns].tolist(),
        "landed": _decimals(landed),
        "restored": _decimals(restored),
        "error": _decimals(error),
        "felt": _decimals(np.abs(error) * subject.statistics.act_mean_abs[columns]),
        "bytes": [] if start is None else _bytes(codes, start, subject.spec.bits),
        "dot": _dot(view, linear, row, scales),
        "words": _words(view, linear, row),
    }


def _layout(holding: Holding) -> dict[str, Any]:
    """Return what a layout's words are, whatever alpha."""
    if holding.why_not is not None:
        return {"name": holding.layout, "why_not": holding.why_not}
    return {
        "name": holding.layout,
        "tensor": holding.place.weight[0],
        "word": holding.place.word,
        "width": holding.width,
        "count": holding.count,
        "words": [{"row": word.row, "column": word.column, "runs": word.runs} for word in holding.words],
    }


def _about(view: _View) -> dict[str, Any]:
    """Return what the page says of the layer."""
    subject = view.subject
    rows, inputs = subject.weight.shape
    return {
        "model": subject.model,
        "layer": subject.name,
        "rows": rows,
        "inputs": inputs,
        "row": view.row,
        "first": view.inputs.start,
        "group_size": len(view.inputs),
        "group": view.inputs.start // len(view.inputs),
        "groups": inputs // len(view.inputs),
        "bits": subject.spec.bits,
        "shared": list(subject.group.consumers),
        "producer": subject.group.producer,
        "fixed": subject.group.fixed,
        "tokens": subject.statistics.count,
        "source": subject.calibration["source"],
        "piece": subject.piece,
    }


def layer_record(subject: Subject, *, row: int | None = None) -> dict[str, Any]:
    """Return every number of the page.

    Parameters
    ----------
    subject : Subject
    row : int, optional
        Output that is looked at. None: `typical_row`. The group is the one with the loudest input: `loudest_group`.

    Returns
    -------
    record : dict
        JSON has a form for all of it. `about`; `weights`, `act_mean_abs` and `x` of the group; `float_group` and
        `float_output`, what the float row makes of the token; `trials`, a dict for each alpha; `chosen`, the index of
        the best; `block`, the first input of the bytes that are shown, or None; `layouts`.

    Raises
    ------
    RangeError
        If the layer has no such row.
    """
    row, inputs = _require_row(subject, row), loudest_group(subject)
    rows, n_inputs = subject.weight.shape
    view = _View(subject, row, inputs, holdings(row, inputs, (rows, n_inputs), subject.spec))
    weight, columns = subject.weight[row], view.columns
    return {
        "about": _about(view),
        "weights": _decimals(weight[columns]),
        "act_mean_abs": _decimals(subject.statistics.act_mean_abs[columns]),
        "x": _decimals(subject.token[columns]),
        "float_group": _decimal(weight[columns] @ subject.token[columns]),
        "float_output": _decimal(weight @ subject.token),
        "chosen": subject.chosen,
        "block": _block_start(view),
        "layouts": [_layout(holding) for holding in view.held],
        "trials": [_trial(view, trial) for trial in subject.trials],
    }
