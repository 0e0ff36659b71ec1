"""Augmentations that make the second view of a batch for distillation, and their catalog."""

from spaces.augmentations.auto import AutoAugment, RandAugment, TrivialAugment
from spaces.augmentations.base import Augmentation, Predict, View
from spaces.augmentations.basic import CropFlip, Cutout, Flip, Identity, PolicyAugmentation
from spaces.augmentations.custom import CustomAugmentation
from spaces.augmentations.hard import Hard, HardAffine, HardChain, HardColor, HardMix, HardVae
from spaces.augmentations.mixing import CutMix, Mixup
from spaces.augmentations.pick import CutMixPick, Pick, entropy
from spaces.augmentations.registry import CATALOG, augmentation, imported_name, resolve

__all__ = [
    "CATALOG",
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
    "Predict",
    "RandAugment",
    "TrivialAugment",
    "View",
    "augmentation",
    "entropy",
    "imported_name",
    "resolve",
]
