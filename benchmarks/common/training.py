"""Training by a task's own learner, for benchmarks that need a trained network and no search."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common.results_file import ROOT
from search.config.schema import SweepConfig
from spaces import Genome, Schedule
from trainables.task import Task, TrainedTeacher
from trainables.training.learner import Learner

DEMO: Path = ROOT / "examples" / "digits.yaml"
"""Sweep file of the demo."""


def load_demo() -> SweepConfig:
    """Return the demo's configuration."""
    return SweepConfig.load(DEMO)


def train_epochs(learner: Learner, epochs: int) -> dict[str, float]:
    """Train for `epochs` epochs and return the metrics of the last one."""
    metrics: dict[str, float] = {}
    for _ in range(epochs):
        metrics = learner.step()
    return metrics


def train_teacher(
    task: Task, seed: int, source: Genome | Schedule | None = None, device: str = "cpu"
) -> tuple[Learner, TrainedTeacher]:
    """Train the task's network to its end and return the learner and its frozen weights.

    Args:
        task: Task of the role `teacher`.
        seed: Seed of the first weights and of the training.
        source: Augmentation during training; None trains without a policy.
        device: Device that trains. The returned weights lie on the CPU.
    """
    learner = task.to(device).learner(Genome() if source is None else source, seed=seed, device=device)
    train_epochs(learner, task.epochs)
    weights = {name: value.detach().cpu().clone() for name, value in learner.model.state_dict().items()}
    return learner, TrainedTeacher(task.model, weights)
