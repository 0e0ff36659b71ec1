"""Do HARD's augmentors help students on test images, and on corrupted ones, the like of which nobody trained on?

Two sets: `digits` of 8 × 8, 300 to train on, for a perceptron, as in `t_stddev.py`; and `photographs`, 600 of the same
digits in 16 × 16, painted over squares of scikit-learn's two photographs (as MNIST-M, https://arxiv.org/abs/1505.07818)
for a small convolutional student. Training, validation and test take their own digits, over their own columns of the
photographs. A set has one teacher, which on photographs saw every training digit over eight other squares, and one VAE.

All arms take the same student steps under 0.1 · CE(x) + 0.9 · (KD(x) + KD(x̃)), T = 4: `kd` has no second view x̃,
`trivialaugment` and `cutmixpick` learn nothing, `hard_…` (Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890) play
the game under the catalog's settings but in phases half as long, the augmentor's steps on top, and `vae` is
`hard_vae` with nothing to learn.

The test images are scored once, after the last epoch, as they are and under five corruptions of one severity each,
chosen on validation images so that a student without teacher loses visibly; `corrupted` is the mean of the five.
Every p is a paired t-test's, by the students' seeds, whose teacher and images are the same: it says nothing of others.
Those of the five `hard_…` are corrected after Holm (1979) within a set, a measure (clean, corrupted) and an opponent
(`kd`, `trivialaugment`); `hard_vae_minus_vae` is one test alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import cycle, islice, product
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from benchmarks.common.record import ROOT, Row, arguments, start
from results.analysis.statistics import holm
from spaces import Genome
from spaces.augmentations import Augmentation, HardVae, augmentation
from spaces.core.io import write_atomic
from spaces.policy.sampling import seeded
from trainables import data as datasets
from trainables.data import DataSet, Images, TensorImages
from trainables.distillation.student import Distill
from trainables.hard.vae_pretraining import weights_of, with_vae
from trainables.task import Task, TrainedTeacher
from trainables.training.learner import Learner
from trainables.training.recipe import Recipe

PICTURE = ROOT / "docs" / "images" / "hard_corrupted.png"
KD, TRIVIAL, CONTROL = "kd", "trivialaugment", "vae"
HARD = ("hard_affine", "hard_mix", "hard_color", "hard_vae", "hard_chain")
RULES: dict[str, Any] = {"student_steps": 25}
CORRUPTIONS = ("noise", "blur", "contrast", "rotation", "translation")
CONTRAST, ANGLE, SHIFT = 0.5, 20, 1  # what remains; to either side, degrees; along one axis, to either side, px
SIDE, SQUARE = 16, 32  # of an image on a photograph, and of the photograph's square, which is halved, px
COLUMNS = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}
"""Where a part's squares lie, in shares of the photographs' width."""


@dataclass(frozen=True)
class Setting:
    """What is trained on one set, and how strong are noise (its deviation, of 1) and blur (its deviation, px)."""

    student: str
    train: int
    copies: int
    teacher_epochs: int
    epochs: int
    seeds: int
    noise: float
    blur: float
    vae_steps: int = 1500


SETTINGS = {
    "digits": Setting("mlp", train=300, copies=1, teacher_epochs=40, epochs=120, seeds=5, noise=0.3, blur=0.8),
    "photographs": Setting("cnn", train=600, copies=8, teacher_epochs=15, epochs=40, seeds=5, noise=0.1, blur=1.0),
}
SHORT: dict[str, Any] = {"train": 64, "copies": 1, "teacher_epochs": 1, "epochs": 2, "seeds": 2, "vae_steps": 5}


def main() -> None:
    """Train every arm with every seed on both sets, in pairs by seed."""
    benchmark = start(__file__, arguments(__doc__))
    seed, rows, changes = benchmark.seed, list[Row](), SHORT if benchmark.quick else {}
    settings = {name: replace(setting, **changes) for name, setting in SETTINGS.items()}
    with ProcessPoolExecutor(1 if benchmark.quick else None, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        starts = {name: pool.submit(prepared, name, setting, seed) for name, setting in settings.items()}
        pending: dict[tuple[str, str], list[Future[dict[str, float]]]] = {}
        for name, setting in settings.items():
            task, choices, _ = starts[name].result()
            for repeat, (arm, choice) in product(range(setting.seeds), choices.items()):
                job = pool.submit(trained_student, task, choice, setting, seed * 1000 + repeat)
                pending.setdefault((name, arm), []).append(job)
        for name in settings:
            _, choices, reached = starts[name].result()
            rows += [_row(name, arm, [job.result() for job in pending[name, arm]]) for arm in choices]
            rows.append({"set": name, "arm": "teacher", **reached})
    if not benchmark.quick:
        plot(rows)
    benchmark.finish(rows, figures(rows))


def arms(data: DataSet, vae_steps: int) -> tuple[dict[str, Augmentation | None], Mapping[str, Mapping[str, Tensor]]]:
    """What makes each arm's second view, None: there is none; and the VAE's weights, trained once for two arms."""
    vae = with_vae(HardVae(vae_steps=vae_steps, **RULES), data.train, channels=data.channels)
    fixed = {name: augmentation(name) for name in (TRIVIAL, "cutmixpick")}
    fixed |= {name: augmentation({"kind": name, **RULES}) for name in HARD}
    control = augmentation(vae.to_json() | {"reach": 0.0})
    return {KD: None, **fixed, "hard_vae": vae, CONTROL: control}, weights_of((vae,))


def images_of(name: str, setting: Setting, seed: int, copies: int = 1, validation: int = 100) -> DataSet:
    """The set of that name; `copies`: over how many squares every training digit is painted."""
    digits = datasets.load(name="digits", train=setting.train, validation=validation, seed=seed)
    if name == "digits":
        return digits
    made = []
    for place, (part, columns) in enumerate(COLUMNS.items()):
        shapes, labels = next(getattr(digits, part).batches(10_000))
        repeats = copies if part == "train" else 1
        generator = seeded(seed, place, 10 + copies)
        ground = squares(columns, repeats * len(labels), generator)
        pixels = painted(ground, (shapes / 255).repeat(repeats, 1, 1, 1), generator)
        made.append(TensorImages((255 * pixels).round().to(torch.uint8), labels.repeat(repeats)))
    seen, (train, held, test) = made[0].images / 255, made
    mean, std = (tuple(figure.tolist()) for figure in (seen.mean((0, 2, 3)), seen.std((0, 2, 3))))
    data = replace(digits, name=name, channels=3, size=SIDE, mean=mean, std=std)
    return replace(data, train=train, validation=held, test=test)


def squares(columns: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """Random squares, halved, (count, 3, SIDE, SIDE) in [0, 1], from between two shares of the photographs' width."""
    from sklearn.datasets import load_sample_images  # here, since it takes seconds

    photos, found = load_sample_images().images, []
    for photo in islice(cycle(photos), count):
        first, end = (round(share * photo.shape[1]) for share in columns)
        top = int(torch.randint(photo.shape[0] - SQUARE + 1, (), generator=generator))
        left = int(torch.randint(first, end - SQUARE + 1, (), generator=generator))
        found.append(photo[top : top + SQUARE, left : left + SQUARE])
    return F.avg_pool2d(torch.tensor(np.stack(found)).permute(0, 3, 1, 2) / 255, SQUARE // SIDE)


def painted(ground: Tensor, shapes: Tensor, generator: torch.Generator) -> Tensor:
    """Shapes (B, 1, h, w) over ground (B, 3, H, W), in a color 0.3 or more from its mean in every channel."""
    cover = F.interpolate(shapes, ground.shape[-2:], mode="bilinear", align_corners=False)
    way = 0.3 + 0.4 * torch.rand(len(ground), 3, 1, 1, generator=generator)  # round a circle of length 1
    return ground + cover * ((ground.mean((2, 3), keepdim=True) + way) % 1 - ground)


def corrupted(images: Images, setting: Setting) -> dict[str, TensorImages]:
    """A copy of the images under each of `CORRUPTIONS`, every time the same."""
    (pixels, labels), found = next(images.batches(len(images))), {}
    for place, name in enumerate(CORRUPTIONS):
        changed = _corrupt(name, pixels / 255, setting, seeded(0, place, 12)).clamp(0, 1)
        found[name] = TensorImages((255 * changed).round().to(torch.uint8), labels)
    return found


def _corrupt(name: str, images: Tensor, setting: Setting, generator: torch.Generator) -> Tensor:
    if name == "noise":
        return images + setting.noise * torch.randn(images.shape, generator=generator)
    if name == "blur":
        bell = torch.exp(-0.5 * (torch.arange(-2, 3) / setting.blur) ** 2)
        kernel = (bell[:, None] * bell / bell.sum() ** 2).expand(images.shape[1], 1, 5, 5)
        return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=len(kernel))
    if name == "contrast":
        mean = images.mean((1, 2, 3), keepdim=True)
        return mean + CONTRAST * (images - mean)
    across, up, by = np.cos(np.radians(ANGLE)), np.sin(np.radians(ANGLE)), 2 * SHIFT / images.shape[-1]
    moves = [[[across, -up, 0], [up, across, 0]], [[across, up, 0], [-up, across, 0]]]
    if name == "translation":
        moves = [[[1, 0, x], [0, 1, y]] for x, y in ((-by, 0), (by, 0), (0, -by), (0, by))]
    theta = torch.tensor(moves, dtype=torch.float32)[torch.randint(len(moves), (len(images),), generator=generator)]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    behind = "zeros" if images.shape[1] == 1 else "reflection"  # a photograph goes on as its mirror image
    return F.grid_sample(images, grid, padding_mode=behind, align_corners=False)


def prepared(name: str, setting: Setting, seed: int) -> tuple[Task, dict[str, Augmentation | None], dict[str, float]]:
    """The students' task with its teacher, the arms, and what the teacher reaches."""
    data, recipe = images_of(name, setting, seed), Recipe(lr=0.05, batch_size=64)
    seen = replace(data, train=images_of(name, setting, seed, setting.copies).train)
    learner = Task("teacher", "resnet8", seen, recipe, setting.teacher_epochs).learner(Genome(), seed=seed)
    for _ in range(setting.teacher_epochs):
        learner.step()
    teacher = TrainedTeacher("resnet8", learner.model.state_dict())
    choices, weights = arms(data, setting.vae_steps)
    how = (data, recipe, setting.epochs, None, 1, teacher, Distill(alpha=0.9), weights)
    return Task("student", setting.student, *how), choices, scores(learner, data.test, setting)


def trained_student(task: Task, choice: Augmentation | None, setting: Setting, seed: int) -> dict[str, float]:
    """One student's scores, steps and seconds."""
    began = time.perf_counter()
    learner = task.learner(Genome() if choice is None else Genome(augment=choice), seed=seed)
    augmentor_steps = sum(learner.step().get("hard/augmentor_steps", 0.0) for _ in range(task.epochs))
    steps, spent = task.epochs * (len(task.data.train) // task.recipe.batch_size), time.perf_counter() - began
    counts = {"student_steps": steps, "augmentor_steps": augmentor_steps, "seconds": spent}
    return scores(learner, task.data.test, setting) | counts


def scores(learner: Learner, images: Images, setting: Setting) -> dict[str, float]:
    """Accuracy on the images, on each corrupted copy, and the mean over the copies."""
    copies = {name: learner.evaluate(copy)["accuracy"] for name, copy in corrupted(images, setting).items()}
    return {"clean": learner.evaluate(images)["accuracy"], **copies, "corrupted": float(np.mean(list(copies.values())))}


def _row(name: str, arm: str, runs: Sequence[dict[str, float]]) -> Row:
    row: Row = {"set": name, "arm": arm}
    for key in runs[0]:
        row[key] = float(np.mean(by_seed := [run[key] for run in runs]))
        if key in ("clean", "corrupted"):
            half = float(stats.sem(by_seed) * stats.t.ppf(0.975, len(by_seed) - 1))
            row |= {f"{key}_half_width_95": half, f"{key}_by_seed": by_seed}
    return row


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """What each `hard_…` adds to its opponents, and the corrected p beside it."""
    opponents = ((KD, "clean"), (KD, "corrupted"), (TRIVIAL, "corrupted"), (CONTROL, "clean"), (CONTROL, "corrupted"))
    summary: dict[str, Any] = {}
    for name, (theirs, measure) in product(dict.fromkeys(row["set"] for row in rows), opponents):
        key = f"{measure}_by_seed"
        scored = {row["arm"]: np.array(row[key]) for row in rows if row["set"] == name and key in row}
        gains = {arm: scored[arm] - scored[theirs] for arm in (("hard_vae",) if theirs == CONTROL else HARD)}
        p = [float(stats.ttest_1samp(gain, 0).pvalue) if np.ptp(gain) else 1.0 for gain in gains.values()]
        for (arm, gain), corrected in zip(gains.items(), holm(p), strict=True):
            what = f"{name}_{arm}_minus_{theirs}_{measure}"
            summary |= {what: float(gain.mean()), f"p_{what}": corrected}
    return summary


def plot(rows: Sequence[Row]) -> None:
    """For each set the arms by their accuracy on corrupted images, and beside it that on clean ones."""
    from matplotlib.figure import Figure  # here, since every worker would wait for it

    figure = Figure(figsize=(9.5, 6.4), layout="constrained")
    for name, line in zip(SETTINGS, figure.subplots(2, 2, sharey="row"), strict=True):
        ranked = sorted((r for r in rows if r["set"] == name and "seconds" in r), key=lambda row: row["corrupted"])
        arms = [row["arm"] for row in ranked]
        for axes, measure, color in zip(line, ("corrupted", "clean"), ("#d55e00", "#0072b2"), strict=True):
            means, halves = ([row[key] for row in ranked] for key in (measure, f"{measure}_half_width_95"))
            axes.errorbar(means, arms, xerr=halves, fmt="o", color=color)
            axes.axvline(means[arms.index(KD)], color="#999999", linestyle=":", zorder=0)
            axes.set_xlabel(f"accuracy on {measure} test images, {SETTINGS[name].seeds} seeds, 95 % interval")
            axes.spines[["top", "right"]].set_visible(False)
        line[0].set_title(name, loc="left", fontsize=11)
    figure.savefig(buffer := BytesIO(), format="png", dpi=120, metadata={"Software": None})
    write_atomic(PICTURE, buffer.getvalue())


if __name__ == "__main__":
    main()
