"""The one file of this room that knows Ray: a `Task` as a `ray.tune.Trainable` whose actor serves many trials."""

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
    """What a process that trains may use.

    Args:
        cpus: threads of PyTorch, and of the processes that this one starts.
        gpus: 0 keeps to the CPU, whatever the machine has; else the GPU that Ray shows this process.
        search_path: where the user's own models and data sets are imported from.
    """

    cpus: int
    gpus: float
    search_path: tuple[str, ...] = ()

    def enter(self) -> torch.device:
        """Make this process such a worker; returns the device to train on.

        Raises:
            WorkError: a GPU was reserved, and PyTorch sees none.
        """
        sys.path.extend(path for path in self.search_path if path not in sys.path)
        os.environ["OMP_NUM_THREADS"] = str(self.cpus)  # Ray sets it too, unless its own environment had another
        torch.set_num_threads(self.cpus)
        if not self.gpus:
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise WorkError("a GPU was reserved for this trial, and PyTorch sees none; is a CUDA build installed?")
        return torch.device("cuda")


class RoleTrial(tune.Trainable):
    """One member of a population, or one full training.

    `config["member"]` holds `seed` and either `genome` (a scheduler moves the agent) or `schedule` (it is replayed),
    both as plain JSON data; perhaps `shown`, an augmentation that comes before the agent's; perhaps `before`, whose
    `checkpoint` is the folder of the state to go on from; and perhaps `save_every`, the epochs from one checkpoint to
    the next. The task comes through `tune.with_parameters`, so once per node.
    """

    def setup(  # type: ignore[override]  # `with_parameters` adds the arguments after `config`
        self, config: dict[str, Any], task: Task, worker: Worker
    ) -> None:
        """Fix the threads, and put the data on the device where it stays for every trial of this actor."""
        self._device = worker.enter()
        self._task = task.to(self._device)
        self._learner: Learner | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve another trial from here on; what it needs is built when it is first needed."""
        self.config = new_config
        self._fresh = True
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        if self._fresh or self._learner is None:
            self._learner = self._build()
        epoch_result: dict[str, Any] = dict(self._task.train_epoch(self._learner))
        epoch, every = self._learner.epoch, self.config["member"].get("save_every")
        return epoch_result | {"epoch": epoch, SHOULD_CHECKPOINT: bool(every) and epoch % every == 0}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the learner's state: tensors, numbers and names, readable with `weights_only=True`."""
        if self._learner is None or self._fresh:
            self._learner = self._build()
        torch.save(self._learner.state_dict(), Path(checkpoint_dir) / STATE_FILE)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint, this member's or the one it copies; the genome is this member's own."""
        if self._learner is None or self._task.under(self._mover()).bits != self._bits:
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
        self._bits = self._task.under(self._mover()).bits
        member = self.config["member"]
        shown = augmentation(member["shown"]) if member.get("shown") else None
        return self._task.learner(self._mover(), seed=member["seed"], device=self._device, shown=shown)

    def _resume(self, learner: Learner, checkpoint: Any) -> None:
        learner.load_state_dict(read_state(checkpoint))
        learner.agent.set_source(self._mover())

    def _mover(self) -> Genome | Schedule:
        member = self.config["member"]
        return Schedule.from_json(member["schedule"]) if "schedule" in member else Genome.from_json(member["genome"])


def read_state(folder: Path | str) -> dict[str, Any]:
    """The learner's state in a checkpoint's folder; nothing is unpickled but tensors, numbers and names."""
    state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    return state
