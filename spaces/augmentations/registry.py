"""Catalog of augmentations by name, and construction from names and JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spaces.augmentations.auto import AutoAugment, RandAugment, TrivialAugment
from spaces.augmentations.base import Augmentation
from spaces.augmentations.basic import CropFlip, Cutout, Flip, Identity, PolicyAugmentation
from spaces.augmentations.custom import CustomAugmentation, custom_augmentation
from spaces.augmentations.hard import Hard, HardAffine, HardChain, HardColor, HardMix, HardVae
from spaces.augmentations.mixing import CutMix, Mixup
from spaces.augmentations.pick import CutMixPick, Pick
from spaces.core.errors import RequestError, unknown
from spaces.policy.scaled import parse_policy

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
"""All augmentations by name: basic ones, mixes, then learned ones."""


def imported_name(choice: Augmentation) -> str:
    """Return the dotted name that `choice` imports when used; empty for augmentations of the catalog."""
    if isinstance(choice, Pick):
        return imported_name(choice.base)
    return choice.factory if isinstance(choice, CustomAugmentation) else ""


def resolve(choice: Augmentation) -> None:
    """Import the factory of a custom augmentation now rather than at first use; do nothing for others.

    Raises:
        RequestError: The import failed, or the factory does not accept the parameters.
    """
    if isinstance(choice, Pick):
        resolve(choice.base)
    if isinstance(choice, CustomAugmentation):
        choice.resolve()


def augmentation(choice: object) -> Augmentation:
    """Construct an augmentation from a name or JSON data.

    Args:
        choice: Name in `CATALOG`, dotted name of a custom augmentation, or a mapping with `kind` and parameters as
            `Augmentation.to_json` returns it.

    Raises:
        RequestError: A name or parameter is unknown, or a value is out of range.

    Example:
        >>> from spaces.augmentations import augmentation
        >>> augmentation("cutmix")
        CutMix(draw='sample', alpha=1.0)
        >>> augmentation({"kind": "cutout", "side": 0.25}).label
        'cutout(side=0.25)'
    """
    if isinstance(choice, Augmentation):
        return choice
    content = {"kind": choice} if isinstance(choice, str) else choice
    if not isinstance(content, Mapping) or not isinstance(content.get("kind"), str):
        raise RequestError("an augmentation must be a name, or a mapping with kind and parameters", value=choice)
    kind = content["kind"]
    if "." in kind or ":" in kind:
        return custom_augmentation(kind, {str(name): value for name, value in content.items() if name != "kind"})
    if kind not in CATALOG:
        raise unknown("augmentation", kind, CATALOG)
    cls = CATALOG[kind]
    known = {name for name, field in cls.__dataclass_fields__.items() if field.init}
    parameters = {str(name): value for name, value in content.items() if name != "kind"}
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {kind}", name, known)
    if "policy" in parameters:
        parameters["policy"] = parse_policy(parameters["policy"])
    if "base" in parameters:
        base = parameters["base"]
        if isinstance(base, Mapping) and base.get("kind") == Pick.kind:  # before recursion, whose depth has no limit
            raise RequestError(f"the base of {kind} must not be a pick", value=Pick.kind)
        parameters["base"] = augmentation(base)
    if isinstance(parameters.get("parts"), list | tuple):
        parameters["parts"] = tuple(_part(part) for part in parameters["parts"])
    return cls(**parameters)


def _part(choice: object) -> Augmentation:
    """Construct a part of a chain; refuse other kinds before recursion, whose depth has no limit."""
    kind = choice.get("kind") if isinstance(choice, Mapping) else getattr(choice, "kind", choice)
    if kind == HardChain.kind:
        raise RequestError(f"the parts of {kind} must not be chains", value=kind)
    if isinstance(kind, str) and not issubclass(CATALOG.get(kind, Hard), Hard):
        raise RequestError(
            f"the parts of {HardChain.kind} must be two or more of the other hard augmentations", value=kind
        )
    return augmentation(choice)
