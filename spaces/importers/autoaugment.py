"""AutoAugment's published policies, from torchvision's tables: an approximation, as one policy for all epochs.

Source: Cubuk et al. 2019, https://arxiv.org/abs/1805.09501; `torchvision.transforms.AutoAugment`. There, each image
gets one of 25 sub-policies of two operations (name, probability p, magnitude m in 0 … 9), applied one after the other.

A policy here has no sub-policies, so the 50 operations become 50 entries in the table's order. The pairing and the
order within a sub-policy are lost: an image gets 0, 1 or 2 of the 50 by PBA's walk (1.3 on average, where the tables
make it 1.24 for imagenet, 1.06 for cifar10 and 1.32 for svhn), each about in proportion to its p, as in AutoAugment.

p becomes tenths without loss. m becomes the level L whose effect is nearest to that of m in torchvision, the lower one
of two that are equally near:

| operation | torchvision at m | here at L |
|---|---|---|
| ShearX, ShearY | slope ±m/30 | ±0.03·L |
| TranslateX, TranslateY | ±int(m · 150/331 · side/9) px, to 45 % of the side | ±round(L·side/32) px, to 28 % |
| Rotate | ±30·m/9 degrees | ±3·L degrees |
| Brightness, Color, Contrast, Sharpness | factor 1 ± 0.1·m, the sign drawn for each image | factor 0.1 + 0.18·L |
| Posterize | 8 - round(m · 4/9) bits, 4 … 8 | 4 - int(0.4·L) bits: always L = 0, 4 bits |
| Solarize | inverted from 255 · (1 - m/9) up | inverted from 256 - int(25.6·L) up |
| AutoContrast, Equalize, Invert | no magnitude | L = 0 |

Where torchvision draws an enhancer's sign, the entries of one operation take turns: the first, third, … takes the sign
+, the second, fourth, … the sign -. What lies beyond level 9 becomes level 9.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError, unknown
from spaces.operations import LEVELS
from spaces.policy.policy import TENTHS, Entry, Policy
from spaces.schedule.genome import Genome
from spaces.schedule.schedule import ImageSpec, Phase

APPROXIMATION = (
    "AutoAugment's 25 pairs as 50 entries: pairing and order are lost, and PBA's walk decides how many an image gets; "
    "each magnitude is the level of nearest effect, and an enhancer's random sign is + and - in turn"
)

_BINS = 10
_ENHANCERS = ("Brightness", "Color", "Contrast", "Sharpness")


def read(
    source: Path | str, epochs: int, image: ImageSpec, operations: Sequence[str] | None
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """The table `source` (imagenet, cifar10 or svhn) as one phase; see `spaces.importers.read_schedule`."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes a second, and only this reader needs it

    if operations is not None:
        raise RequestError("an AutoAugment table names its operations itself", value=list(operations))
    tables = {policy.value: policy for policy in AutoAugmentPolicy}
    name = str(source)
    if name not in tables:
        raise unknown("AutoAugment table", name, tables)
    policy = _policy(AutoAugment(tables[name]), image.size)
    return (Phase(epochs, Genome(policy)),), {"table": name, "approximation": APPROXIMATION}


def level_effect(op: str, level: int, side: int) -> float:
    """What `op` does at `level` to images of `side` px: degrees, slope, pixels, factor, bits or threshold."""
    match op:
        case "Rotate":
            return 3 * level
        case "ShearX" | "ShearY":
            return 0.03 * level
        case "TranslateX" | "TranslateY":
            return (level * side + 16) // 32
        case "Posterize":
            return 4 - level * 4 // 10
        case "Solarize":
            return 256 - level * 256 // 10
        case _:
            return 0.1 + 0.18 * level


def _policy(augment: Any, side: int) -> Policy:
    magnitudes = augment._augmentation_space(_BINS, (side, side))
    used: Counter[str] = Counter()
    entries = []
    for op, probability, place in chain.from_iterable(augment.policies):
        level = 0
        if place is not None:
            sign = -1 if used[op] % 2 else 1
            level = _nearest(op, _torchvision_effect(op, float(magnitudes[op][0][place]), sign), side)
            used[op] += 1
        entries.append(Entry(op, round(probability * TENTHS), level))
    return Policy(tuple(entries))


def _nearest(op: str, effect: float, side: int) -> int:
    return min(range(LEVELS), key=lambda level: abs(level_effect(op, level, side) - effect))


def _torchvision_effect(op: str, magnitude: float, sign: int) -> float:
    """What torchvision's `_apply_op` does with this magnitude, in the terms of `level_effect`."""
    if op in _ENHANCERS:
        return 1 + sign * magnitude
    if op == "Solarize":
        return math.ceil(magnitude)
    return int(magnitude) if op.startswith("Translate") else magnitude
