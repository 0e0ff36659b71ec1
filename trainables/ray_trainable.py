"""A `Task` as a `ray.tune.Trainable` whose actor is reused for many trials; the only module here that imports Ray."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from spaces import Genome, Schedule, WorkError
from spaces.augmentations import augmentation
from trainables.task import Task
from trainables.training.learner import Learner

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Worker:
    """Resources of a training process.

    Args:
        cpus: Threads of PyTorch, and of the processes that this one starts.
        gpus: Reserved GPUs; 0 to use the CPU even if the machine has a GPU.
        search_path: Folders from which the user's own models and data sets are imported.
    """

    cpus: int
    gpus: float
    search_path: tuple[str, ...] = ()

    def enter(self) -> torch.device:
        """Apply the settings to this process.

        Returns:
            The device to train on.

        Raises:
            WorkError: A GPU was reserved, and PyTorch finds none.
        """
        sys.path.extend(path for path in self.search_path if path not in sys.path)
        os.environ["OMP_NUM_THREADS"] = str(self.cpus)  # Ray sets it only if the environment has no value
        torch.set_num_threads(self.cpus)
        if not self.gpus:
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise WorkError(
                "a GPU was reserved for this trial, but PyTorch finds none; install a CUDA build of PyTorch"
            )
        return torch.device("cuda")


class RoleTrial(tune.Trainable):
    """One population member or one final training.

    `config["member"]` contains `seed` and either `genome` (updated by a scheduler) or `schedule` (replayed), as plain
    JSON data. Optional keys: `shown`, an augmentation that precedes the agent's; `before`, whose `checkpoint` is the
    folder of a state to continue from; `save_every`, epochs between two checkpoints. The task comes through
    `tune.with_parameters`, so it is sent once per node.
    """

    def setup(  # type: ignore[override]  # `with_parameters` adds the arguments after `config`
        self, config: dict[str, Any], task: Task, worker: Worker
    ) -> None:
        """Set the threads, and move the data to the device for all trials of this actor."""
        self._device = worker.enter()
        self._task = task.to(self._device)
        self._learner: Learner | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Switch to another trial, whose learner is built when it is first needed."""
        self.config = new_config
        self._fresh = True
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch."""
        if self._fresh or self._learner is None:
            self._learner = self._build()
        epoch_result: dict[str, Any] = dict(self._task.train_epoch(self._learner))
        epoch, every = self._learner.epoch, self.config["member"].get("save_every")
        return epoch_result | {"epoch": epoch, SHOULD_CHECKPOINT: bool(every) and epoch % every == 0}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the learner's state; `torch.load` reads it with `weights_only=True`."""
        if self._learner is None or self._fresh:
            self._learner = self._build()
        torch.save(self._learner.state_dict(), Path(checkpoint_dir) / STATE_FILE)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Continue from this member's checkpoint or from one that it copies, with this member's own genome."""
        if self._learner is None or self._task.with_bits_of(self._source()).bits != self._bits:
            self._learner = self._new()
        self._resume(self._learner, checkpoint)
        self._fresh = False

    def _build(self) -> Learner:
        self._fresh = False
        learner = self._new()
        if before := self.config["member"].get("before"):
            self._resume(learner, before["checkpoint"])
        return learner

    def _new(self) -> Learner:
        self._bits = self._task.with_bits_of(self._source()).bits
        member = self.config["member"]
        baseline = augmentation(member["shown"]) if member.get("shown") else None
        return self._task.learner(self._source(), seed=member["seed"], device=self._device, baseline=baseline)

    def _resume(self, learner: Learner, checkpoint: Any) -> None:
        learner.load_state_dict(read_state(checkpoint))
        learner.agent.set_source(self._source())

    def _source(self) -> Genome | Schedule:
        member = self.config["member"]
        return Schedule.from_json(member["schedule"]) if "schedule" in member else Genome.from_json(member["genome"])


def read_state(folder: Path | str) -> dict[str, Any]:
    """Read the learner's state from a checkpoint folder; only tensors, numbers and names are unpickled."""
    state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    return state
