"""The catalog of named augmentations: each makes a second view of a batch; some mix, some pick."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spaces.augmentations.auto import AutoAugment, RandAugment, TrivialAugment
from spaces.augmentations.base import Answers, Augmentation, View
from spaces.augmentations.basic import CropFlip, Cutout, Flip, Identity, PolicyAugmentation
from spaces.augmentations.custom import CustomAugmentation, own
from spaces.augmentations.hard import Hard, HardAffine, HardChain, HardColor, HardMix, HardVae
from spaces.augmentations.mixing import CutMix, Mixup
from spaces.augmentations.pick import CutMixPick, Pick, entropy
from spaces.core.errors import RequestError, unknown
from spaces.policy.policy import Policy

__all__ = [
    "CATALOG",
    "Answers",
    "Augmentation",
    "AutoAugment",
    "CropFlip",
    "CustomAugmentation",
    "CutMix",
    "CutMixPick",
    "Cutout",
    "Flip",
    "Hard",
    "HardAffine",
    "HardChain",
    "HardColor",
    "HardMix",
    "HardVae",
    "Identity",
    "Mixup",
    "Pick",
    "PolicyAugmentation",
    "RandAugment",
    "TrivialAugment",
    "View",
    "augmentation",
    "entropy",
    "imported",
    "resolve",
]

_KINDS: tuple[type[Augmentation], ...] = (
    Identity,
    Flip,
    CropFlip,
    Cutout,
    AutoAugment,
    RandAugment,
    TrivialAugment,
    PolicyAugmentation,
    Mixup,
    CutMix,
    CutMixPick,
    Pick,
    HardAffine,
    HardMix,
    HardVae,
    HardColor,
    HardChain,
)

CATALOG: Mapping[str, type[Augmentation]] = MappingProxyType({kind.kind: kind for kind in _KINDS})
"""All by name, from the mildest to the mixes, then those that are learned."""


def imported(choice: Augmentation) -> str:
    """The dotted name that using `choice` would import; empty where it is all of the catalog."""
    if isinstance(choice, Pick):
        return imported(choice.base)
    return choice.factory if isinstance(choice, CustomAugmentation) else ""


def resolve(choice: Augmentation) -> None:
    """Import what using `choice` would import, now.

    Raises:
        RequestError: it is not there, or does not take its parameters.
    """
    if isinstance(choice, Pick):
        resolve(choice.base)
    if isinstance(choice, CustomAugmentation):
        choice.resolve()


def augmentation(choice: object) -> Augmentation:
    """The augmentation that `choice` names.

    Args:
        choice: a name of `CATALOG`, a dotted name of your own, or a mapping with `kind` and parameters, as
            `Augmentation.to_json` writes it.

    Raises:
        RequestError: an unknown name or parameter, or a value out of its bounds.
    """
    if isinstance(choice, Augmentation):
        return choice
    content = {"kind": choice} if isinstance(choice, str) else choice
    if not isinstance(content, Mapping) or not isinstance(content.get("kind"), str):
        raise RequestError("an augmentation is a name, or a mapping with kind and parameters", value=choice)
    kind = content["kind"]
    if "." in kind or ":" in kind:
        return own(kind, {str(name): value for name, value in content.items() if name != "kind"})
    if kind not in CATALOG:
        raise unknown("augmentation", kind, CATALOG)
    cls = CATALOG[kind]
    known = {name for name, field in cls.__dataclass_fields__.items() if field.init}
    parameters = {str(name): value for name, value in content.items() if name != "kind"}
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {kind}", name, known)
    if "policy" in parameters:
        parameters["policy"] = Policy.from_json(parameters["policy"])
    if "base" in parameters:
        base = parameters["base"]
        if isinstance(base, Mapping) and base.get("kind") == Pick.kind:  # at once: picks in picks may go to any depth
            raise RequestError(f"{kind}'s base picks nothing itself", value=Pick.kind)
        parameters["base"] = augmentation(base)
    if isinstance(parameters.get("parts"), list | tuple):
        parameters["parts"] = tuple(_part(part) for part in parameters["parts"])
    return cls(**parameters)


def _part(choice: object) -> Augmentation:
    """A part of a chain, refused before it is read if it is no hard one: parts in parts might go to any depth."""
    kind = choice.get("kind") if isinstance(choice, Mapping) else getattr(choice, "kind", choice)
    if kind == HardChain.kind:
        raise RequestError(f"{kind}'s parts are no chains themselves", value=kind)
    if isinstance(kind, str) and not issubclass(CATALOG.get(kind, Hard), Hard):
        raise RequestError(f"{HardChain.kind}'s parts are two or more of the other hard augmentations", value=kind)
    return augmentation(choice)
