"""The result of `awq-ref bench` under this machine's roof.

draw_bench    a result -> a figure file
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from awq_ref.checkpoint.disk import writing
from awq_ref.paper.machine import Machine
from awq_ref.paper.output import DPI, INCHES, STYLE, require_output


def _draw(axes: Any, result: dict[str, Any]) -> None:
    machine = Machine(result["limits"]["read_bandwidth"], result["limits"]["sgemm_flops"])
    points = [run[phase]["intensity"] for run in result["runs"] for phase in ("prefill", "decode")]
    line = np.geomspace(min(*points, machine.ridge) / 2, max(*points, machine.ridge) * 2, 200)
    axes.loglog(line, [machine.attainable(float(x)) / 1e9 for x in line], color="0.3", lw=1.5)
    for i, run in enumerate(result["runs"]):
        for phase, marker in (("decode", "o"), ("prefill", "s")):
            found = run[phase]
            label = f"{run['residency']}, head {run['head']}, {phase}"
            axes.plot(found["intensity"], found["flops_per_s"] / 1e9, marker, color=f"C{i}", label=label)
    axes.set(
        xlabel="FLOP/byte", ylabel="GFLOP/s", title=f"{result['setup']['model']} under this machine's roof"
    )


def draw_bench(result: dict[str, Any], path: Path) -> None:
    """Draw prefill and decode of every residency under the roof (errors as `paper.output.require_output`)."""
    require_output(path, None)
    matplotlib, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    with matplotlib.rc_context(STYLE), writing(path):
        figure = figures.Figure(figsize=INCHES, layout="constrained")
        _draw(figure.subplots(), result)
        figure.legend(loc="outside lower center", ncols=3, fontsize=7)
        figure.savefig(path, dpi=DPI)
