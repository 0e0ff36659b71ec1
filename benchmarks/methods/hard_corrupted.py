"""Do HARD's augmentors help students on clean test images, and on corrupted ones that no student was trained on?

Two data sets: `digits` of 8 × 8, 300 for training, for a perceptron, as in `benchmarks.methods.t_stddev`; and
`photographs`, 600 of the same digits in 16 × 16, painted over squares of scikit-learn's two photographs (as in MNIST-M,
https://arxiv.org/abs/1505.07818), for a small convolutional student. Training, validation and test parts have their own
digits and their own columns of the photographs. Each data set has one teacher and one VAE. The teacher of `photographs`
saw every training digit over eight other squares.

All arms train for the same number of student steps with 0.1 · CE(x) + 0.9 · (KD(x) + KD(x̃)), T = 4. `kd` has no second
view x̃. `trivialaugment` and `cutmixpick` do not learn. `hard_…` (Nix, Burg, Sinz 2023,
https://arxiv.org/abs/2305.14890) play the game with the catalog's settings but phases of half the length; the
augmentor's steps come on top. `vae` is `hard_vae` without learning.

The test images are scored once, after the last epoch, clean and under five corruptions of one severity each. The
severity was selected on validation images so that a student without a teacher clearly loses. `corrupted` is the mean of
the five. Every p is that of a paired t test over the students' seeds, which share teacher and images; it does not cover
other teachers or images. The p of the five `hard_…` are corrected (Holm 1979) within a data set, a measure (clean,
corrupted) and an opponent (`kd`, `trivialaugment`). `hard_vae_minus_vae` is a single test.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice, product
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import ROOT, Row, argument_parser, start
from benchmarks.common.training import train_teacher
from results.analysis.statistics import holm, interval
from spaces import Genome
from spaces.augmentations import Augmentation, HardVae, augmentation
from spaces.core.seeding import seeded_generator
from trainables import data as datasets
from trainables.data import DataSet, Images, TensorImages
from trainables.distillation.objective import Distill
from trainables.hard.vae_pretraining import weights_of, with_vae
from trainables.task import Task
from trainables.training.learner import Learner
from trainables.training.recipe import Recipe

PLOT = ROOT / "docs" / "images" / "hard_corrupted.png"
KD, TRIVIAL, CONTROL = "kd", "trivialaugment", "vae"
HARD = ("hard_affine", "hard_mix", "hard_color", "hard_vae", "hard_chain")
RULES: dict[str, Any] = {"student_steps": 25}
CORRUPTIONS = ("noise", "blur", "contrast", "rotation", "translation")
CONTRAST, ANGLE, SHIFT = 0.5, 20, 1  # remaining contrast; degrees to either side; pixels along one axis
SIDE, SQUARE = 16, 32  # pixels of an image, and of the square of a photograph that is scaled to it
COLUMNS = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}
"""Range of the squares of each part, as shares of the photographs' width."""


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark on one data set.

    Args:
        student: Model of the students.
        train: Training images.
        copies: Squares over which every training digit is painted for the teacher.
        teacher_epochs: Epochs of the teacher.
        epochs: Epochs of a student.
        seeds: Students per arm.
        noise: Standard deviation of the noise, for pixels in [0, 1].
        blur: Standard deviation of the blur, in pixels.
        vae_steps: Training steps of the VAE.
    """

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
    """Train every arm with every seed on both data sets."""
    benchmark = start(__file__, argument_parser(__doc__))
    seed, rows, overrides = benchmark.seed, list[Row](), SHORT if benchmark.quick else {}
    settings = {name: replace(setting, **overrides) for name, setting in SETTINGS.items()}
    with ProcessPoolExecutor(1 if benchmark.quick else None, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        prepared = {name: pool.submit(prepare, name, setting, seed) for name, setting in settings.items()}
        pending: dict[tuple[str, str], list[Future[dict[str, float]]]] = {}
        for name, setting in settings.items():
            task, views, _ = prepared[name].result()
            for repeat, (arm, view) in product(range(setting.seeds), views.items()):
                job = pool.submit(train_student, task, view, setting, seed * 1000 + repeat)
                pending.setdefault((name, arm), []).append(job)
        for name in settings:
            _, views, teacher_scores = prepared[name].result()
            rows += [_row(name, arm, [job.result() for job in pending[name, arm]]) for arm in views]
            rows.append({"set": name, "arm": "teacher", **teacher_scores})
    if not benchmark.quick:
        plot(rows)
    benchmark.finish(rows, summarize(rows))


def build_arms(
    data: DataSet, vae_steps: int
) -> tuple[dict[str, Augmentation | None], Mapping[str, Mapping[str, Tensor]]]:
    """Return the second view of each arm, None for an arm without one, and the VAE's weights for two arms."""
    vae = with_vae(HardVae(vae_steps=vae_steps, **RULES), data.train, channels=data.channels)
    fixed = {name: augmentation(name) for name in (TRIVIAL, "cutmixpick")}
    fixed |= {name: augmentation({"kind": name, **RULES}) for name in HARD}
    control = augmentation(vae.to_json() | {"reach": 0.0})
    return {KD: None, **fixed, "hard_vae": vae, CONTROL: control}, weights_of((vae,))


def build_data(name: str, setting: Setting, seed: int, copies: int = 1, validation: int = 100) -> DataSet:
    """Return the data set of that name, each training digit painted over `copies` squares."""
    digits = datasets.load(name="digits", train=setting.train, validation=validation, seed=seed)
    if name == "digits":
        return digits
    parts = []
    for place, (part, columns) in enumerate(COLUMNS.items()):
        shapes, labels = next(getattr(digits, part).batches(10_000))
        repeats = copies if part == "train" else 1
        generator = seeded_generator(seed, place, 10 + copies)
        ground = photo_squares(columns, repeats * len(labels), generator)
        pixels = paint(ground, (shapes / 255).repeat(repeats, 1, 1, 1), generator)
        parts.append(TensorImages((255 * pixels).round().to(torch.uint8), labels.repeat(repeats)))
    unit, (train, held_out, test) = parts[0].images / 255, parts
    mean, std = (tuple(value.tolist()) for value in (unit.mean((0, 2, 3)), unit.std((0, 2, 3))))
    data = replace(digits, name=name, channels=3, size=SIDE, mean=mean, std=std)
    return replace(data, train=train, validation=held_out, test=test)


def photo_squares(columns: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """Return random squares (count, 3, SIDE, SIDE) in [0, 1] from a range of the photographs' width."""
    from sklearn.datasets import load_sample_images  # this import takes seconds

    photos, squares = load_sample_images().images, []
    for photo in islice(cycle(photos), count):
        first, end = (round(share * photo.shape[1]) for share in columns)
        top = int(torch.randint(photo.shape[0] - SQUARE + 1, (), generator=generator))
        left = int(torch.randint(first, end - SQUARE + 1, (), generator=generator))
        squares.append(photo[top : top + SQUARE, left : left + SQUARE])
    return F.avg_pool2d(torch.tensor(np.stack(squares)).permute(0, 3, 1, 2) / 255, SQUARE // SIDE)


def paint(ground: Tensor, shapes: Tensor, generator: torch.Generator) -> Tensor:
    """Paint shapes (B, 1, h, w) over ground (B, 3, H, W), at least 0.3 from its mean color in every channel."""
    opacity = F.interpolate(shapes, ground.shape[-2:], mode="bilinear", align_corners=False)
    offset = 0.3 + 0.4 * torch.rand(len(ground), 3, 1, 1, generator=generator)  # modulo 1
    return ground + opacity * ((ground.mean((2, 3), keepdim=True) + offset) % 1 - ground)


def corrupt(images: Images, setting: Setting) -> dict[str, TensorImages]:
    """Return a copy of the images under each of `CORRUPTIONS`; the copies are the same in every call."""
    (pixels, labels), copies = next(images.batches(len(images))), {}
    for place, name in enumerate(CORRUPTIONS):
        changed = _apply_corruption(name, pixels / 255, setting, seeded_generator(0, place, 12)).clamp(0, 1)
        copies[name] = TensorImages((255 * changed).round().to(torch.uint8), labels)
    return copies


def _apply_corruption(name: str, images: Tensor, setting: Setting, generator: torch.Generator) -> Tensor:
    if name == "noise":
        return images + setting.noise * torch.randn(images.shape, generator=generator)
    if name == "blur":
        weights = torch.exp(-0.5 * (torch.arange(-2, 3) / setting.blur) ** 2)
        kernel = (weights[:, None] * weights / weights.sum() ** 2).expand(images.shape[1], 1, 5, 5)
        return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=len(kernel))
    if name == "contrast":
        mean = images.mean((1, 2, 3), keepdim=True)
        return mean + CONTRAST * (images - mean)
    cos, sin, shift = np.cos(np.radians(ANGLE)), np.sin(np.radians(ANGLE)), 2 * SHIFT / images.shape[-1]
    matrices = [[[cos, -sin, 0], [sin, cos, 0]], [[cos, sin, 0], [-sin, cos, 0]]]
    if name == "translation":
        matrices = [[[1, 0, x], [0, 1, y]] for x, y in ((-shift, 0), (shift, 0), (0, -shift), (0, shift))]
    theta = torch.tensor(matrices, dtype=torch.float32)[
        torch.randint(len(matrices), (len(images),), generator=generator)
    ]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    padding = "zeros" if images.shape[1] == 1 else "reflection"  # digits have a black border, photographs do not
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def prepare(name: str, setting: Setting, seed: int) -> tuple[Task, dict[str, Augmentation | None], dict[str, float]]:
    """Return the students' task with its teacher, the second view of each arm, and the teacher's scores."""
    data, recipe = build_data(name, setting, seed), Recipe(lr=0.05, batch_size=64)
    teacher_data = replace(data, train=build_data(name, setting, seed, setting.copies).train)
    learner, teacher = train_teacher(Task("teacher", "resnet8", teacher_data, recipe, setting.teacher_epochs), seed)
    views, weights = build_arms(data, setting.vae_steps)
    distill = Distill(alpha=0.9)
    task = Task("student", setting.student, data, recipe, setting.epochs, None, 1, teacher, distill, weights)
    return task, views, score(learner, data.test, setting)


def train_student(task: Task, view: Augmentation | None, setting: Setting, seed: int) -> dict[str, float]:
    """Train one student, and return its scores, steps and seconds."""
    started = time.perf_counter()
    learner = task.learner(Genome() if view is None else Genome(augment=view), seed=seed)
    augmentor_steps = sum(learner.step().get("hard/augmentor_steps", 0.0) for _ in range(task.epochs))
    steps, seconds = task.epochs * (len(task.data.train) // task.recipe.batch_size), time.perf_counter() - started
    counts = {"student_steps": steps, "augmentor_steps": augmentor_steps, "seconds": seconds}
    return score(learner, task.data.test, setting) | counts


def score(learner: Learner, images: Images, setting: Setting) -> dict[str, float]:
    """Return the accuracy on the images, on each corrupted copy, and the mean over the copies."""
    copies = {name: learner.evaluate(copy)["accuracy"] for name, copy in corrupt(images, setting).items()}
    return {"clean": learner.evaluate(images)["accuracy"], **copies, "corrupted": float(np.mean(list(copies.values())))}


def _row(name: str, arm: str, runs: Sequence[dict[str, float]]) -> Row:
    row: Row = {"set": name, "arm": arm}
    for key in runs[0]:
        row[key] = float(np.mean(by_seed := [run[key] for run in runs]))
        if key in ("clean", "corrupted"):
            row |= {f"{key}_half_width_95": interval(by_seed)[1], f"{key}_by_seed": by_seed}
    return row


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the gain of each `hard_…` over its opponents, with the corrected p."""
    opponents = ((KD, "clean"), (KD, "corrupted"), (TRIVIAL, "corrupted"), (CONTROL, "clean"), (CONTROL, "corrupted"))
    summary: dict[str, Any] = {}
    for name, (opponent, measure) in product(dict.fromkeys(row["set"] for row in rows), opponents):
        column = f"{measure}_by_seed"
        scored = {row["arm"]: np.array(row[column]) for row in rows if row["set"] == name and column in row}
        gains = {arm: scored[arm] - scored[opponent] for arm in (("hard_vae",) if opponent == CONTROL else HARD)}
        p = [float(stats.ttest_1samp(gain, 0).pvalue) if np.ptp(gain) else 1.0 for gain in gains.values()]
        for (arm, gain), corrected in zip(gains.items(), holm(p), strict=True):
            key = f"{name}_{arm}_minus_{opponent}_{measure}"
            summary |= {key: float(gain.mean()), f"p_{key}": corrected}
    return summary


def plot(rows: Sequence[Row]) -> None:
    """Plot the accuracy of each arm on corrupted and on clean images, for each data set."""
    from matplotlib.figure import Figure  # every worker process would wait for this import

    figure = Figure(figsize=(9.5, 6.4), layout="constrained")
    for name, line in zip(SETTINGS, figure.subplots(2, 2, sharey="row"), strict=True):
        ranked = sorted((r for r in rows if r["set"] == name and "seconds" in r), key=lambda row: row["corrupted"])
        arms = [row["arm"] for row in ranked]
        for axes, measure, color in zip(line, ("corrupted", "clean"), ("#d55e00", "#0072b2"), strict=True):
            means, halves = ([row[key] for row in ranked] for key in (measure, f"{measure}_half_width_95"))
            axes.errorbar(means, arms, xerr=halves, fmt="o", color=color)
            axes.axvline(means[arms.index(KD)], color="#999999", linestyle=":", zorder=0)
            axes.set_xlabel(f"accuracy on {measure} test images, {SETTINGS[name].seeds} seeds, 95 % interval")
        line[0].set_title(name, loc="left", fontsize=11)
    save_plot(figure, figure.axes, PLOT)


if __name__ == "__main__":
    main()
