"""The test set, opened once, for all trainings of a role, on the workers of the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from torch import Tensor

from search.config import ResourceConfig
from search.trials import worker
from trainables.low_bit import Bits
from trainables.ray_trial import Worker
from trainables.task import Task, test_score

Weights = Mapping[str, Sequence[dict[str, Tensor] | None]]
"""Arm → the weights of its trainings, one entry a seed, None where one failed."""

Scores = dict[str, list[dict[str, float] | None]]
"""Arm → what each of its trainings scored, one entry a seed, None where one failed."""


def score_all(
    task: Task, weights: Weights, bits: Mapping[str, Bits], resources: ResourceConfig
) -> tuple[Scores, dict[tuple[str, int], str]]:
    """Score every training that there is.

    Args:
        task: that the trainings had.
        weights: of the networks.
        bits: that the networks of each arm have.
        resources: of one worker.

    Returns:
        The scores, and (arm, seed) → why for what could not be scored.
    """
    remote = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)(_remote_score)
    given, here = ray.put(task), worker(resources)
    pending = {
        arm: [remote.remote(given, found, bits[arm], here) if found else None for found in by_seed]
        for arm, by_seed in weights.items()
    }
    scores: Scores = {arm: [] for arm in weights}
    failed: dict[tuple[str, int], str] = {}
    for arm, answers in pending.items():
        for seed, answer in enumerate(answers):
            score, why = _score(answer)
            scores[arm].append(score)
            if why:
                failed[arm, seed] = why
    return scores, failed


def _score(answer: Any) -> tuple[dict[str, float] | None, str]:
    try:
        return (ray.get(answer) if answer else None), ""
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return None, lines[-1][:300] if lines else type(error).__name__


def _remote_score(task: Task, weights: dict[str, Tensor], bits: Bits, here: Worker) -> dict[str, float]:
    return test_score(replace(task, bits=bits), weights, here.enter())
