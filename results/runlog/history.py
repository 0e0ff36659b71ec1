"""What happened in a sweep, read from its folder by anybody, while it runs, after its end, or after its death."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import intern
from typing import Any

from results.runlog.lineage import Exploit, Slice
from results.runlog.members import FULL, METRIC, MemberHistory, Perturbation, Report, Rung, StageHistory
from spaces.core.errors import RequestError, unknown
from spaces.core.io import read_bytes

FILE = "journal.jsonl"


@dataclass(frozen=True)
class Life:
    """A sweep from a start, or from being resumed, to its last line.

    Args:
        started: in milliseconds since 1970.
        heard: likewise.
        slots: how many trials ran at once; None: it was not written down.
    """

    started: int
    heard: int
    slots: int | None = None


@dataclass(frozen=True)
class History:
    """What a sweep's folder says of it.

    Args:
        folder: the sweep's.
        stages: by name, in the order in which they were first heard of.
        lives: one for each time that it was started.
        tests: by full training, its scores on the test set by name; those that were noted so far.
        dropped: the augmentations that screening left out.
        finished: whether there is a result. One that is resumed with more to do has an earlier one.
    """

    folder: Path
    stages: Mapping[str, StageHistory]
    lives: tuple[Life, ...]
    tests: Mapping[str, Mapping[str, float]]
    dropped: tuple[str, ...]
    finished: bool

    @classmethod
    def read(cls, folder: Path | str) -> History:
        """What is in `folder` by now; a last line that is being written, or was cut off, is left out.

        Raises:
            RequestError: it is no sweep's folder, or its journal is damaged.
        """
        folder = Path(folder)
        path = folder / FILE
        if not path.is_file():
            raise RequestError(f"{folder} is no sweep's folder: it has no {FILE}", hint="try runs/digits-001")
        reading = _Reading()
        for number, line in enumerate(read_bytes(path, "journal").splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                break
            try:
                reading.take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RequestError(f"line {number} of {path} is damaged: {error!r}") from error
        stages = {name: stage.seen(_winner(folder, name)) for name, stage in reading.stages.items()}
        finished = (folder / "result.json").is_file()
        return cls(folder, stages, tuple(reading.lives), reading.tests, reading.dropped, finished)

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.resolve().name

    @property
    def started(self) -> int | None:
        """When it was first started, in milliseconds since 1970."""
        return self.lives[0].started if self.lives else None

    @property
    def heard(self) -> int | None:
        """When it was last heard of, in milliseconds since 1970."""
        return self.lives[-1].heard if self.lives else None

    @property
    def searches(self) -> tuple[StageHistory, ...]:
        """The stages that are searches."""
        return tuple(stage for stage in self.stages.values() if stage.kind != FULL)

    @property
    def trainings(self) -> tuple[StageHistory, ...]:
        """The stages that are full trainings, an arm each."""
        return tuple(stage for stage in self.stages.values() if stage.kind == FULL)

    def stage(self, name: str) -> StageHistory:
        """The stage of this name.

        Raises:
            RequestError: there is none.
        """
        if name not in self.stages:
            raise unknown("stage", name, self.stages)
        return self.stages[name]


@dataclass
class _Open:
    """A member, as it is read; `slice`: what it trained since the last perturbation, from epoch `start` on."""

    reports: list[Report] = field(default_factory=list)
    slice: list[Report] = field(default_factory=list)
    start: int = 0
    end: tuple[int | None, bool, str] = (None, False, "")

    def close(self, name: str, score: float | None = None) -> Iterator[Slice]:
        """What it trained in this slice, if anything; `score`: as it was judged, or the last that it reported."""
        if self.slice:
            scores = [report.metrics.get(METRIC, math.nan) for report in self.slice]
            last = next((each for each in reversed(scores) if not math.isnan(each)), math.nan)
            end = self.slice[-1].epoch
            yield Slice(name, self.start, end, last if score is None else score)
            self.start = end
        self.slice = []


@dataclass
class _OpenStage:
    name: str
    members: dict[str, _Open] = field(default_factory=dict)
    perturbations: list[Perturbation] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)

    def perturb(self, event: Mapping[str, Any]) -> None:
        scores = {name: _float(score) for name, score in event["scores"].items()}
        copies = tuple(Exploit.from_json(copy) for copy in event["copies"])
        self.perturbations.append(Perturbation(event["epoch"], event["at"], scores, copies))
        for name, score in scores.items():
            self.slices += self.members[name].close(name, score)
        for copy in copies:
            self.members[copy.target].start = copy.epoch

    def seen(self, winner: str) -> StageHistory:
        members = {name: self.members[name] for name in sorted(self.members, key=_number)}
        last = [each for name, member in members.items() for each in member.close(name)]
        known = {name: MemberHistory(name, tuple(m.reports), *m.end) for name, m in members.items()}
        slices = (*self.slices, *last)
        latest = {each.member: each.score for each in slices if not math.isnan(each.score)}
        whole = [name for name in known if name in latest and not (known[name].error or known[name].stopped)]
        best = winner if winner in known else max(whole, key=lambda name: latest[name], default="")
        return StageHistory(self.name, known, tuple(self.perturbations), tuple(self.rungs), slices, best)


class _Reading:
    """Takes a journal's lines one by one; what it does not know it passes over."""

    def __init__(self) -> None:
        self.stages: dict[str, _OpenStage] = {}
        self.lives: list[Life] = []
        self.tests: dict[str, Mapping[str, float]] = {}
        self.dropped: tuple[str, ...] = ()

    def take(self, event: Mapping[str, Any]) -> None:
        kind, at = event["event"], int(event["at"])
        if kind == "started" or not self.lives:
            self.lives.append(Life(at, at))
        self.lives[-1] = replace(self.lives[-1], heard=max(self.lives[-1].heard, at))
        if kind == "reported":
            metrics = {intern(name): _float(value) for name, value in event["metrics"].items()}
            member = self._member(event["member"])
            member.reports.append(Report(int(event["epoch"]), at, metrics))
            member.slice.append(member.reports[-1])
        elif kind == "ended":
            self._member(event["member"]).end = (at, bool(event["stopped"]), str(event["error"]))
        elif kind == "retried":
            self._member(event["member"]).end = (None, False, "")
        elif kind == "perturbed":
            self._stage(event["stage"]).perturb(event)
        elif kind == "parted":
            scores = {name: _float(standing[1]) for name, standing in event["standings"].items()}
            rung = Rung(int(event["epoch"]), at, scores, tuple(event["kept"]))
            self._stage(event["stage"]).rungs.append(rung)
        elif kind == "tested":
            self.tests[event["training"]] = {name: _float(value) for name, value in event["score"].items()}
        elif kind == "placed":
            self.lives[-1] = replace(self.lives[-1], slots=int(event["slots"]))
        elif kind == "screened":
            self.dropped = tuple(event["dropped"])

    def _stage(self, name: str) -> _OpenStage:
        return self.stages.setdefault(name, _OpenStage(name))

    def _member(self, name: str) -> _Open:
        stage = self._stage(re.sub(r"-\d+$", "", name))
        return stage.members.setdefault(name, _Open())


def _winner(folder: Path, stage: str) -> str:
    """The member whose policy was taken, as the role's policy file says; empty: there is none yet."""
    try:
        policy = json.loads((folder / f"policy.{stage.split('-')[0]}.json").read_text("utf-8"))
        return str(policy["provenance"]["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _number(name: str) -> tuple[int, str]:
    found = re.search(r"\d+$", name)
    return (int(found.group()) if found else -1, name)


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
