"""Genomes: everything that one agent chooses at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from spaces.augmentations import Augmentation, Identity, augmentation, imported
from spaces.core.errors import RequestError
from spaces.policy.policy import Policy


@dataclass(frozen=True, slots=True)
class Genome:
    """Everything that one agent chooses at one moment.

    Args:
        policy: which operations an image may meet.
        augment: how the second view of a batch is made, that only the teacher's answers are the target of; the
            identity: there is no second view.
        distill: what is chosen of how a student learns from its teacher, as plain data; empty: nothing.
        bits: what is chosen of a student's bits, `weights` and `activations`; empty: nothing. A network has them from
            its first epoch to its last.
    """

    policy: Policy = field(default_factory=Policy)
    augment: Augmentation = field(default_factory=Identity)
    distill: Mapping[str, Any] = field(default_factory=dict, hash=False)
    bits: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def is_identity(self) -> bool:
        """Whether no image is ever changed."""
        return self.policy.is_identity and not self.has_view

    @property
    def has_view(self) -> bool:
        """Whether there is a second view of each batch."""
        return self.augment.kind != Identity.kind

    @property
    def imported(self) -> tuple[str, ...]:
        """The dotted names that using it would import: of its augmentation, and of losses of the user's own."""
        augment = imported(self.augment)
        return (*([augment] if augment else []), *own_losses(self.distill))

    def to_json(self) -> dict[str, Any]:
        """This genome as plain data; `from_json` gives it back."""
        content: dict[str, Any] = {"policy": self.policy.to_json()}
        content |= {"augment": self.augment.to_json()} if self.has_view else {}
        content |= {"distill": deepcopy(dict(self.distill))} if self.distill else {}
        return content | ({"bits": dict(self.bits)} if self.bits else {})

    @classmethod
    def from_json(cls, data: Any) -> Genome:
        """The genome that `to_json` wrote.

        Raises:
            RequestError: `data` is no genome.
        """
        if not isinstance(data, Mapping) or not {"policy"} <= set(data) <= {"policy", "augment", "distill", "bits"}:
            got = sorted(map(str, data)) if isinstance(data, Mapping) else data
            rule = "a genome is an object with policy, perhaps augment, distill and bits, and nothing else"
            raise RequestError(rule, value=got)
        distill = data.get("distill", {})
        if not isinstance(distill, Mapping) or not all(isinstance(name, str) for name in distill):
            raise RequestError("a genome's distill is an object", value=distill)
        bits = data.get("bits", {})
        if not isinstance(bits, Mapping) or not all(isinstance(name, str) and _is_whole(bits[name]) for name in bits):
            raise RequestError("a genome's bits are an object of whole numbers", value=bits)
        augment = augmentation(data.get("augment", Identity.kind))
        return cls(Policy.from_json(data["policy"]), augment, deepcopy(dict(distill)), dict(bits))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def own_losses(distill: Mapping[str, Any]) -> tuple[str, ...]:
    """The dotted names among the losses of `distill`, a genome's or a domain of such."""
    loss = distill.get("loss", ())
    sums = loss if isinstance(loss, list | tuple) else [loss]
    names = [str(name) for each in sums for name in (each if isinstance(each, Mapping) else [each])]
    return tuple(dict.fromkeys(name for name in names if {".", ":"} & set(name)))
