"""Test scores of final trainings, measured once each on the workers of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from results.runlog.events import TrialTested
from search.config.sections import ResourceConfig
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.execution.trials import worker
from trainables.quantization import Bits
from trainables.ray_trainable import Worker, read_state
from trainables.task import Task, test_score


@dataclass(frozen=True)
class Tested:
    """Test score of a training.

    Args:
        score: `accuracy` in [0, 1] and `loss` on the test images; with a target domain `in_domain_accuracy`, too.
        at: Time of the measurement, in milliseconds since 1970.
    """

    score: Mapping[str, float]
    at: int


def score_once(
    journal: Journal,
    task: Task,
    outcomes: Iterable[Outcome],
    bits: Mapping[str, Bits],
    resources: ResourceConfig,
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Tested], dict[str, str]]:
    """Score every finished training on the test set, except those that the journal has scores of.

    Args:
        journal: Journal of the sweep, which keeps the scores.
        task: Task of the trainings.
        outcomes: Outcomes of the trainings.
        bits: Bits of each network, by the training's name.
        resources: Resources of one worker.
        meanwhile: Work for this process while the workers score.

    Returns:
        The scores by the training's name, and why others could not be scored, by their names.
    """
    whole = {each.name: each.checkpoint for each in outcomes if not each.error and each.checkpoint is not None}
    tests = journal.history.tests
    failed: dict[str, str] = {}
    unknown = {name: checkpoint for name, checkpoint in whole.items() if name not in tests}
    scored = score_all(task, unknown, bits, resources)
    meanwhile()
    for name, score, why in scored:
        if score is None:
            failed[name] = why
        else:
            journal.write(TrialTested(trial=name, scores=score))
    return {name: Tested(tests[name].scores, tests[name].at) for name in whole if name in tests}, failed


def score_all(
    task: Task, checkpoints: Mapping[str, Path], bits: Mapping[str, Bits], resources: ResourceConfig
) -> Iterator[tuple[str, dict[str, float] | None, str]]:
    """Start scoring, and return an iterator over name, score (None where it failed) and error."""
    remote = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)(_remote_score)
    given, here = ray.put(task), worker(resources)
    pending = {name: remote.remote(given, place, bits[name], here) for name, place in checkpoints.items()}
    return _answers(pending)


def _answers(pending: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float] | None, str]]:
    for name, answer in pending.items():
        try:
            yield name, ray.get(answer), ""
        except RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            yield name, None, lines[-1][:300] if lines else type(error).__name__


def _remote_score(task: Task, checkpoint: Path, bits: Bits, here: Worker) -> dict[str, float]:
    device = here.enter()
    return test_score(replace(task, bits=bits), read_state(checkpoint)["model"], device)
