"""The one file of this room that knows Ray: a `Task` as a `ray.tune.Trainable` whose actor serves many trials."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from ray import tune

from spaces import Genome, Schedule
from trainables.learner import Learner
from trainables.task import Task

STATE_FILE = "state.pt"


class RoleTrial(tune.Trainable):
    """One member of a population, or one full training.

    `config["member"]` holds `seed` and either `genome` (a scheduler moves the agent) or `schedule` (it is replayed),
    both as plain JSON data. The task itself comes through `tune.with_parameters`, so once per node.
    """

    def setup(  # type: ignore[override]  # `with_parameters` adds the arguments after `config`
        self, config: dict[str, Any], task: Task, threads: int, search_path: tuple[str, ...] = ()
    ) -> None:
        """Fix the threads, and put the data on the device where it stays for every trial of this actor."""
        sys.path.extend(path for path in search_path if path not in sys.path)
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
        return dict(self._task.train_epoch(self._learner))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the learner's state: tensors, numbers and names, readable with `weights_only=True`."""
        if self._learner is None or self._fresh:
            self._learner = self._build()
        torch.save(self._learner.state_dict(), Path(checkpoint_dir) / STATE_FILE)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint, this member's or the one it copies; the genome is this member's own."""
        if self._learner is None:
            self._learner = self._build()
        self._learner.load_state_dict(read_state(checkpoint))
        self._learner.agent.move(self._mover())
        self._fresh = False

    def _build(self) -> Learner:
        self._fresh = False
        return self._task.learner(self._mover(), seed=self.config["member"]["seed"], device=self._device)

    def _mover(self) -> Genome | Schedule:
        member = self.config["member"]
        return Schedule.from_json(member["schedule"]) if "schedule" in member else Genome.from_json(member["genome"])


def read_state(folder: Path | str) -> dict[str, Any]:
    """The learner's state in a checkpoint's folder; nothing is unpickled but tensors, numbers and names."""
    state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    return state
