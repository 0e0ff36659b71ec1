"""Does T. stddev, which needs no student, predict the students' loss, and does Pick improve CutMix?

One teacher is trained without augmentation and ranks the catalog. Then students are distilled under every entry, with
the same seeds and the same number of steps. The loss is 0.1 · CE(x) + 0.9 · (KD(x) + KD(x̃)), T = 4. The second view x̃
has the teacher's output as its only target, as in the authors' code. `identity` also has a second view, equal to the
first, so that its loss has the same parts; the arm `kd` has none. The test set is used once, after each training.
Correlations are over the augmentations, between T. stddev and the mean test loss over the seeds. The summary has them
for the augmentations that pass the check for uninformative noise, and with the suffix `_all` for all.

    python -m benchmarks.methods.t_stddev                                            digits, ten minutes on two cores
    python -m benchmarks.methods.t_stddev --data cifar10 --root DIR --device cuda    a larger data set

Method: Wang et al. 2022 (NeurIPS), https://arxiv.org/abs/2012.02909.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import ROOT, Row, argument_parser, start
from benchmarks.common.training import train_epochs, train_teacher
from spaces import Genome
from spaces.augmentations import CATALOG, Augmentation, CutMixPick, Cutout, Identity, Mixup, Pick
from trainables import data as datasets
from trainables.data import DataSet
from trainables.distillation.objective import Distill
from trainables.screening.ranking import Precision, Screening, screen
from trainables.task import Task, TrainedTeacher, test_score
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.recipe import Recipe

PLOT = ROOT / "docs" / "images" / "t_stddev.png"
KD, CUTMIX, CUTMIXPICK = "kd", "cutmix", "cutmixpick"


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark on one data set.

    Args:
        teacher: Model of the teacher.
        student: Model of the students.
        teacher_epochs: Epochs of the teacher.
        epochs: Epochs of each student.
        seeds: Students per augmentation.
        means: Means of the teacher's output that T. stddev uses.
    """

    teacher: str
    student: str
    teacher_epochs: int
    epochs: int
    seeds: int
    means: int


SETTINGS = {
    "digits": Setting("resnet8", "mlp", teacher_epochs=40, epochs=200, seeds=10, means=300),
    "cifar10": Setting("resnet56", "resnet20", teacher_epochs=200, epochs=200, seeds=5, means=1560),
    "cifar100": Setting("resnet56", "resnet20", teacher_epochs=200, epochs=200, seeds=5, means=1560),
}
QUICK = Setting("resnet8", "mlp", teacher_epochs=1, epochs=1, seeds=2, means=3)


def main() -> None:
    """Rank the augmentations, train the students and correlate."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", default="digits", choices=SETTINGS)
    parser.add_argument("--root", default="data", help="folder of the data set's files")
    parser.add_argument("--device", default="cpu")
    benchmark = start(__file__, parser)
    options, seed = benchmark.options, benchmark.seed
    setting = QUICK if benchmark.quick else SETTINGS[options.data]
    torch.set_num_threads(1)
    # Few training images, so that augmentation matters. Nothing is selected on the validation images.
    train = {"digits": 300}.get(options.data)
    data = datasets.load(name=options.data, root=options.root, train=train, validation=100, seed=seed)
    task = Task("teacher", setting.teacher, data, recipe(), setting.teacher_epochs)
    _, teacher = train_teacher(task, seed, device=options.device)
    augmentations = build_augmentations()
    second_views = [one for one in augmentations.values() if one]
    screening = rank(teacher, data, second_views, setting, seed, options.device)
    tests = train_students(augmentations, teacher, data, setting, seed, options.device)
    rows = build_rows(augmentations, screening, tests)
    summary = summarize(rows, tests)
    if not benchmark.quick:
        plot(rows, summary, options.data)
    benchmark.finish(rows, summary, gpu=options.device != "cpu")


def build_augmentations() -> dict[str, Augmentation | None]:
    """Return the second views by name; None is the arm without one."""
    fixed = {kind: cls() for kind, cls in CATALOG.items() if kind not in (Identity.kind, Pick.kind)}
    catalog = {kind: augment for kind, augment in fixed.items() if not augment.learns}
    picks = {"mixup, picked": Pick(base=Mixup()), "cutmixpick, 4 passes": CutMixPick(passes=4)}
    return {KD: None, "identity": Cutout(side=0.0), **catalog, **picks}


def recipe() -> Recipe:
    """Return the recipe of both roles."""
    return Recipe(lr=0.05, batch_size=64)


def rank(
    teacher: TrainedTeacher,
    data: DataSet,
    augmentations: Sequence[Augmentation],
    setting: Setting,
    seed: int,
    device: str,
) -> Screening:
    """Return T. stddev of every augmentation, with the full number of means."""
    task = Task("teacher", teacher.model, data, recipe(), 1)
    network = task.learner(Genome(), seed=0, device=device).model
    network.load_state_dict(teacher.weights)
    precision = Precision(means=setting.means, half_width=0.0)
    return screen(
        FrozenTeacher(network), data, data.train, augmentations, precision=precision, seed=seed, device=device
    )


def train_students(
    augmentations: dict[str, Augmentation | None],
    teacher: TrainedTeacher,
    data: DataSet,
    setting: Setting,
    seed: int,
    device: str,
) -> dict[str, list[dict[str, float]]]:
    """Return the test accuracy and loss of every student by augmentation, one entry per seed."""
    task = Task("student", setting.student, data, recipe(), setting.epochs, teacher=teacher, distill=Distill(alpha=0.9))
    jobs = [
        (name, augment, seed * 1000 + repeat)
        for repeat in range(setting.seeds)
        for name, augment in augmentations.items()
    ]
    processes = (os.cpu_count() or 1) if device == "cpu" else 1
    tests: dict[str, list[dict[str, float]]] = {name: [] for name in augmentations}
    with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
        pending = [(name, pool.submit(_train_student, task, augment, seed, device)) for name, augment, seed in jobs]
        for name, job in pending:
            tests[name].append(job.result())
    return tests


def _one_thread() -> None:
    torch.set_num_threads(1)


def _train_student(task: Task, augment: Augmentation | None, seed: int, device: str) -> dict[str, float]:
    genome = Genome() if augment is None else Genome(augment=augment)
    learner = task.to(device).learner(genome, seed=seed, device=device)
    train_epochs(learner, task.epochs)
    weights = {name: value.cpu() for name, value in learner.model.state_dict().items()}
    return test_score(task, weights, device)


def build_rows(
    augmentations: dict[str, Augmentation | None], screening: Screening, tests: dict[str, list[dict[str, float]]]
) -> list[Row]:
    """Return one row per augmentation: the teacher's screening, and the students' results by seed."""
    by_label = {row.label: asdict(row) for row in screening.rows}
    rows = []
    for name, augment in augmentations.items():
        screened: dict[str, Any] = by_label[augment.label] if augment is not None else {}
        columns = ("t_stddev", "low", "high", "ratio", "ratio_low", "ratio_high", "agreement", "entropy", "informative")
        losses, accuracies = ([test[part] for test in tests[name]] for part in ("loss", "accuracy"))
        scores = {"test_loss": _mean(losses), "test_accuracy": _mean(accuracies)}
        seeds = {"loss_by_seed": losses, "accuracy_by_seed": accuracies}
        rows.append({"augmentation": name, **{key: screened.get(key) for key in columns}, **scores, **seeds})
    return rows


def summarize(rows: Sequence[Row], tests: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the correlations, and the paired gains of Pick and CutMix."""
    screened = [row for row in rows if row["t_stddev"] is not None]
    passed = [row for row in screened if row["informative"]]
    summary: dict[str, Any] = {}
    for suffix, subset in (("", passed), ("_all", screened)):
        spread, loss = [row["t_stddev"] for row in subset], [row["test_loss"] for row in subset]
        for name, test in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
            result = test(spread, loss)
            summary |= {f"{name}{suffix}": float(result.statistic), f"p_{name}{suffix}": float(result.pvalue)}
    summary["augmentations"] = len(passed)
    for key, ours, theirs in (("pick_minus_cutmix", CUTMIXPICK, CUTMIX), ("cutmix_minus_kd", CUTMIX, KD)):
        gain = [a["accuracy"] - b["accuracy"] for a, b in zip(tests[ours], tests[theirs], strict=True)]
        summary |= {key: _mean(gain), f"p_{key.split('_')[0]}": float(stats.ttest_1samp(gain, 0).pvalue)}
    return summary


def plot(rows: Sequence[Row], summary: dict[str, Any], data: str) -> None:
    """Plot T. stddev against test loss with intervals. Hollow markers are uninformative for the teacher."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row in rows:
        if row["t_stddev"] is None:
            continue
        x, y = 1e3 * row["t_stddev"], row["test_loss"]
        x_error = [[x - 1e3 * row["low"]], [1e3 * row["high"] - x]]
        color = "#2171b5" if row["informative"] else "#969696"
        half = stats.sem(row["loss_by_seed"]) * stats.t.ppf(0.975, len(row["loss_by_seed"]) - 1)
        face = color if row["informative"] else "white"
        axes.errorbar(x, y, xerr=x_error, yerr=half, fmt="o", color=color, mfc=face, elinewidth=0.8, capsize=0)
        axes.annotate(row["augmentation"], (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel("T. stddev of the teacher, ×1e-3 (no student needed)")
    axes.set_ylabel("students' test loss, nats")
    rank = f"Spearman {summary['spearman']:.2f} (p = {summary['p_spearman']:.2g}) over {summary['augmentations']}"
    axes.set_title(f"{data}: {rank} augmentations", loc="left", fontsize=11)
    save_plot(figure, [axes], PLOT)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
