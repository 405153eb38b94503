"""What is left of a result when the terminal is closed: a figure and a JSON file.

require_output   raise before the work begins if a file could not be written in the end
draw             rows -> a figure file
save_json        result -> a JSON file: `experiment`, `setup`, `rows`

matplotlib (extra `plot`) is imported only when a figure is asked for.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from awq_ref.checkpoint import write_json
from awq_ref.checkpoint.disk import writing
from awq_ref.checks import require_one_of
from awq_ref.errors import OutputError, UnsupportedError
from awq_ref.paper.experiment import Experiment, Result, Rows

SUFFIXES = (".png", ".svg", ".pdf")
INCHES = (6.4, 4.0)
DPI = 100
STYLE = {
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "awq_ref",  # the same rows give the same file
}


def require_output(plot: Path | None, json: Path | None) -> None:
    """Raise unless the files can be written when the experiment is done.

    Raises
    ------
    UnsupportedError
        If a figure is asked for and matplotlib is not installed.
    RangeError
        If the figure's name does not end in .png, .svg or .pdf.
    OutputError
        If a file's folder does not exist.
    """
    for path in (plot, json):
        if path is not None and not path.absolute().parent.is_dir():
            raise OutputError(f"{path}: its folder must exist; it does not. Make it first.")
    if plot is None:
        return
    require_one_of("awq-ref paper", "the end of the figure's name", plot.suffix.lower(), SUFFIXES)
    if find_spec("matplotlib") is None:
        raise UnsupportedError(
            "awq-ref paper: a figure needs matplotlib, which is not installed. Install the extra: "
            "pip install 'awq-ref[plot]', or leave out --plot."
        )


def draw(experiment: Experiment, rows: Rows, path: Path) -> None:
    """Draw an experiment's rows into a file (errors as `require_output`)."""
    require_output(path, None)
    matplotlib, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    with matplotlib.rc_context(STYLE), writing(path):
        figure = figures.Figure(figsize=INCHES, layout="constrained")
        experiment.plot(figure, rows)
        figure.savefig(path, dpi=DPI)


def save_json(result: Result, path: Path) -> None:
    """Write a result as JSON (OutputError if that fails)."""
    write_json(path, {"experiment": result.experiment, "setup": result.setup, "rows": result.rows})
