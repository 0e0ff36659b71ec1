"""The folder of a small sweep, made without Ray and training."""

from __future__ import annotations

import json

from results.analysis.summary import RoleResult, SweepResult
from results.runlog import events
from results.runlog.events import JOURNAL_FILE
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule

SETTINGS = """name: digits
seed: 7
data: {name: digits, root: data, train: 100, validation: 150, seed: 0, size: null, download: false, workers: 0}
teacher:
  model: resnet8
  search: {algorithm: pbt, population: 3, epochs: 4, interval: 2}
  weights: null
  pretrained: true
student:
  model: mlp
  search: {algorithm: pbt, population: 3, epochs: 4, interval: 2}
  distill: {loss: kd, temperature: 4.0}
  bits: {weights: 2, activations: 32}
tracking: {uri: "http://user:s3cr3t@tracking.example/"}
"""
WEAK, STRONG = Genome(Policy((Entry("Rotate", 0, 0),))), Genome(Policy((Entry("Rotate", 10, 9), Entry("Cutout", 5, 4))))
START = 1_700_000_000_000
ERROR = "ValueError: <script>alert('x')</script> & <b>more</b>"
SCORES = {"pbt": (0.5, 0.7, 0.9), "random": (0.4, 0.5, 0.6)}


class Lines:
    """A journal's lines, a second apart."""

    def __init__(self):
        self.lines, self.at = [], START

    def add(self, kind, **content):
        self.lines.append({"event": kind.kind, "at": self.at, **content})
        self.at += 1000

    def epoch(self, member, epoch, score=None):
        metrics = {"loss": 1.0, "seconds/train": 0.5, "seconds/augment": 0.2, "t_stddev_ratio": 0.9 + epoch / 100}
        if score is not None:
            metrics |= {"validation_accuracy": score, "seconds/validate": 0.1}
        self.add(events.TrialReported, trial=member, epoch=epoch, metrics=metrics)

    def search(self, role):
        """Four epochs of three members and their control; at the second, the worst copies the best."""
        for kind, scores in SCORES.items():
            names = [f"{role}-{kind}-{number:02d}" for number in range(len(scores))]
            for part in (0, 2):
                for name, score in zip(names, scores, strict=True):
                    self.epoch(name, part + 1)
                    self.epoch(name, part + 2, score + part / 100)
                if part == 0 and kind == "pbt":
                    copy = {"epoch": 2, "target": names[0], "donor": names[2], "target_score": 0.5, "donor_score": 0.9}
                    copy |= {"before": WEAK.to_json(), "after": STRONG.to_json()}
                    judged = dict(zip(names, scores, strict=True))
                    self.add(events.PopulationPerturbed, stage=f"{role}-pbt", epoch=2, scores=judged, copies=[copy])
            for name in names:
                self.add(events.TrialEnded, trial=name, stopped=False, error="")


def sweep_folder(folder, *, finished=True, slots=2, error=ERROR):
    """A whole sweep; or, not `finished`, one whose student is still searched: no result, no student's policy."""
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(SETTINGS)
    journal = Lines()
    journal.add(events.SessionStarted, session=1, uuid="t")
    if slots:
        journal.add(events.SlotsPlaced, slots=slots)
    journal.search("teacher")
    image = ImageSpec(8, 1, (78,))
    for role in ("teacher", "student") if finished else ("teacher",):
        origin = {"run": f"{role}-pbt-00", "metric": "validation_accuracy", "value": 0.92, "seed": 7}
        origin["versions"] = {"roletune": "0.1.0", "torch": "2.15.0"}
        phases = (Phase(2, WEAK), Phase(2, STRONG))
        Schedule(phases, role, image, origin).save(folder / f"policy.{role}.json")
    journal.search("student") if finished else journal.epoch("student-pbt-00", 1)
    if finished:
        journal.add(events.TrialEnded, trial="student-full-none-2", stopped=False, error=error)
        journal.add(events.TrialTested, trial="student-full-policy-0", scores={"accuracy": 0.9})
        (folder / "result.json").write_text(json.dumps(result(folder, error).to_json()))
    (folder / JOURNAL_FILE).write_text("".join(json.dumps(line) + "\n" for line in journal.lines))
    return folder


def result(folder, error=ERROR):
    """The teacher is better than its control and no different from no augmentation; the student is worse than both."""
    worse = {"policy": (0.80, 0.81, 0.82), "none": (0.90, 0.91, 0.92), "random": (0.85, 0.86, 0.87)}
    mixed = {"policy": (0.90, 0.92, 0.94), "none": (0.91, 0.92, 0.93), "random": (0.70, 0.72, 0.74)}
    roles = (RoleResult("teacher", 0.92, mixed, 1, "policy.teacher.json", 8000),)
    roles += (RoleResult("student", 0.93, worse, 1, "policy.student.json", 4000),)
    failed = {"student-full-none-2": error}
    return SweepResult("digits", str(folder), str(folder / "report"), "sqlite:///x", "digits", 75.0, failed, roles)
