"""Experiment `example`: one weight, rounded as it is and after multiplication by s, step by step.

    error_of   w, delta, s -> the steps of rounding, as a row

Equation (the paper's eq. 3)  Err = | delta round(w s / delta) / s - w |
Source: Lin et al. 2023, arXiv:2306.00978, section 3.2, eq. 2 and 3; docs/paper/example.md.
"""

from typing import Any

from awq_ref.paper.experiment import Column, Experiment, Options, Row, Rows, Setup, columns

DELTA, WEIGHT, SCALE = 0.1, 0.24, 2.0  # a step, a weight that falls badly between two steps, a scale


def error_of(weight: float, *, delta: float, scale: float) -> Row:
    """Return how a weight is rounded when it is multiplied by a scale first and divided by it afterwards.

    Equation (the paper's eq. 3)  Err = | delta round(w s / delta) / s - w |
        w      -> weight        s -> scale
        delta  -> delta, unchanged by s: the weight is not the largest of its group

    Returns
    -------
    row : dict
        weight, delta, s, scaled (w s), code (the integer), restored (delta code / s), error, bound (delta / 2 s).

    Examples
    --------
    >>> error_of(0.24, delta=0.1, scale=2.0)["code"]
    5
    """
    scaled = weight * scale
    code = round(scaled / delta)  # ties to even, as np.rint
    restored = code * delta / scale
    return {
        "weight": weight,
        "delta": delta,
        "s": scale,
        "scaled": scaled,
        "code": code,
        "restored": restored,
        "error": abs(restored - weight),
        "bound": delta / (2.0 * scale),
    }


def run(options: Options) -> tuple[Rows, Setup]:
    """Return one row for s = 1 and one for s = 2."""
    return [error_of(WEIGHT, delta=DELTA, scale=scale) for scale in (1.0, SCALE)], {}


def plot(figure: Any, rows: Rows) -> None:
    """Draw, for each s, the values that a stored weight can take near w, w itself, and where it lands."""
    axes = figure.subplots()
    for height, row in enumerate(reversed(rows)):  # the first row on top
        step = row["delta"] / row["s"]
        steps = [i * step for i in range(round(0.4 / step) + 1)]
        axes.hlines(height, 0.0, 0.4, color="0.7", lw=1)
        axes.plot(steps, [height] * len(steps), "|", color="0.4", ms=14)
        axes.plot(row["weight"], height, "o", color="C3", label="w" if height == 0 else None)
        axes.plot(row["restored"], height, "D", color="C0", label="stored as" if height == 0 else None)
        axes.annotate(
            f"s = {row['s']:g}: {row['scaled']:g} / {row['delta']:g} rounds to {row['code']}, "
            f"stands for {row['restored']:g}, error {row['error']:.2f}",
            (0.0, height + 0.16),
        )
    axes.set(
        xlabel="weight", yticks=[], ylim=(-0.5, len(rows) - 0.4), title="Scaling a weight shrinks its step"
    )
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.legend(loc="lower right", ncols=2)


EXPERIMENT = Experiment(
    name="example",
    title="one weight by hand: multiplied by s = 2 before rounding, it loses a quarter as much",
    run=run,
    table=columns(
        Column("s", "s", "g"),
        Column("w s", "scaled", "g"),
        Column("w s / delta, rounded", "code"),
        Column("stands for", "restored", "g"),
        Column("error", "error", ".2f"),
        Column("at most delta / 2 s", "bound", "g"),
    ),
    plot=plot,
)
