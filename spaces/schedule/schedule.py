"""Schedules: the genome of each epoch, and their policy file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from spaces.augmentations.hard_weights import learned_weights, with_weights
from spaces.core.errors import RequestError
from spaces.core.io import read_bytes, read_text, write_atomic
from spaces.core.validation import check_integer, is_integer
from spaces.policy.scaled import ScaledPolicy, mean_policy
from spaces.schedule import serialization
from spaces.schedule.batch_transform import SecondView, Transform
from spaces.schedule.genome import Genome
from spaces.schedule.image_spec import ImageSpec
from spaces.schedule.weights_file import dump_weights, parse_weights, weights_path

ROLES = ("teacher", "student")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Phase:
    """Phase of a schedule: one genome for some epochs.

    Args:
        epochs: Number of epochs, >= 1.
        genome: Genome during these epochs.

    Raises:
        RequestError: `epochs` is less than 1.

    Example:
        >>> from spaces import Genome, Phase
        >>> Phase(3, Genome()).epochs
        3
    """

    epochs: int
    genome: Genome

    def __post_init__(self) -> None:
        """Check the number of epochs."""
        check_integer("Phase.epochs", self.epochs, 1)


@dataclass(frozen=True)
class Schedule:
    """Augmentation schedule of one role: a sequence of phases.

    Schedules are equal if they have the same effect; their provenance does not count.

    Args:
        phases: Phases in order, at least one.
        role: `teacher` or `student`.
        image: Images that the schedule is for.
        provenance: Origin of the schedule, as JSON data.

    Raises:
        RequestError: There is no phase, or the role is unknown.

    Example:
        >>> import torch
        >>> from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule
        >>> rotate = Genome(Policy((Entry("Rotate", 5, 4),)))
        >>> schedule = Schedule((Phase(2, Genome()), Phase(3, rotate)), "student", ImageSpec(8, 1, (0,)))
        >>> schedule.epochs, schedule.stretch(10).phases[1].epochs, schedule.at(4) == rotate
        (5, 6, True)
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> schedule.transform(epoch=4, seed=0)(images).shape
        torch.Size([4, 1, 8, 8])
        >>> Schedule.loads(schedule.dumps()) == schedule
        True
    """

    phases: tuple[Phase, ...]
    role: str
    image: ImageSpec
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "phases", tuple(self.phases))
        if not all(isinstance(phase, Phase) for phase in self.phases):
            raise RequestError("Schedule.phases must be Phase(epochs, genome)", value=self.phases)
        if not self.phases:
            raise RequestError("a schedule must have at least one phase", value=[])
        if self.role not in ROLES:
            raise RequestError(f"Schedule.role must be one of {', '.join(ROLES)}", value=self.role)

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def at(self, epoch: int) -> Genome:
        """Return the genome of an epoch.

        Args:
            epoch: Epoch, counted from 0.

        Raises:
            RequestError: The schedule does not cover `epoch`.
        """
        if not is_integer(epoch):
            raise RequestError("an epoch must be an integer", value=epoch)
        for end, phase in self._ends():
            if 0 <= epoch < end:
                return phase.genome
        raise RequestError(
            f"the epoch must be from 0 to {self.epochs - 1} for this schedule",
            value=epoch,
            hint="use schedule.stretch(epochs)",
        )

    def stretch(self, epochs: int) -> Schedule:
        """Return the schedule scaled to `epochs` epochs; phase boundaries keep their fraction of the whole, rounded.

        Args:
            epochs: New number of epochs, >= 1; phases that round to 0 epochs are dropped.

        Raises:
            RequestError: `epochs` is less than 1.
        """
        check_integer("the epochs of a schedule", epochs, 1)
        phases: list[Phase] = []
        start = 0
        for end, phase in self._ends():
            # Integer arithmetic gives the same schedule on every machine; halves round up.
            stop = (2 * end * epochs + self.epochs) // (2 * self.epochs)
            if stop > start:
                phases.append(Phase(stop - start, phase.genome))
                start = stop
        return replace(self, phases=tuple(phases))

    def shuffled(self, seed: int) -> Schedule:
        """Return the phases in a random order, a control for the effect of the order.

        The order differs from the original one if there are at least two different phases.

        Args:
            seed: Seed of the order, >= 0.

        Raises:
            RequestError: `seed` is negative or not an integer.
        """
        check_integer("seed", seed, 0)
        generator = np.random.default_rng(seed)
        phases = self.phases
        while phases == self.phases and len(set(self.phases)) > 1:
            phases = tuple(self.phases[index] for index in generator.permutation(len(self.phases)))
        return replace(self, phases=phases, provenance={"shuffled": seed, "of": dict(self.provenance)})

    def mean(self) -> Schedule:
        """Return a schedule with one mean genome, a control for the effect of changes over time.

        The policy is the mean over the epochs, see `Policy.mean` and `ScaledPolicy.mean`; all else is the value of the
        most epochs.

        Raises:
            RequestError: Some policies are scaled and some are not.
        """
        parts = ("augment", "distill", "bits")
        common = {part: _longest([(each.epochs, getattr(each.genome, part)) for each in self.phases]) for part in parts}
        policy = mean_policy([(phase.epochs, phase.genome.policy) for phase in self.phases])
        phases = (Phase(self.epochs, Genome(policy, **common)),)
        return replace(self, phases=phases, provenance={"mean": True, "of": dict(self.provenance)})

    def mean_strength(self) -> float:
        """Return the expected magnitude, 0 to 9, averaged over entries and epochs."""
        return sum(phase.epochs * phase.genome.policy.mean_strength() for phase in self.phases) / self.epochs

    def transform(self, epoch: int, *, seed: int = 0) -> Transform:
        """Return the augmentation of an epoch as a module on batches (B, C, H, W), uint8 or float in [0, 1].

        Args:
            epoch: Epoch, counted from 0.
            seed: Seed of the random numbers, together with `epoch`; give each process of a distributed training its
                own, such as its rank.

        Raises:
            RequestError: The schedule does not cover `epoch`.
        """
        return Transform(self.at(epoch).policy, fill=self.image.fill, seed=(seed, epoch))

    def second_view(self, epoch: int, *, seed: int = 0) -> SecondView | None:
        """Return the module that makes the second view of an epoch, for the distillation loss alone; None without one.

        Args:
            epoch: Epoch, counted from 0.
            seed: Seed of the random numbers, together with `epoch`.

        Raises:
            RequestError: The schedule does not cover `epoch`.
        """
        genome = self.at(epoch)
        return SecondView(genome.augment, fill=self.image.fill, seed=(seed, epoch, 1)) if genome.has_view else None

    @property
    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        """Loaded learned weights of all genomes, by their hash."""
        parts = [part for phase in self.phases for part in learned_weights(phase.genome.augment)]
        return {part.sha256: part.tensors for part in parts if part.tensors is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the content of the policy file as JSON data; learned weights as hashes."""
        return {
            "format": serialization.FORMAT,
            "version": self._version,
            "role": self.role,
            "image": self.image.to_json(),
            "schedule": [{"epochs": phase.epochs, "genome": phase.genome.to_json()} for phase in self.phases],
            "provenance": dict(self.provenance),
        }

    @property
    def _version(self) -> int:
        """Version of the policy file: the lowest that can hold the schedule."""
        return 2 if any(isinstance(phase.genome.policy, ScaledPolicy) for phase in self.phases) else 1

    def dumps(self) -> str:
        """Return the text of the policy file, byte for byte the same for the same schedule.

        Raises:
            RequestError: The provenance is not JSON data.
        """
        return serialization.dump(self.to_json())

    def save(self, path: Path | str) -> Path:
        """Write the policy file atomically.

        Learned weights go to a safetensors file in the same folder, see `weights_path`; the policy file holds its
        SHA-256.

        Args:
            path: Path of the policy file, `NAME.json`.

        Returns:
            The path.

        Raises:
            RequestError: The path cannot be written, or learned weights are not loaded.

        Example:
            >>> import tempfile
            >>> from spaces import Genome, ImageSpec, Phase, Schedule
            >>> schedule = Schedule((Phase(2, Genome()),), "teacher", ImageSpec(8, 1, (0,)))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     Schedule.load(schedule.save(f"{folder}/policy.json")) == schedule
            True
        """
        document, path = self.to_json(), Path(path)
        weights_file = weights_path(path)
        for phase in self.phases:
            for part in learned_weights(phase.genome.augment):
                part.required()
        if weights := self.weights:
            content = dump_weights(weights)
            document["weights"] = {"file": weights_file.name, "sha256": hashlib.sha256(content).hexdigest()}
            text = serialization.dump(document)  # validates before anything is written
            write_atomic(weights_file, content)
            return write_atomic(path, text)
        return write_atomic(path, serialization.dump(document))

    @classmethod
    def from_json(cls, document: Any, custom: Collection[str] = ()) -> Schedule:
        """Construct a schedule from the content of a policy file.

        Args:
            document: Content of a policy file as JSON data.
            custom: Dotted names that the file may hold, see `load`.

        Raises:
            RequestError: `document` is not a policy file, has a newer version, or violates the schema.
        """
        serialization.validate_policy(document)
        genomes = [Genome.from_json(serialization.upgrade_genome(item["genome"])) for item in document["schedule"]]
        for genome in genomes:
            if refused := [name for name in genome.imported_names if name not in custom]:
                rule = "a policy file must not import custom code without permission"
                hint = "if you trust it, allow that name: custom=[…], --own, or the space of the sweep"
                raise RequestError(rule, value=refused[0], hint=hint)
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
        custom: Collection[str] = (),
        read_file: Callable[[str], bytes] | None = None,
    ) -> Schedule:
        """Construct a schedule from the text of a policy file.

        Args:
            text: Text of the policy file.
            source: Name of the file in messages.
            custom: Dotted names that the file may hold, see `load`.
            read_file: Function that returns the content of a file in the folder of the policy file, by name; None
                without a folder.

        Raises:
            RequestError: The text is not a valid policy file, see `load`.
        """
        document = serialization.parse(text, source)
        try:
            schedule = cls.from_json(document, custom)
            return schedule._with_weights(document["weights"], read_file) if "weights" in document else schedule
        except RequestError as error:
            raise RequestError(f"{source}: {error}") from error

    @classmethod
    def load(cls, path: Path | str, custom: Collection[str] = ()) -> Schedule:
        """Read a policy file, and its learned weights.

        Args:
            path: Path of the policy file.
            custom: Dotted names of custom augmentations and losses that the file may hold. They are imported when used,
                so list only names that you trust.

        Raises:
            RequestError: The file is missing or invalid, has a newer version, or holds a dotted name not in `custom`.
        """
        folder = Path(path).parent
        return cls.loads(
            read_text(path, "policy file"),
            str(path),
            custom,
            lambda name: read_bytes(folder / name, "weights file"),
        )

    def _with_weights(self, entry: Mapping[str, str], read_file: Callable[[str], bytes] | None) -> Schedule:
        """Return the schedule with the learned weights of its weights file."""
        if read_file is None:
            hint = "load the policy from its file: Schedule.load(path)"
            raise RequestError("the learned weights must be read from their file", value=entry["file"], hint=hint)
        content = read_file(entry["file"])
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            hint = "fetch both files again: they belong together"
            raise RequestError("the weights file must be the one saved with the policy", value=entry["file"], hint=hint)
        weights = parse_weights(content, entry["file"])
        phases = tuple(
            replace(phase, genome=replace(phase.genome, augment=with_weights(phase.genome.augment, weights)))
            for phase in self.phases
        )
        for phase in phases:
            for reference in learned_weights(phase.genome.augment):
                reference.required()
        return replace(self, phases=phases)

    def _ends(self) -> Iterator[tuple[int, Phase]]:
        end = 0
        for phase in self.phases:
            end += phase.epochs
            yield end, phase


def merge(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Merge neighboring phases with the same genome.

    Example:
        >>> from spaces import Genome, Phase
        >>> from spaces.schedule.schedule import merge
        >>> [phase.epochs for phase in merge((Phase(1, Genome()), Phase(2, Genome())))]
        [3]
    """
    merged: list[Phase] = []
    for phase in phases:
        if merged and merged[-1].genome == phase.genome:
            phase = Phase(merged.pop().epochs + phase.epochs, phase.genome)
        merged.append(phase)
    return tuple(merged)


def _longest(values: Sequence[tuple[int, T]]) -> T:
    """Return the value with the most epochs, the first of equals."""
    return max((value for _, value in values), key=lambda one: sum(epochs for epochs, value in values if value == one))
