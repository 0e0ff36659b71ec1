"""Schedules: which genome is in force at which epoch, and the policy file they travel in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from spaces.augmentations.hard import learned_parts, with_tensors
from spaces.core.errors import RequestError
from spaces.core.io import read_bytes, read_text, write_atomic
from spaces.core.weights import Learned
from spaces.policy.policy import Policy
from spaces.schedule import serialization
from spaces.schedule.batch_transform import SecondView, Transform
from spaces.schedule.genome import Genome

WEIGHTS_SUFFIX = ".safetensors"
ROLES = ("teacher", "student")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Phase:
    """`genome` is in force for `epochs` ≥ 1 epochs."""

    epochs: int
    genome: Genome

    def __post_init__(self) -> None:
        """Refuse a phase of no epochs."""
        if not _is_whole(self.epochs) or self.epochs < 1:
            raise RequestError("a phase has one epoch or more", value=self.epochs)


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The images a schedule was made for.

    Args:
        size: side in pixels.
        channels: 1 or 3.
        fill: the color, 0 … 255 per channel, that uncovered and cut-out pixels take; the data set's mean color.
    """

    size: int
    channels: int
    fill: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what is no image."""
        object.__setattr__(self, "fill", tuple(self.fill))
        if not _is_whole(self.size) or self.size < 1:
            raise RequestError("an image's size is a whole number of px, at least 1", value=self.size)
        if not _is_whole(self.channels) or self.channels not in (1, 3):
            raise RequestError("an image has 1 or 3 channels", value=self.channels)
        if len(self.fill) != self.channels or not all(_is_whole(v) and 0 <= v <= 255 for v in self.fill):
            raise RequestError(f"a fill color is {self.channels} whole numbers from 0 to 255", value=list(self.fill))

    def to_json(self) -> dict[str, Any]:
        """These three as plain data."""
        return {"size": self.size, "channels": self.channels, "fill": list(self.fill)}


@dataclass(frozen=True)
class Schedule:
    """One role's genomes in the order in which they are in force.

    Two schedules are equal when they do the same to the same images; where they come from does not count.

    Args:
        phases: at least one.
        role: `teacher` or `student`.
        image: the images it was made for.
        provenance: where it comes from; plain JSON data.
    """

    phases: tuple[Phase, ...]
    role: str
    image: ImageSpec
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Refuse what is no schedule."""
        object.__setattr__(self, "phases", tuple(self.phases))
        if not all(isinstance(phase, Phase) for phase in self.phases):
            raise RequestError("a schedule's phases are Phase(epochs, genome)", value=self.phases)
        if not self.phases:
            raise RequestError("a schedule has one phase or more", value=[])
        if self.role not in ROLES:
            raise RequestError(f"a role is one of {', '.join(ROLES)}", value=self.role)

    @property
    def epochs(self) -> int:
        """How many epochs the schedule covers."""
        return sum(phase.epochs for phase in self.phases)

    def at(self, epoch: int) -> Genome:
        """The genome in force at `epoch`, counted from 0.

        Raises:
            RequestError: the schedule ends before `epoch`.
        """
        if not _is_whole(epoch):
            raise RequestError("an epoch is a whole number", value=epoch)
        for end, phase in self._ends():
            if 0 <= epoch < end:
                return phase.genome
        raise RequestError(
            f"this schedule covers the epochs 0 to {self.epochs - 1}",
            value=epoch,
            hint="use schedule.stretch(epochs)",
        )

    def stretch(self, epochs: int) -> Schedule:
        """The same schedule over `epochs` epochs: every boundary keeps its fraction of the whole, rounded.

        Raises:
            RequestError: fewer than one epoch.
        """
        if not _is_whole(epochs) or epochs < 1:
            raise RequestError("a schedule covers one epoch or more", value=epochs)
        phases: list[Phase] = []
        start = 0
        for end, phase in self._ends():
            # Whole numbers throughout, so that equal inputs give equal schedules everywhere; halves round up.
            stop = (2 * end * epochs + self.epochs) // (2 * self.epochs)
            if stop > start:
                phases.append(Phase(stop - start, phase.genome))
                start = stop
        return replace(self, phases=tuple(phases))

    def shuffled(self, seed: int) -> Schedule:
        """The same phases in another order, drawn from `seed`: the control that shows whether the order matters.

        Every genome keeps its epochs. A schedule of two different phases or more never comes back as it is.
        """
        if not _is_whole(seed) or seed < 0:
            raise RequestError("a seed is a whole number, at least 0", value=seed)
        generator = np.random.default_rng(seed)
        phases = self.phases
        while phases == self.phases and len(set(self.phases)) > 1:
            phases = tuple(self.phases[index] for index in generator.permutation(len(self.phases)))
        return replace(self, phases=phases, provenance={"shuffled": seed, "of": dict(self.provenance)})

    def mean(self) -> Schedule:
        """One genome for all epochs: the control that shows whether it matters that the genome changes.

        Its policy is the mean over the epochs, see `Policy.mean`; the rest is what is in force for the most epochs.
        """
        parts = ("augment", "distill", "bits")
        usual = {part: _longest([(each.epochs, getattr(each.genome, part)) for each in self.phases]) for part in parts}
        policy = Policy.mean([(phase.epochs, phase.genome.policy) for phase in self.phases])
        phases = (Phase(self.epochs, Genome(policy, **usual)),)
        return replace(self, phases=phases, provenance={"mean": True, "of": dict(self.provenance)})

    def mean_strength(self) -> float:
        """The expected magnitude, 0 … 9, averaged over entries and epochs: how strongly this role is augmented."""
        return sum(phase.epochs * phase.genome.policy.mean_strength() for phase in self.phases) / self.epochs

    def transform(self, epoch: int, *, seed: int = 0) -> Transform:
        """The augmentation in force at `epoch`: a module on batches (B, C, H, W), uint8 or float in [0, 1].

        Its random numbers follow from `seed` and `epoch`, never from the global state. Processes that train together
        take a seed each, such as their rank.
        """
        return Transform(self.at(epoch).policy, fill=self.image.fill, seed=(seed, epoch))

    def second_view(self, epoch: int, *, seed: int = 0) -> SecondView | None:
        """What makes the second view at `epoch`, for the distillation loss alone; None where there is none."""
        genome = self.at(epoch)
        return SecondView(genome.augment, fill=self.image.fill, seed=(seed, epoch, 1)) if genome.has_view else None

    @property
    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        """The learned weights that its genomes hold, by their hash; those that are not at hand are left out."""
        parts = [part for phase in self.phases for part in learned_parts(phase.genome.augment)]
        return {part.sha256: part.tensors for part in parts if part.tensors is not None}

    def to_json(self) -> dict[str, Any]:
        """The policy file's content as plain data; of learned weights, the hashes."""
        return {
            "format": serialization.FORMAT,
            "version": serialization.VERSION,
            "role": self.role,
            "image": self.image.to_json(),
            "schedule": [{"epochs": phase.epochs, "genome": phase.genome.to_json()} for phase in self.phases],
            "provenance": dict(self.provenance),
        }

    def dumps(self) -> str:
        """The policy file's text. The same schedule gives the same bytes: one entry a line, keys in a fixed order."""
        return serialization.text(self.to_json())

    def save(self, path: Path | str) -> Path:
        """Write the policy file to `path`, whole or not at all.

        Learned weights go to a file beside it, see `weights_file`, whose SHA-256 stands in the policy file.

        Raises:
            RequestError: the place cannot be written to, or learned weights are not at hand.
        """
        document, path = self.to_json(), Path(path)
        beside = weights_file(path)
        for phase in self.phases:
            for part in learned_parts(phase.genome.augment):
                part.required()
        if weights := self.weights:
            named = {f"{key}/{name}": tensor for key, part in weights.items() for name, tensor in part.items()}
            content = safetensors.torch.save(named)
            document["weights"] = {"file": beside.name, "sha256": hashlib.sha256(content).hexdigest()}
            text = serialization.text(document)
            write_atomic(beside, content)
            return write_atomic(path, text)
        return write_atomic(path, serialization.text(document))

    @classmethod
    def from_json(cls, document: Any, own: Collection[str] = ()) -> Schedule:
        """The schedule in a policy file's content; `own` as for `load`.

        Raises:
            RequestError: it is no policy file, a newer version, or breaks the schema.
        """
        serialization.validate_policy(document)
        genomes = [Genome.from_json(item["genome"]) for item in document["schedule"]]
        for genome in genomes:
            if strange := [name for name in genome.imported if name not in own]:
                rule = "a policy file names what comes with roletune, since any other name would be imported"
                hint = "if you trust it, allow that name: own=[…], --own, or the sweep's space"
                raise RequestError(rule, value=strange[0], hint=hint)
        image = document["image"]
        return cls(
            phases=tuple(Phase(item["epochs"], g) for item, g in zip(document["schedule"], genomes, strict=True)),
            role=document["role"],
            image=ImageSpec(image["size"], image["channels"], tuple(image["fill"])),
            provenance=document["provenance"],
        )

    @classmethod
    def loads(
        cls,
        text: str,
        source: str = "the text",
        own: Collection[str] = (),
        beside: Callable[[str], bytes] | None = None,
    ) -> Schedule:
        """The schedule in a policy file's text.

        Args:
            text: of the file.
            source: names the file, for errors.
            own: as for `load`.
            beside: gives the content of the file of that name in the policy file's folder; None: there is no folder.
        """
        document = serialization.parse(text, source)
        try:
            schedule = cls.from_json(document, own)
            return schedule._with_weights(document["weights"], beside) if "weights" in document else schedule
        except RequestError as error:
            raise RequestError(f"{source}: {error}") from error

    @classmethod
    def load(cls, path: Path | str, own: Collection[str] = ()) -> Schedule:
        """Read a policy file.

        Args:
            path: of the file.
            own: dotted names of augmentations, and of losses, that the file may hold. They are imported when they are
                used, so only names that you trust belong here.

        Raises:
            RequestError: the file is missing, broken, of a newer version, or holds a dotted name that is not in `own`.
        """
        folder = Path(path).parent
        return cls.loads(
            read_text(path, "policy file"),
            str(path),
            own,
            lambda name: read_bytes(folder / name, "weights file"),
        )

    def _with_weights(self, entry: Mapping[str, str], beside: Callable[[str], bytes] | None) -> Schedule:
        """The same schedule, with the learned weights that its policy file names."""
        if beside is None:
            hint = "load the policy from its file: Schedule.load(path)"
            raise RequestError("its learned weights lie in a file beside it", value=entry["file"], hint=hint)
        content = beside(entry["file"])
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            hint = "fetch both files again: they belong together"
            raise RequestError("the weights beside it are those it was saved with", value=entry["file"], hint=hint)
        try:
            named = safetensors.torch.load(content)
        except (SafetensorError, ValueError) as error:
            raise RequestError(f"{entry['file']} is no safetensors file: {error}") from error
        weights: dict[str, dict[str, Tensor]] = {}
        for name, tensor in named.items():
            key, _, rest = name.partition("/")
            weights.setdefault(key, {})[rest] = tensor
        for key, part in weights.items():
            if Learned.of(part).sha256 != key:
                raise RequestError("learned weights bear their own hash", value=key)
        phases = tuple(
            replace(phase, genome=replace(phase.genome, augment=with_tensors(phase.genome.augment, weights)))
            for phase in self.phases
        )
        for phase in phases:
            for reference in learned_parts(phase.genome.augment):
                reference.required()
        return replace(self, phases=phases)

    def _ends(self) -> Iterator[tuple[int, Phase]]:
        end = 0
        for phase in self.phases:
            end += phase.epochs
            yield end, phase


def weights_file(path: Path | str) -> Path:
    """Where the learned weights of the policy file at `path` lie: `NAME.safetensors` beside `NAME.json`.

    Raises:
        RequestError: `path` names no file, or one of weights.
    """
    path = Path(path)
    if not path.name or path.suffix == WEIGHTS_SUFFIX:
        raise RequestError("a policy file has a name, and is JSON", value=str(path), hint="call it NAME.json")
    return path.parent / (path.name.removesuffix(".json") + WEIGHTS_SUFFIX)


def merge(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Neighbors with the same genome become one phase."""
    merged: list[Phase] = []
    for phase in phases:
        if merged and merged[-1].genome == phase.genome:
            phase = Phase(merged.pop().epochs + phase.epochs, phase.genome)
        merged.append(phase)
    return tuple(merged)


def _longest(values: Sequence[tuple[int, T]]) -> T:
    """Of values that are in force for some epochs each, the one that is for the most; of equals, the first."""
    return max((value for _, value in values), key=lambda one: sum(epochs for epochs, value in values if value == one))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
