"""The experiments by name. To add one: a module with an `EXPERIMENT`, and its row here.

EXPERIMENTS       name -> Experiment, in the order of the paper
run_experiment    run one; what comes back can be printed, drawn and repeated
list_experiments  what `awq-ref paper` prints
"""

import platform
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from awq_ref import __version__
from awq_ref.checks import require_one_of
from awq_ref.paper import (
    ablation,
    alpha,
    calibration_shift,
    calibration_size,
    example,
    main_table,
    memory,
    roofline,
    salient,
    scale_sweep,
)
from awq_ref.paper.experiment import Experiment, Options, Result
from awq_ref.report.tables import format_table

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        example.EXPERIMENT,
        salient.EXPERIMENT,
        scale_sweep.EXPERIMENT,
        main_table.EXPERIMENT,
        calibration_size.EXPERIMENT,
        calibration_shift.EXPERIMENT,
        alpha.EXPERIMENT,
        ablation.EXPERIMENT,
        roofline.EXPERIMENT,
        memory.EXPERIMENT,
    )
}


def experiment_named(name: str) -> Experiment:
    """Return an experiment by its name; RangeError lists the known ones."""
    require_one_of("awq-ref paper", "the experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def _taken(experiment: Experiment, options: Options) -> dict[str, Any]:
    """Return the options that an experiment takes, ready for JSON; a model by its folder as given."""
    values = {name: value for name, value in asdict(options).items() if name in experiment.takes}
    if values.get("model") is not None:
        values["model"] = str(values["model"])
    return values


def run_experiment(name: str, **changes: Any) -> Result:
    """Run an experiment with some of its options changed.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.
    **changes
        Fields of `Options` that the experiment takes.

    Returns
    -------
    result : Result

    Raises
    ------
    RangeError
        If there is no such experiment, it does not take an option, or the model needs more memory than there is.
    FormatError, MissingTensorError, UnsupportedError
        If the model is not a float checkpoint of a known architecture.

    Examples
    --------
    >>> [round(row["error"], 3) for row in run_experiment("example").rows]
    [0.04, 0.01]
    """
    experiment = experiment_named(name)
    options = experiment.options(**changes)
    started = time.perf_counter()
    rows, setup = experiment.run(options)
    common = {
        "version": __version__,
        "command": experiment.command(options),
        "options": _taken(experiment, options),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seconds": round(time.perf_counter() - started, 1),
    }
    return Result(name, rows, common | setup)


def list_experiments() -> str:
    """Return the experiments as a table: name, what it shows; then the commands with their defaults written out."""
    rows = [[experiment.name, experiment.title] for experiment in EXPERIMENTS.values()]
    commands = [experiment.command() for experiment in EXPERIMENTS.values()]
    return "\n".join([format_table(["experiment", "what it shows"], rows, left=2), "", *commands])
