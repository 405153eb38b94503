"""What an experiment is: options in, rows out, and how the rows become a table and a figure.

    Options       what a user may set; each experiment says which of them it takes
    Experiment    a name, a title, a function that makes rows, a table, a figure
    Result        rows, and the setup that is needed to repeat them
    Column        one column of a table
    changes_of    arguments of the command line -> changes of an experiment's options
    columns       Columns -> the table function of an experiment
    spread        values of several seeds -> "mean +- deviation"
    select        the rows that have these values

A row is a flat dictionary of numbers and words, ready for JSON. Tables and figures are made from rows alone, so that
a saved result can be shown again.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from awq_ref.checks import require_between, require_one_of
from awq_ref.errors import RangeError
from awq_ref.report.tables import format_table
from awq_ref.search.recipes import recipe_named
from awq_ref.spec import BITS

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = list[Row]
Setup: TypeAlias = dict[str, Any]

AS_IT_IS = 1.0  # the factor of `outliers` that grows none
MISSING = "-"  # what a table shows for a value that a row does not have


def _option(default: Any, text: str, **argparse: Any) -> Any:
    """Return a field whose metadata are the arguments of the command line's option."""
    return field(default=default, metadata={"help": text, **argparse})


@dataclass(frozen=True)
class Options:
    """What a user may set. A field is an option of the command line; to add one, add a field.

    model       : float checkpoint folder; None is the embedded model
    outliers    : first grow a few channels' activations by this factor (`pipeline.outliers`); 1 for as they are
    bits        : bits per weight, one or several
    group_size  : weights that share a scale, one or several
    recipes     : rows of `awq_ref.search.RECIPES` by name; () for those of the experiment
    seeds       : how often what is drawn at random is drawn anew
    samples     : calibration windows
    seq_len     : tokens of a window, in calibration and evaluation
    tokens      : evaluation tokens
    shapes      : models by name, of whose sizes one only wants to know: rows of `awq_ref.paper.shapes.SHAPES`
    contexts    : tokens in the key/value cache, one or several
    batches     : sequences at once, one or several

    Raises RangeError if a number lies outside its range.
    """

    model: Path | None = _option(
        None,
        "float checkpoint: folder or name on the hub; default: the embedded model",
        type=Path,
        metavar="FOLDER",
    )
    outliers: float = _option(
        AS_IT_IS,
        "first grow 2 %% of the channels' activations by this factor; same function",
        type=float,
        metavar="X",
    )
    bits: tuple[int, ...] = _option((3,), "bits per weight", type=int, nargs="+", metavar="N")
    group_size: tuple[int, ...] = _option(
        (128,), "weights that share a scale", type=int, nargs="+", metavar="N"
    )
    recipes: tuple[str, ...] = _option(
        (), "quantization recipes, by name; default: those of the paper", nargs="+", metavar="NAME"
    )
    seeds: int = _option(1, "repeat with so many seeds", type=int, metavar="N")
    samples: int = _option(32, "calibration windows", type=int, metavar="N")
    seq_len: int = _option(512, "tokens of a window", type=int, metavar="N")
    tokens: int = _option(8192, "evaluation tokens", type=int, metavar="N")
    shapes: tuple[str, ...] = _option(
        (), "models by name, known by their sizes; default: all", nargs="+", metavar="NAME"
    )
    contexts: tuple[int, ...] = _option((4096,), "tokens in the cache", type=int, nargs="+", metavar="N")
    batches: tuple[int, ...] = _option((1,), "sequences at once", type=int, nargs="+", metavar="N")

    def __post_init__(self) -> None:
        for name in self.recipes:
            recipe_named(name)
        for bits in self.bits:
            require_one_of("Options", "bits", bits, BITS)
        for group_size in self.group_size:
            if group_size != -1:
                require_between("Options", "group_size", group_size, 1, 2**31)
        require_between("Options", "outliers", self.outliers, AS_IT_IS, 1024.0)
        for name in ("seeds", "samples", "seq_len"):
            require_between("Options", name, getattr(self, name), 1, 2**31)
        require_between("Options", "tokens", self.tokens, 2, 2**31)
        for name in ("contexts", "batches"):
            for size in getattr(self, name):
                require_between("Options", name, size, 1, 2**31)


@dataclass(frozen=True)
class Experiment:
    """One experiment. Make one per module and give it a row in `registry.EXPERIMENTS`.

    name     : what the command line calls it
    title    : one line for the list of experiments
    run      : Options -> rows, and its share of the setup (model, calibration, evaluation text)
    table    : rows -> Markdown, in the paper's form
    plot     : draws rows into an empty matplotlib figure
    takes    : the options that `run` looks at; another one is an error, not silence
    defaults : their values when the user sets none
    """

    name: str
    title: str
    run: Callable[[Options], tuple[Rows, Setup]]
    table: Callable[[Rows], str]
    plot: Callable[[Any, Rows], None]
    takes: tuple[str, ...] = ()
    defaults: Options = Options()

    def options(self, **changes: Any) -> Options:
        """Return the defaults with some values changed; RangeError names an option that it does not take."""
        for name in changes:
            if name not in self.takes:
                takes = ", ".join(map(_flag, self.takes)) or "no options"
                raise RangeError(f"paper {self.name}: takes {takes}; got {_flag(name)}.")
        values = {item.name: getattr(self.defaults, item.name) for item in fields(Options)}
        return Options(**values | changes)

    def command(self, options: Options | None = None) -> str:
        """Return the command that runs it with these options, or with its defaults."""
        chosen = self.defaults if options is None else options
        values = {name: getattr(chosen, name) for name in self.takes}
        given = {name: value for name, value in values.items() if not _says_nothing(name, value)}
        parts = [" ".join([_flag(name), *_words(value)]) for name, value in given.items()]
        return " ".join([f"awq-ref paper {self.name}", *parts])


@dataclass(frozen=True)
class Result:
    """What an experiment found, and everything needed to find it again."""

    experiment: str
    rows: Rows
    setup: Setup


def changes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that are options, lists as tuples: from the command line's arguments."""
    known = [item.name for item in fields(Options)]
    given = {name: value for name, value in values.items() if name in known}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _says_nothing(name: str, value: Any) -> bool:
    """Tell whether a value is the same as leaving the option out, whatever the experiment."""
    return value is None or value == () or (name == "outliers" and value == AS_IT_IS)


def _words(value: Any) -> list[str]:
    """Return an option's value as the command line writes it."""
    values = value if isinstance(value, tuple) else (value,)
    return [f"{one:g}" if isinstance(one, float) else str(one) for one in values]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def select(rows: Rows, **values: Any) -> Rows:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in values.items())]


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Write the mean of some values, with several of them also their standard deviation (of a sample).

    Examples
    --------
    >>> spread([1.0, 2.0, 3.0], ".1f"), spread([1.5]), spread([])
    ('2.0 ± 1.0', '1.500', '-')
    """
    if not values:
        return MISSING
    mean = format(statistics.fmean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), form)}"


@dataclass(frozen=True)
class Column:
    """One column: its header, the key of a row, and a format specification such as ".3f"."""

    header: str
    key: str
    form: str = ""

    def cell(self, row: Row) -> str:
        """Return the text of one cell; a value that is missing or None gives a dash."""
        value = row.get(self.key)
        return MISSING if value is None else format(value, self.form)


def columns(*chosen: Column, left: int = 1) -> Callable[[Rows], str]:
    """Return a table function: one line per row, the first `left` columns aligned to the left.

    Examples
    --------
    >>> table = columns(Column("s", "s", "g"), Column("perplexity", "perplexity", ".2f"))
    >>> print(table([{"s": 1.25, "perplexity": 12.871}, {"s": 2}]))
    | s    | perplexity |
    | :--- | ---------: |
    | 1.25 |      12.87 |
    | 2    |          - |
    """

    def table(rows: Rows) -> str:
        cells = [[column.cell(row) for column in chosen] for row in rows]
        return format_table([column.header for column in chosen], cells, left=left)

    return table
