"""Does T. stddev, which needs no student, predict what students lose? And does Pick add to CutMix?

One teacher is trained without augmentation and ranks the catalog. Then a student is distilled under every entry,
from the same seeds and for the same steps: `loss` = 0.1 · CE(x) + 0.9 · (KD(x) + KD(x̃)), T = 4, with x̃ the second
view and the teacher's own answer as its only target, as in the authors' code. `identity` has a second view like all
others, equal to the first, so that its loss has the same parts; the arm `kd` has none. The test set is opened once, at
the end of each training. Correlations are over the augmentations, between T. stddev and the mean test loss over the
seeds: the summary's over those that pass the guard against uninformative noise, `…_all` over all of them.

    python benchmarks/methods/t_stddev.py                                        digits, ten minutes on two cores
    python benchmarks/methods/t_stddev.py --data cifar10 --root DIR --device cuda    a larger set, where there is one

Source of the method: Wang et al. 2022 (NeurIPS), https://arxiv.org/abs/2012.02909.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from multiprocessing import get_context
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.common.record import ROOT, Row, arguments, start
from spaces import Genome
from spaces.augmentations import CATALOG, Augmentation, CutMixPick, Cutout, Identity, Mixup, Pick
from spaces.core.io import write_atomic
from trainables import data as datasets
from trainables.data import DataSet
from trainables.distillation.student import Distill
from trainables.screening.ranking import Precision, Screening, screen
from trainables.task import Task, TrainedTeacher, test_score
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.recipe import Recipe

PICTURE = ROOT / "docs" / "images" / "t_stddev.png"
KD, CUTMIX, CUTMIXPICK = "kd", "cutmix", "cutmixpick"


@dataclass(frozen=True)
class Setting:
    """What one run trains: the pair, its epochs, and how many students an augmentation gets."""

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
    """Rank, train, correlate."""
    parser = arguments(__doc__)
    parser.add_argument("--data", default="digits", choices=SETTINGS)
    parser.add_argument("--root", default="data", help="folder of the set's files")
    parser.add_argument("--device", default="cpu")
    benchmark = start(__file__, parser)
    options, seed = benchmark.options, benchmark.seed
    setting = QUICK if benchmark.quick else SETTINGS[options.data]
    torch.set_num_threads(1)
    # Few images, so that augmentation has something to win; nothing is held out, as nothing is chosen.
    train = {"digits": 300}.get(options.data)
    data = datasets.load(name=options.data, root=options.root, train=train, validation=100, seed=seed)
    teacher = trained_teacher(data, setting, seed, options.device)
    contestants = entries()
    seen = ranked(teacher, data, [shown for shown in contestants.values() if shown], setting, seed, options.device)
    tests = trained_students(contestants, teacher, data, setting, seed, options.device)
    rows = table(contestants, seen, tests)
    summary = figures(rows, tests)
    if not benchmark.quick:
        scatter(rows, summary, options.data)
    benchmark.finish(rows, summary, gpu=options.device != "cpu")


def entries() -> dict[str, Augmentation | None]:
    """What is compared, by name: no second view, and the catalog, in which identity has a view like the others."""
    fixed = {kind: cls() for kind, cls in CATALOG.items() if kind not in (Identity.kind, Pick.kind)}
    catalog = {kind: augment for kind, augment in fixed.items() if not augment.learns}
    picks = {"mixup, picked": Pick(base=Mixup()), "cutmixpick, 4 passes": CutMixPick(passes=4)}
    return {KD: None, "identity": Cutout(side=0.0), **catalog, **picks}


def recipe() -> Recipe:
    """For both roles, on every set."""
    return Recipe(lr=0.05, batch_size=64)


def trained_teacher(data: DataSet, setting: Setting, seed: int, device: str) -> TrainedTeacher:
    """A teacher trained on the images that its students will see, without augmentation but the set's own."""
    task = Task("teacher", setting.teacher, data, recipe(), setting.teacher_epochs)
    learner = task.to(device).learner(Genome(), seed=seed, device=device)
    for _ in range(setting.teacher_epochs):
        learner.step()
    return TrainedTeacher(setting.teacher, {name: value.cpu() for name, value in learner.model.state_dict().items()})


def ranked(
    teacher: TrainedTeacher,
    data: DataSet,
    contestants: Sequence[Augmentation],
    setting: Setting,
    seed: int,
    device: str,
) -> Screening:
    """T. stddev of every contestant, all means taken."""
    task = Task("teacher", teacher.model, data, recipe(), 1)
    network = task.learner(Genome(), seed=0, device=device).model
    network.load_state_dict(teacher.weights)
    precision = Precision(means=setting.means, half_width=0.0)
    return screen(FrozenTeacher(network), data, data.train, contestants, precision=precision, seed=seed, device=device)


def trained_students(
    contestants: dict[str, Augmentation | None],
    teacher: TrainedTeacher,
    data: DataSet,
    setting: Setting,
    seed: int,
    device: str,
) -> dict[str, list[dict[str, float]]]:
    """Test accuracy and loss of every student, by contestant, one entry a seed."""
    task = Task("student", setting.student, data, recipe(), setting.epochs, teacher=teacher, distill=Distill(alpha=0.9))
    jobs = [
        (name, augment, seed * 1000 + repeat)
        for repeat in range(setting.seeds)
        for name, augment in contestants.items()
    ]
    processes = (os.cpu_count() or 1) if device == "cpu" else 1
    tests: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
        pending = [(name, pool.submit(_student, task, augment, seed, device)) for name, augment, seed in jobs]
        for name, answer in pending:
            tests[name].append(answer.result())
    return tests


def _one_thread() -> None:
    torch.set_num_threads(1)


def _student(task: Task, augment: Augmentation | None, seed: int, device: str) -> dict[str, float]:
    genome = Genome() if augment is None else Genome(augment=augment)
    learner = task.to(device).learner(genome, seed=seed, device=device)
    for _ in range(task.epochs):
        learner.step()
    weights = {name: value.cpu() for name, value in learner.model.state_dict().items()}
    return test_score(task, weights, device)


def table(
    contestants: dict[str, Augmentation | None], seen: Screening, tests: dict[str, list[dict[str, float]]]
) -> list[Row]:
    """One row for each contestant: what the teacher says of it, and what its students reached, seed by seed."""
    by_label = {row.label: asdict(row) for row in seen.rows}
    rows = []
    for name, augment in contestants.items():
        screened: dict[str, Any] = by_label[augment.label] if augment is not None else {}
        kept = ("t_stddev", "low", "high", "ratio", "ratio_low", "ratio_high", "agreement", "entropy", "informative")
        losses, accuracies = ([test[part] for test in tests[name]] for part in ("loss", "accuracy"))
        scores = {"test_loss": _mean(losses), "test_accuracy": _mean(accuracies)}
        seeds = {"loss_by_seed": losses, "accuracy_by_seed": accuracies}
        rows.append({"augmentation": name, **{key: screened.get(key) for key in kept}, **scores, **seeds})
    return rows


def figures(rows: Sequence[Row], tests: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The correlations, and what Pick and CutMix add, paired by seed."""
    screened = [row for row in rows if row["t_stddev"] is not None]
    passed = [row for row in screened if row["informative"]]
    summary: dict[str, Any] = {}
    for suffix, chosen in (("", passed), ("_all", screened)):
        spread, loss = [row["t_stddev"] for row in chosen], [row["test_loss"] for row in chosen]
        for name, test in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
            found = test(spread, loss)
            summary |= {f"{name}{suffix}": float(found.statistic), f"p_{name}{suffix}": float(found.pvalue)}
    summary["augmentations"] = len(passed)
    for key, ours, theirs in (("pick_minus_cutmix", CUTMIXPICK, CUTMIX), ("cutmix_minus_kd", CUTMIX, KD)):
        gain = [a["accuracy"] - b["accuracy"] for a, b in zip(tests[ours], tests[theirs], strict=True)]
        summary |= {key: _mean(gain), f"p_{key.split('_')[0]}": float(stats.ttest_1samp(gain, 0).pvalue)}
    return summary


def scatter(rows: Sequence[Row], summary: dict[str, Any], data: str) -> None:
    """T. stddev against test loss, with intervals; hollow: the teacher no longer knows what it sees."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row in rows:
        if row["t_stddev"] is None:
            continue
        x, y = 1e3 * row["t_stddev"], row["test_loss"]
        across = [[x - 1e3 * row["low"]], [1e3 * row["high"] - x]]
        color = "#2171b5" if row["informative"] else "#969696"
        half = stats.sem(row["loss_by_seed"]) * stats.t.ppf(0.975, len(row["loss_by_seed"]) - 1)
        face = color if row["informative"] else "white"
        axes.errorbar(x, y, xerr=across, yerr=half, fmt="o", color=color, mfc=face, elinewidth=0.8, capsize=0)
        axes.annotate(row["augmentation"], (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel("T. stddev of the teacher, ×1e-3 (no student needed)")
    axes.set_ylabel("students' test loss, nats")
    rank = f"Spearman {summary['spearman']:.2f} (p = {summary['p_spearman']:.2g}) over {summary['augmentations']}"
    axes.set_title(f"{data}: {rank} augmentations", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_atomic(PICTURE, buffer.getvalue())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
