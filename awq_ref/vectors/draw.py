"""The bits of a layout, drawn with letters: which weight sits in which nibble of which word.

    draw_layout   layout and sizes -> text

The drawing is made from the same formulas (`awq_ref.vectors.addresses`) that the vectors are.
"""

from collections.abc import Callable

from awq_ref.checks import require_between, require_one_of
from awq_ref.errors import RangeError
from awq_ref.vectors.addresses import PLACES, WIDTHS, CodePlace, Place, padded_groups

WORDS_SHOWN = 12  # of a row of words
ROWS_SHOWN = 8
FOUR, ANY = (4,), (2, 3, 4, 8)
BITS = {"gptq": ANY, "gptq_v2": ANY, "pack-quantized": ANY, "mlx": ANY, "matmulnbits": (2, 4, 8)}  # others: 4


def _fields(
    place: Place, bits: int, outputs: int, others: int, letter: str
) -> dict[tuple[int, int, int], str]:
    """Return (row, column, bit) -> the name of the code whose bit lies there."""
    fields = {}
    for o in range(outputs):
        for k in range(others):
            for b in range(bits):
                fields[place(o, k, b, bits)] = f"{letter}[{o},{k}]"
    return fields


def _word(fields: dict[tuple[int, int, int], str], row: int, column: int, width: int) -> str:
    """Return a word from its high end: runs of bits with the code that they belong to."""
    runs: list[tuple[str, int]] = []
    for bit in range(width - 1, -1, -1):
        name = fields.get((row, column, bit), "0")
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    names = [name for name, _ in runs]
    sizes = {size for _, size in runs}
    if len(sizes) == 1:
        return " | ".join(f"{name:>8}" for name in names)
    return " | ".join(f"{name}:{size}" for name, size in runs)


def _tensor(title: str, fields: dict[tuple[int, int, int], str], width: int) -> list[str]:
    rows = max(row for row, _, _ in fields) + 1
    columns = max(column for _, column, _ in fields) + 1
    lines = [f"{title}, {rows} x {columns} words of {width} bits, high end first:"]
    for row in range(min(rows, ROWS_SHOWN)):
        for column in range(min(columns, WORDS_SHOWN)):
            lines.append(f"  [{row},{column}]  {_word(fields, row, column, width)}")
    hidden = rows * columns - min(rows, ROWS_SHOWN) * min(columns, WORDS_SHOWN)
    return [*lines, f"  ... {hidden} more words"] if hidden else lines


def _order(turned: Callable[[int, int], int], outputs: int, groups: int) -> str:
    """Return which output's scale stands first, second, ... in a row."""
    places = {turned(o, groups): o for o in range(outputs)}
    shown = [str(places[k]) for k in sorted(places)[:WORDS_SHOWN]]
    return f"; outputs in the order {' '.join(shown)}{' ...' if outputs > WORDS_SHOWN else ''}"


def _scales_line(place: CodePlace, outputs: int, groups: int, stored: int) -> str:
    shape = (stored, outputs) if place.by_group else (outputs, stored)
    index = "[group, output]" if place.by_group else "[output, group]"
    padding = f", groups {groups} to {stored - 1} are padding, 0" if stored > groups else ""
    offset = f"; {place.offset} likewise: what is added to code * scale" if place.offset else ""
    turned = _order(place.turned, outputs, groups) if place.turned else ""
    constant = f"; {place.constant[0]}: {place.constant[2]:g}" if place.constant else ""
    return f"{place.scales}, {shape[0]} x {shape[1]} {index}{padding}{offset}{turned}{constant}"


def draw_layout(layout: str, *, rows: int, columns: int, bits: int = 4, group_size: int = -1) -> str:
    """Return a drawing of the words of a linear of `rows` outputs and `columns` inputs.

    Raises
    ------
    RangeError
        If the layout is not known, or a size is out of range.
    """
    who = "explain-layout"
    require_one_of(who, "layout", layout, PLACES)
    for name, value in (("rows", rows), ("cols", columns)):
        require_between(who, name, value, 1, 4096)
    require_one_of(who, "bits", bits, (2, 3, 4, 8))
    place = PLACES[layout]
    group = columns if group_size == -1 else group_size
    if group < 1 or columns % group:
        raise RangeError(f"{who}: --group-size must divide --cols={columns}; got {group_size}.")
    if bits not in BITS.get(layout, FOUR):
        widths = " or ".join(map(str, BITS.get(layout, FOUR)))
        raise RangeError(f"{who}: {layout} must have {widths} bits; got {bits}.")
    groups = columns // group
    stored = padded_groups(groups, group) if place.padded else groups
    name, where = place.weight
    lines = [
        f"{layout}: q[output,input] is a code of {bits} bits, z[output,group] a zero point; {rows} x {columns}, "
        f"groups of {group}",
        "",
    ]
    lines += _tensor(name, _fields(where, bits, rows, columns, "q"), WIDTHS[place.word])
    if place.zero is not None:
        less = f", stored less {place.less}" if place.less else ""
        fields = _fields(place.zero[1], bits, rows, groups, "z")
        lines += ["", *_tensor(f"{place.zero[0]}{less}", fields, WIDTHS[place.zero_word])]
    return "\n".join([*lines, "", _scales_line(place, rows, groups, stored)])
