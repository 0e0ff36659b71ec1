"""The one listener in the driver: what Ray Tune reports goes to MLflow and to the terminal while it happens."""

from __future__ import annotations

import math
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.markup import escape

from results.choices import told
from results.lineage import Exploit
from results.tracking import Run, Tracker
from search.population import METRIC, member_name
from search.progress import Ticker
from search.trials import error_line, error_text
from spaces import Genome

# Ray adds its own bookkeeping to every report; what is ours has one of these names, or is a loss, or a `part/…`.
OURS = (
    "loss",
    "t_stddev_ratio",
    "train_accuracy",
    "validation_accuracy",
    "learning_rate",
    "images_per_s",
)
GROUPS = ("policy", "hard", "distill", "seconds")


class Watch(tune.Callback):
    """Follows the trials of one stage.

    Args:
        tracker: to MLflow.
        parent: the sweep's run.
        role: of the trials.
        ticker: to the terminal.
        epochs: that each trial is trained.
    """

    def __init__(
        self,
        tracker: Tracker,
        parent: Run,
        role: str,
        ticker: Ticker,
        epochs: int,
    ) -> None:
        """Know nothing of any trial yet."""
        self._tracker, self._parent, self._role, self._ticker = tracker, parent, role, ticker
        self._epochs = epochs
        self.runs: dict[str, Run] = {}
        self._best: dict[str, float] = {}
        self._copies = 0
        self._generation = 0

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks beside the trials; there is nothing in this one to restore."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Open the trial's run, the first time that it starts."""
        name = member_name(trial)
        if name in self.runs:
            return
        member = trial.config["member"]
        params = {"seed": member["seed"], "epochs": self._epochs} | _chosen(member)
        tags = {"role": self._role, "stage": member["stage"], "member": name, "generation": "0"}
        self.runs[name] = self._tracker.start(name, parent=self._parent, tags=tags, params=params)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Log the epoch."""
        name = member_name(trial)
        score = result.get(METRIC)
        if score is not None and not math.isnan(score):
            self._best[name] = max(score, self._best.get(name, -math.inf))
        self._tracker.log(self.runs[name], our_metrics(result), step=result["training_iteration"])
        self._ticker.epoch(score)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Log the summaries, and close the run."""
        self._summarise(trial)
        self._tracker.finish(self.runs[member_name(trial)])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record why, and close the run as failed."""
        name, why = member_name(trial), error_line(trial)
        if name not in self.runs:  # it failed before it started, in its actor's setup
            self.on_trial_start(iteration, trials, trial)
        self._summarise(trial)
        self._tracker.text(self.runs[name], error_text(trial), "error.txt")
        self._tracker.finish(self.runs[name], "FAILED", error=why)
        self._ticker.say(f"  [red]{name} failed[/red]: {escape(why)}")
        self._ticker.skip(self._epochs - int((trial.last_result or {}).get("training_iteration", 0)))

    def _summarise(self, trial: Trial) -> None:
        """Log what the run table shows: the last values, and the best score."""
        name, result = member_name(trial), trial.last_result or {}
        final = {f"final_{key}": value for key, value in our_metrics(result).items() if "/" not in key}
        if name in self._best:
            final["best_validation_accuracy"] = self._best[name]
        if final:
            self._tracker.log(self.runs[name], final, step=int(result.get("training_iteration", 0)))

    def exploited(self, event: Exploit) -> None:
        """Note on the target's run whom it copied, and when; earlier copies stay readable beside the latest."""
        self._copies += 1
        run, place = self.runs[event.target], f"exploit.{event.epoch:04d}"
        scores = f"{event.target_score:.4f} < {event.donor_score:.4f}"
        latest = {"exploited_from": event.donor, "exploited_at_epoch": str(event.epoch)}
        self._tracker.tag(run, {**latest, place: f"epoch {event.epoch}: copied {event.donor} ({scores})"})

    def generation(self, number: int, count: int, scores: dict[str, float]) -> None:
        """The population was perturbed."""
        for name in scores:
            self._tracker.tag(self.runs[name], {"generation": str(number)})
        self._ticker.generation(number, count, scores, self._copies)
        self._copies = 0


def _chosen(member: dict[str, Any]) -> dict[str, str]:
    """What a trial has from end to end: its augmentation, its distillation; one that a population moves has none."""
    if member["moved"] or "genome" not in member:
        return {}
    return {name: str(value) for name, value in told(Genome.from_json(member["genome"])).items()}


def our_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a report that are roletune's, without Ray's bookkeeping."""
    return {
        key: float(value)
        for key, value in result.items()
        if isinstance(value, int | float) and (key in OURS or key.endswith("_loss") or key.partition("/")[0] in GROUPS)
    }
