"""Genomes: all choices of one agent at one time."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from spaces.augmentations import Augmentation, Identity, augmentation, imported_name
from spaces.core.errors import RequestError
from spaces.core.validation import is_integer
from spaces.policy.policy import Policy
from spaces.policy.scaled import AnyPolicy, ScaledPolicy


@dataclass(frozen=True, slots=True)
class Genome:
    """All choices of one agent at one time.

    Args:
        policy: Policy for the images of the role, of PBA's kind or scaled.
        augment: Augmentation that makes the second view of a batch, used by the distillation loss alone; the identity
            for no second view.
        distill: Chosen settings of the distillation, as JSON data; empty for none.
        bits: Chosen bits of the student's `weights` and `activations`; empty for none. They are constant over the
            training of a network.

    Example:
        >>> from spaces import Entry, Genome, Policy
        >>> genome = Genome(Policy((Entry("Rotate", 5, 4),)), distill={"loss": "kd", "temperature": 4.0})
        >>> genome.is_identity, genome.has_view
        (False, False)
        >>> Genome.from_json(genome.to_json()) == genome
        True
    """

    policy: AnyPolicy = field(default_factory=Policy)
    augment: Augmentation = field(default_factory=Identity)
    distill: Mapping[str, Any] = field(default_factory=dict, hash=False)
    bits: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def is_identity(self) -> bool:
        """True if no image is ever changed."""
        return self.policy.is_identity and not self.has_view

    @property
    def has_view(self) -> bool:
        """True if there is a second view of each batch."""
        return self.augment.kind != Identity.kind

    @property
    def imported_names(self) -> tuple[str, ...]:
        """Dotted names of custom code, an augmentation or losses, that the genome imports when used."""
        augment = imported_name(self.augment)
        return (*([augment] if augment else []), *custom_losses(self.distill))

    def to_json(self) -> dict[str, Any]:
        """Return the genome as JSON data, the inverse of `from_json`."""
        kind = "scaled" if isinstance(self.policy, ScaledPolicy) else "policy"
        content: dict[str, Any] = {kind: self.policy.to_json()}
        content |= {"augment": self.augment.to_json()} if self.has_view else {}
        content |= {"distill": deepcopy(dict(self.distill))} if self.distill else {}
        return content | ({"bits": dict(self.bits)} if self.bits else {})

    @classmethod
    def from_json(cls, data: Any) -> Genome:
        """Return the genome that `to_json` wrote.

        Raises:
            RequestError: `data` is not a genome.
        """
        keys = set(data) if isinstance(data, Mapping) else set()
        if len(keys & {"policy", "scaled"}) != 1 or not keys <= {"policy", "scaled", "augment", "distill", "bits"}:
            value = sorted(map(str, data)) if isinstance(data, Mapping) else data
            rule = "a genome must be an object with policy or scaled, optional augment, distill and bits, and no others"
            raise RequestError(rule, value=value)
        distill = data.get("distill", {})
        if not isinstance(distill, Mapping) or not all(isinstance(name, str) for name in distill):
            raise RequestError("the distill of a genome must be an object", value=distill)
        bits = data.get("bits", {})
        if not isinstance(bits, Mapping) or not all(isinstance(name, str) and is_integer(bits[name]) for name in bits):
            raise RequestError("the bits of a genome must be an object of integers", value=bits)
        augment = augmentation(data.get("augment", Identity.kind))
        policy = ScaledPolicy.from_json(data["scaled"]) if "scaled" in data else Policy.from_json(data["policy"])
        return cls(policy, augment, deepcopy(dict(distill)), dict(bits))


def custom_losses(distill: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted names among the losses of `distill`, of a genome or of a space."""
    loss = distill.get("loss", ())
    sums = loss if isinstance(loss, list | tuple) else [loss]
    names = [str(name) for each in sums for name in (each if isinstance(each, Mapping) else [each])]
    return tuple(dict.fromkeys(name for name in names if {".", ":"} & set(name)))
