"""The log of a training run as CSV and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

Log = Sequence[dict[str, float]]

LOSSES = ("answers", "grid")
SHARES = ("short_answers", "captions", "unseen_short_answers", "unseen_captions")
_COLUMNS = ("step", "seconds", *LOSSES, *SHARES)


def write_log(log: Log, path: Path) -> None:
    """One row a logged step; columns that were not measured at a step stay empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(log)


def draw_curve(log: Log, path: Path) -> None:
    """A PNG of the training losses, and of the shares of held-out answers and captions that were exactly right."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in LOSSES:
        left.plot([row["step"] for row in log], [row[name] for row in log], label=name)
    left.set(xlabel="step", ylabel="cross entropy", yscale="log", title="training loss")
    left.legend()
    checked = [row for row in log if SHARES[0] in row]
    for name in SHARES:
        right.plot([row["step"] for row in checked], [100 * row[name] for row in checked], label=name.replace("_", " "))
    right.set(xlabel="step", ylabel="exactly right, %", title="held-out scenes (teacher forced)")
    right.legend()
    figure.savefig(path, dpi=110)
