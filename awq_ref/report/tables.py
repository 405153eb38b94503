"""Tables for the terminal, in Markdown, so that they can be pasted anywhere.

format_table   headers and rows of text -> aligned Markdown
format_bytes   1234567 -> "1.18 MiB"
"""

from collections.abc import Sequence


def format_bytes(n_bytes: float) -> str:
    """Write a number of bytes with a binary unit.

    Examples
    --------
    >>> format_bytes(1234567)
    '1.18 MiB'
    >>> format_bytes(12)
    '12 B'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024 or unit == "GiB":
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.2f} {unit}"
        n_bytes /= 1024
    raise AssertionError("unreachable: the last unit always returns")


def format_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Align columns; the first `left` of them to the left, the others to the right.

    Examples
    --------
    >>> print(format_table(["model", "ppl"], [["FP16", "9.5"], ["INT4", "10.25"]]))
    | model |   ppl |
    | :---- | ----: |
    | FP16  |   9.5 |
    | INT4  | 10.25 |
    """
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = [":" + "-" * (w - 1) if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(headers), line(rule), *map(line, rows)])
