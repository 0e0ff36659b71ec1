"""The VAEs of `hard_vae`, trained once for each set of images before a student's search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from search.config.sections import ResourceConfig
from search.execution.trials import on_worker
from spaces import Space
from spaces.augmentations import Augmentation
from trainables.hard.vae_pretraining import vae_files, weights_of, with_vae
from trainables.ray_trainable import Worker
from trainables.task import Task


def with_vaes(task: Task, space: Space, resources: ResourceConfig, cache: Path) -> tuple[Task, Space, tuple[Path, ...]]:
    """Train the VAEs that the space's augmentations need, on one worker, or take them from `cache`.

    Args:
        task: Task of the student, whose training images they are trained on.
        space: Space whose augmentations may need some.
        resources: Resources of the worker.
        cache: Folder, shared by all nodes, of VAEs that were trained before on the same images.

    Returns:
        The task with their weights, the space that refers to these, and their files.

    Raises:
        WorkError: The worker failed.
    """
    files = tuple(cache / name for choice in space.augmentations for name in vae_files(choice, task.data.train))
    if not files:
        return task, space, ()
    failed = "the VAE of hard_vae could not be trained"
    choices = on_worker(resources, failed, _remote, task, space.augmentations, cache)
    weights = {**task.weights, **weights_of(choices)}
    return replace(task, weights=weights), replace(space, augment=tuple(c.to_json() for c in choices)), files


def _remote(task: Task, choices: tuple[Augmentation, ...], cache: Path, here: Worker) -> tuple[Augmentation, ...]:
    device, data = here.enter(), task.data
    return tuple(with_vae(c, data.train, channels=data.channels, cache=cache, device=device) for c in choices)
