"""Pictures of a schedule."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spaces import Schedule
from spaces.files import write_atomic

STRONGEST = 9.0
"""The largest expected magnitude: probability 1 at level 9."""


def plot_schedule(schedule: Schedule, path: Path | str, title: str = "") -> Path:
    """Draw each operation's strength over the epochs, and their mean, as a PNG at `path`.

    One row an operation, sorted by its mean strength; darker is stronger. The colours run from light to dark without
    changing sides, so they read the same without colour vision and in print.
    """
    ops, strength = _strength(schedule)
    order = np.argsort(-strength.mean(axis=1), kind="stable")
    figure = Figure(figsize=(8, 0.27 * len(ops) + 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    heat, line = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [max(len(ops), 4), 4]})
    extent = (0, schedule.epochs, len(ops), 0)
    image = heat.imshow(
        strength[order],
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=STRONGEST,
        extent=extent,
        interpolation="none",
    )
    heat.set_yticks(np.arange(len(ops)) + 0.5, [ops[index] for index in order])
    heat.set_yticks(np.arange(1, len(ops)), minor=True)
    heat.grid(which="minor", color="#d0d7de", linewidth=0.6)
    heat.tick_params(which="both", length=0)
    heat.set_title(title or f"What the {schedule.role} sees", loc="left")
    figure.colorbar(image, ax=heat, label="strength = probability × level", pad=0.01)
    mean = strength.mean(axis=0)
    line.stairs(mean, np.arange(schedule.epochs + 1), color="#08306b", linewidth=1.6, baseline=None)
    line.set_ylim(0, max(1.0, 1.15 * float(mean.max())))
    line.set_ylabel("mean")
    line.set_xlabel("epoch")
    line.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return write_atomic(path, buffer.getvalue())


def _strength(schedule: Schedule) -> tuple[list[str], np.ndarray]:
    """The operations that the schedule names, and their strength, (operations, epochs)."""
    columns = [(phase.epochs, phase.genome.strength()) for phase in schedule.phases]
    ops = list(dict.fromkeys(op for _, strength in columns for op in strength)) or ["no operation"]
    table = [[strength.get(op, 0.0) for epochs, strength in columns for _ in range(epochs)] for op in ops]
    return ops, np.array(table)
