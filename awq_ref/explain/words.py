"""The words of each layout that hold the codes of a group, and whose bits they are.

HeldWord      one word: where it is, and which code lies in which of its bits
Holding       a layout with the words that are shown, or the reason why it cannot hold the layer
holdings      all layouts
word_values   what stands in those words

Addresses come from the formulas of `awq_ref.vectors.addresses`, values from `awq_ref.pack`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from awq_ref.pack import pack_linear, why_not
from awq_ref.spec import QuantizedLinear, QuantSpec
from awq_ref.vectors.addresses import PLACES, WIDTHS, CodePlace

TILE = 64  # rows and inputs within which every layout keeps the codes of a word
SHOWN = 8  # words of a layout, at most


@dataclass(frozen=True)
class HeldWord:
    """A word of a layout.

    row, column : where it stands in its tensor
    of_input    : an input whose code of the row lies in it
    runs        : (lowest bit, how many bits, first bit of the code, output, input) of each code in it, low bits first
    """

    row: int
    column: int
    of_input: int
    runs: tuple[tuple[int, int, int, int, int], ...]


@dataclass(frozen=True)
class Holding:
    """A layout: the words that are shown, how many there are for the group; or why there are none."""

    layout: str
    words: tuple[HeldWord, ...] = ()
    count: int = 0
    why_not: str | None = None

    @property
    def place(self) -> CodePlace:
        return PLACES[self.layout]

    @property
    def width(self) -> int:
        """Bits of a word."""
        return WIDTHS[self.place.word]


def tile_of(row: int, rows: int) -> slice:
    """Return the rows with which a row shares its words."""
    first = row // TILE * TILE
    return slice(first, min(first + TILE, rows))


def _runs(bits: dict[int, tuple[int, int, int]]) -> tuple[tuple[int, int, int, int, int], ...]:
    """Return the runs of a word's bits, bit -> (output, input, bit of the code)."""
    runs: list[tuple[int, int, int, int, int]] = []
    for at in sorted(bits):
        o, i, b = bits[at]
        if runs:
            low, size, first, output, column = runs[-1]
            if (output, column) == (o, i) and low + size == at and first + size == b:
                runs[-1] = (low, size + 1, first, o, i)
                continue
        runs.append((at, 1, b, o, i))
    return tuple(runs)


def _held(place: CodePlace, row: int, inputs: range, shape: tuple[int, int], bits: int) -> Holding:
    formula = place.weight[1]
    first_input: dict[tuple[int, int], int] = {}
    for i in inputs:
        first_input.setdefault(formula(row, i, 0, bits)[:2], i)
    shown = dict(list(first_input.items())[:SHOWN])
    near = {i // TILE for i in shown.values()}
    owners: dict[tuple[int, int], dict[int, tuple[int, int, int]]] = {at: {} for at in shown}
    for o in range(*tile_of(row, shape[0]).indices(shape[0])):
        for i in (i for block in near for i in range(block * TILE, min((block + 1) * TILE, shape[1]))):
            for b in range(bits):
                r, c, at = formula(o, i, b, bits)
                if (r, c) in owners:
                    owners[r, c][at] = (o, i, b)
    words = tuple(HeldWord(r, c, i, _runs(owners[r, c])) for (r, c), i in shown.items())
    return Holding("", words, len(first_input))


def holdings(row: int, inputs: range, shape: tuple[int, int], spec: QuantSpec) -> list[Holding]:
    """Return, for every layout, the words that hold the codes of some neighbouring inputs of a row.

    Parameters
    ----------
    row : int
    inputs : range
    shape : (out_features, in_features)
    spec : QuantSpec
    """
    found = []
    for layout, place in PLACES.items():
        reason = why_not(layout, *shape, spec)
        if reason is not None:
            found.append(Holding(layout, why_not=reason))
            continue
        held = _held(place, row, inputs, shape, spec.bits)
        found.append(Holding(layout, held.words, held.count))
    return found


def word_values(holding: Holding, tile: QuantizedLinear, row: int) -> Sequence[int]:
    """Return what stands in the words of a layout, as unsigned numbers.

    Parameters
    ----------
    holding : Holding
        Of a layout that can hold the layer.
    tile : QuantizedLinear
        The rows `tile_of(row, ...)` of the layer.
    row : int
        The row within the tile.
    """
    name, formula = holding.place.weight
    tensor = pack_linear(tile, holding.layout)[name]
    tensor = tensor.reshape(len(tensor), -1)
    places = (formula(row, word.of_input, 0, tile.spec.bits) for word in holding.words)
    return [int(tensor[r, c]) % 2**holding.width for r, c, _ in places]
