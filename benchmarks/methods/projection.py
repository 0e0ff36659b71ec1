"""Does projecting the teacher's features rather than the student's help a student, whatever its teacher was taught?

Digits of 8 × 8 stand in one of the four corners of 16 × 16, black elsewhere. The student, the catalog's `cnn`, learns
which digit from 100 of them, each in a corner that is drawn once. Its teachers are `cnn`s twice as wide, frozen in
evaluation mode:

- `same` was taught which digit, and `other` which corner, on 900 digits, the student's among them, in all four corners.
- `random` was taught nothing. Its weights are as drawn; the statistics of its batch normalization, which without images
  would be no one's, are those of the student's training images.

All arms take the same student steps, gradients cut to a norm of 1, under 0.99 · CE + weight · loss: `hint` (on features
averaged over positions), `attention` (on all three stages) and `pkt`, each without projection, with the student's
features projected, as usual, and with the teacher's: the inverted projection of Auty et al. 2024
(https://arxiv.org/abs/2403.14494). Without a teacher: `spectral`, our reading of the same paper's loss, and the labels
alone, under 1 · CE. For comparison: `kd` from `same`. There is no hint without projection: it asks for one width.

Every seed has digits, corners, teachers and first weights of its own. Each arm's weight is the best of the same three
for all arms of its loss, of equals the smallest, by the mean accuracy (`validation`, in the order of `weights`) on
validation digits, over seeds that are not reported; the grids and all else were settled on validation digits too, some
of them of seeds that are. The test digits, in all four corners each, are scored once, after the last epoch.

`rank` is the effective rank of P after the last epoch, of `attention`'s for the last stage. `transfer` and
`regularization` are the two parts of the mean squared error that P leaves on the last batch, which of the three losses
`hint` alone minimizes; under the inverted projection the second is 0, but for rounding, while P has full rank.

The summary's gains are in points, by seed, those from a teacher averaged over the losses; `none` are the labels alone.
Every p is a paired t-test's, those of a family, the three teachers, corrected after Holm (1979). The test digits are
the same for all seeds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import product
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from benchmarks.common.record import ROOT, Row, arguments, cores, start
from results.analysis.statistics import holm, interval
from spaces import Genome
from spaces.core.io import write_atomic
from spaces.policy.sampling import seeded
from trainables import data as datasets
from trainables.data import DataSet, Images, TensorImages
from trainables.distillation.objective import Distill
from trainables.losses.feature.projector import effective_rank
from trainables.models import build_model
from trainables.models.cnn import cnn
from trainables.task import Task, TrainedTeacher
from trainables.training.normalize import Normalize
from trainables.training.recipe import Recipe

Array: TypeAlias = NDArray[np.float64]

PICTURE = ROOT / "docs" / "images" / "projection.png"
TEACHERS, LOSSES = ("same", "other", "random"), ("hint", "attention", "pkt")
PROJECTIONS = ("none", "student", "inverted")
NONE, CORNERS, HELD_OUT = "none", 4, 300
STUDENT, LAST, TEACHER, WIDTH = "cnn", "8", "benchmarks.methods.projection:wide", 32
"""Networks, the name of the student's last stage, and the width of a teacher's first."""
COLORS = {"none": "#737373", "student": "#0072b2", "inverted": "#d55e00"}
WEIGHTS = {
    "kd": (1.0, 10.0, 100.0),
    "spectral": (0.1, 1.0, 10.0),
    "hint": (0.1, 1.0, 10.0),
    "attention": (1.0, 10.0, 100.0),
    "pkt": (100.0, 1000.0, 10000.0),
}
ALPHA = 0.01  # of whatever is not the labels' loss, so that this counts alike in every arm


@dataclass(frozen=True)
class Setting:
    """How many digits the student and its teachers see, how long they train, and with how many seeds."""

    train: int
    taught: int
    teacher_epochs: int
    epochs: int
    seeds: int
    choices: int


FULL = Setting(train=100, taught=900, teacher_epochs=3, epochs=100, seeds=10, choices=3)
QUICK = Setting(train=50, taught=100, teacher_epochs=1, epochs=1, seeds=2, choices=1)


class Arm(NamedTuple):
    """From which teacher, under which loss and projecting whose features a student learns; `none`: there is none."""

    teacher: str = NONE
    loss: str = NONE
    projection: str = NONE

    @property
    def weights(self) -> tuple[float, ...]:
        """That the loss may have; nothing: there is no loss to weigh."""
        return WEIGHTS.get(self.loss, ())

    def distill(self, weight: float) -> Distill:
        """The settings under that weight."""
        if self.loss == NONE:
            return Distill(alpha=0.0)
        options: dict[str, Any] = {"projection": self.projection} if self.loss in LOSSES else {}
        options |= {"pool": True} if self.loss == "hint" else {}
        return Distill(loss={self.loss: {"weight": weight / ALPHA, **options}}, alpha=ALPHA)


LABELS, SPECTRAL, KD = Arm(), Arm(loss="spectral"), Arm("same", "kd")
IMPOSSIBLE = tuple(Arm(teacher, "hint") for teacher in TEACHERS)
FEATURES = tuple(arm for arm in map(Arm._make, product(TEACHERS, LOSSES, PROJECTIONS)) if arm not in IMPOSSIBLE)
ARMS = (LABELS, SPECTRAL, KD, *FEATURES)


@dataclass(frozen=True)
class Start:
    """What one seed's students have in common, and what those of its teachers that were taught reach on test images."""

    data: DataSet
    teachers: Mapping[str, TrainedTeacher]
    reached: Mapping[str, float]


def main() -> None:
    """Choose the weights, then train every arm with every seed."""
    benchmark = start(__file__, arguments(__doc__))
    setting, first = (QUICK if benchmark.quick else FULL), 1000 * benchmark.seed
    seeds = range(first, first + setting.seeds)
    others = range(first + 500, first + 500 + setting.choices)
    with ProcessPoolExecutor(
        1 if benchmark.quick else cores(), get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        starts = {seed: pool.submit(prepared, seed, setting) for seed in (*others, *seeds)}

        def trained(arm: Arm, weight: float, chosen: range, part: str) -> list[Future[dict[str, float]]]:
            given = [(starts[seed].result(), arm, weight, setting.epochs, seed, part) for seed in chosen]
            return [pool.submit(trained_student, *each) for each in given]

        tried = {arm: [trained(arm, weight, others, "validation") for weight in arm.weights] for arm in ARMS}
        known = {arm: [_mean(_results(runs), "accuracy") for runs in tried[arm]] for arm in ARMS}
        weights = {arm: arm.weights[int(np.argmax(known[arm]))] if arm.weights else 0.0 for arm in ARMS}
        pending = {arm: trained(arm, weights[arm], seeds, "test") for arm in ARMS}
        rows = [_row(arm, weights[arm], known[arm], _results(pending[arm])) for arm in ARMS]
        rows += [_left_out(arm) for arm in IMPOSSIBLE]
        rows += _teachers([starts[seed].result().reached for seed in seeds])
    summary = figures(rows)
    if not benchmark.quick:
        plot(rows, summary)
    benchmark.finish(rows, summary)


def _results(runs: Sequence[Future[dict[str, float]]]) -> list[dict[str, float]]:
    return [run.result() for run in runs]


# Images and teachers --------------------------------------------------------------------------------------------------


def placed(images: Images, corners: Tensor) -> TensorImages:
    """Images (N, 1, h, w), each in its corner 0 … 3 (N,), in reading order, of a canvas (2 h, 2 w), black elsewhere."""
    pixels, labels = next(images.batches(len(images)))
    height, width = pixels.shape[2:]
    canvas = pixels.new_zeros(len(pixels), CORNERS, height, width)
    canvas[torch.arange(len(pixels)), corners] = pixels[:, 0]
    return TensorImages(
        canvas.unflatten(1, (2, 2)).transpose(2, 3).reshape(len(pixels), 1, 2 * height, 2 * width), labels
    )


def everywhere(images: Images) -> tuple[TensorImages, Tensor]:
    """Every image in all four corners, and which corner it is."""
    corners = torch.arange(CORNERS).repeat(len(images))
    return placed(images.subset(torch.arange(len(images)).repeat_interleave(CORNERS)), corners), corners


def images_of(seed: int, setting: Setting) -> tuple[DataSet, DataSet, DataSet]:
    """The student's images, and those that the teachers `same` and `other` are taught on."""
    few, many = (
        datasets.load(name="digits", train=count, validation=HELD_OUT, seed=seed)
        for count in (setting.train, setting.taught)  # of one seed the fewer are among the more
    )
    train = placed(few.train, torch.randint(CORNERS, (len(few.train),), generator=seeded(seed, 0, 20)))
    held, test, taught = (everywhere(part) for part in (few.validation, few.test, many.train))
    seen = train.images / 255
    canvas: dict[str, Any] = {"size": train.images.shape[-1], "crop": 0, "flip": False}
    canvas |= {"mean": (float(seen.mean()),), "std": (float(seen.std()),)}
    data = replace(few, **canvas, train=train, validation=held[0], test=test[0])
    corners = [TensorImages(images.images, corner) for images, corner in (taught, held, test)]
    other = replace(data, classes=CORNERS, train=corners[0], validation=corners[1], test=corners[2])
    return data, replace(data, train=taught[0]), other


def wide(*, classes: int, channels: int, size: int) -> nn.Module:
    """The teachers' network."""
    return cnn(classes=classes, channels=channels, size=size, width=WIDTH)


def prepared(seed: int, setting: Setting) -> Start:
    """A seed's images and its three teachers."""
    data, *taught = images_of(seed, setting)
    own = seeded(seed, 0, 21).initial_seed()  # one stream for all would give teacher and student like filters
    teachers, reached = {"random": untrained(data, own)}, {}
    for name, images in zip(("same", "other"), taught, strict=True):
        task = Task("teacher", TEACHER, images, Recipe(lr=0.05, batch_size=64), setting.teacher_epochs)
        learner = task.learner(Genome(), seed=own)
        for _ in range(setting.teacher_epochs):
            learner.step()
        teachers[name] = TrainedTeacher(TEACHER, learner.model.state_dict(), classes=images.classes)
        reached[name] = learner.evaluate(images.test)["accuracy"]
    return Start(data, teachers, reached)


def untrained(data: DataSet, seed: int) -> TrainedTeacher:
    """A teacher as it is drawn, its batch normalization by the statistics of the training images."""
    network = build_model(TEACHER, seed=seed, classes=data.classes, channels=data.channels, size=data.size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # so that one batch settles them
    images, _ = next(data.train.batches(len(data.train)))
    with torch.no_grad():
        network.train()(Normalize(data, torch.device("cpu"))(images))
    return TrainedTeacher(TEACHER, network.state_dict())


# Students -------------------------------------------------------------------------------------------------------------


def trained_student(begun: Start, arm: Arm, weight: float, epochs: int, seed: int, part: str) -> dict[str, float]:
    """One student's accuracy on a part of the images, what there is to say of its projection, and seconds."""
    began = time.perf_counter()
    recipe, teacher = Recipe(lr=0.05, batch_size=50, clip=1.0), begun.teachers.get(arm.teacher)
    task = Task("student", STUDENT, begun.data, recipe, epochs, teacher=teacher, distill=arm.distill(weight))
    learner = task.learner(Genome(), seed=seed)
    for _ in range(epochs):
        metrics = learner.step()
    found = {"accuracy": learner.evaluate(getattr(begun.data, part))["accuracy"]}
    if arm.projection != NONE:
        where = f"distill/{arm.loss}/{LAST}/" if arm.loss == "attention" else f"distill/{arm.loss}/"
        found |= {name: metrics[where + name] for name in ("rank", "transfer", "regularization")}
    return found | {"seconds": time.perf_counter() - began}


# Figures --------------------------------------------------------------------------------------------------------------


def _row(arm: Arm, weight: float, known: Sequence[float], runs: Sequence[Mapping[str, float]]) -> Row:
    by_seed = [run["accuracy"] for run in runs]
    accuracy, half = interval(by_seed)
    row: Row = {**arm._asdict(), "weight": weight or None, "accuracy": accuracy, "half_width_95": half}
    row["accuracy_by_seed"] = by_seed
    row |= {key: _mean(runs, key) for key in runs[0] if key != "accuracy"}
    return row | ({"weights": list(arm.weights), "validation": list(known)} if known else {})


def _left_out(arm: Arm) -> Row:
    return {**arm._asdict(), "accuracy": None, "note": "needs features of one width"}


def _teachers(reached: Sequence[Mapping[str, float]]) -> list[Row]:
    note = "the teacher itself, on what it was taught"
    scored = {name: [one[name] for one in reached] for name in reached[0]}
    return [
        {"teacher": name, "accuracy": float(np.mean(by_seed)), "accuracy_by_seed": by_seed, "note": note}
        for name, by_seed in scored.items()
    ]


def _mean(runs: Sequence[Mapping[str, float]], key: str) -> float:
    return float(np.mean([run[key] for run in runs]))


def _by_arm(rows: Sequence[Row], key: str, scale: float = 1) -> dict[Arm, Array]:
    """What the rows of the arms that were trained say, the arm's name first."""
    arms = (row for row in rows if "loss" in row and row["accuracy"] is not None)
    return {Arm(*(row[name] for name in Arm._fields)): scale * np.array(row[key]) for row in arms if key in row}


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """The gains, in points, and the p beside each."""
    scored, summary = _by_arm(rows, "accuracy_by_seed", scale=100), dict[str, Any]()

    def reached(teacher: str, projection: str) -> Array:
        return np.mean([scored[Arm(teacher, loss, projection)] for loss in LOSSES], axis=0)

    alone, inverted, usual = scored[LABELS], "inverted", "student"
    summary |= _tested({f"inverted_minus_student_{t}": reached(t, inverted) - reached(t, usual) for t in TEACHERS})
    summary |= _tested({f"inverted_minus_none_{t}": reached(t, inverted) - alone for t in TEACHERS})
    summary |= _tested({f"student_minus_none_{t}": reached(t, usual) - alone for t in TEACHERS})
    summary |= _tested({"spectral_minus_none": scored[SPECTRAL] - alone})
    summary |= _tested({"kd_minus_none": scored[KD] - alone})
    drawn = torch.rand(4 * WIDTH, 64, generator=seeded(0)) - 0.5
    return summary | {"rank_as_drawn": effective_rank(drawn), "seeds": len(alone)}


def _tested(gains: Mapping[str, Array]) -> dict[str, float]:
    p = [float(stats.ttest_1samp(gain, 0).pvalue) if np.ptp(gain) else 1.0 for gain in gains.values()]
    found: dict[str, float] = {}
    for (what, gain), corrected in zip(gains.items(), holm(p), strict=True):
        found |= {what: float(gain.mean()), f"p_{what}": corrected}
    return found


def plot(rows: Sequence[Row], summary: Mapping[str, Any]) -> None:
    """Above, what each arm adds to the labels alone, by seed, with mean and interval; below, the rank of its P."""
    from matplotlib.figure import Figure  # here, since every worker would wait for it
    from matplotlib.lines import Line2D

    scored, ranks = _by_arm(rows, "accuracy_by_seed", scale=100), _by_arm(rows, "rank")
    taught = {
        "same": "same: taught which digit",
        "other": "other: taught which corner",
        "random": "random: taught nothing",
    }
    panels: list[tuple[str, tuple[str, ...], list[Arm]]] = [("for comparison", ("spectral", "kd"), [SPECTRAL, KD])]
    panels += [(taught[name], LOSSES, [arm for arm in FEATURES if arm.teacher == name]) for name in TEACHERS]
    figure = Figure(figsize=(11, 6), layout="constrained")
    lines = figure.subplots(2, 4, sharey="row", width_ratios=(1.3, 3, 3, 3), height_ratios=(3, 1))
    for (above, below), (title, names, arms) in zip(lines.T, panels, strict=True):
        for arm in arms:
            color, shift = COLORS[arm.projection], 0.25 * (PROJECTIONS.index(arm.projection) - 1)
            place, gain = names.index(arm.loss) + shift * (arm in FEATURES), scored[arm] - scored[LABELS]
            above.plot([place - 0.05] * len(gain), gain, "o", color=color, markersize=4, alpha=0.4, markeredgewidth=0)
            mean, half = interval(gain.tolist())
            above.errorbar(place + 0.05, mean, half, fmt="o", color=color, markersize=5)
            if arm in ranks:
                below.plot(place, ranks[arm], "o", color=color, markersize=5)
        above.axhline(0, color="#999999", linestyle=":", zorder=0)
        above.set_title(title, loc="left", fontsize=11)
        above.set_xticks(range(len(names)), names)
        below.set_xticks(range(len(names)), [])
        below.set_yticks((0, 32, 64))
        below.set_ylim(0, 64)
        if arms[0] in FEATURES:
            below.axhline(summary["rank_as_drawn"], color="#999999", linestyle=":", zorder=0)
        for axes in (above, below):
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.spines[["top", "right"]].set_visible(False)
    seeds = f"{summary['seeds']} seeds, mean, 95 % interval"
    lines[0, 0].set_ylabel(
        f"test accuracy less that of the labels alone,\n{scored[LABELS].mean():.1f} %, in points: {seeds}"
    )
    lines[1, 1].set_ylabel("effective rank\nof P, of 64")
    lines[1, 1].tick_params(labelleft=True)
    lines[1, 3].annotate("as drawn", (-0.45, summary["rank_as_drawn"] + 3), color="#737373", fontsize=9)
    lines[1, 0].set_axis_off()
    whose = {"none": "nobody's", "student": "the student's", "inverted": "the teacher's:\ninverted"}
    keys = [Line2D([], [], marker="o", linestyle="", color=COLORS[name], label=whose[name]) for name in PROJECTIONS]
    lines[1, 0].legend(handles=keys, title="projected features", loc="center", frameon=False, fontsize=9)
    figure.savefig(buffer := BytesIO(), format="png", dpi=120, metadata={"Software": None})
    write_atomic(PICTURE, buffer.getvalue())


if __name__ == "__main__":
    main()
