"""AutoAugment's published policies from torchvision's tables, approximated by one policy for all epochs.

Source: Cubuk et al. 2019, https://arxiv.org/abs/1805.09501; `torchvision.transforms.AutoAugment`. There each image gets
one of 25 sub-policies of two operations (name, probability p, magnitude m from 0 to 9), applied in order.

A policy here has no sub-policies, so the 50 operations become 50 entries in the order of the table. The pairing and the
order within a sub-policy are lost: `sample` applies 0, 1 or 2 of the 50 (1.3 on average, against 1.24 for imagenet,
1.06 for cifar10 and 1.32 for svhn in torchvision), each about in proportion to its p.

p converts to tenths without loss. m converts to the level L with the nearest effect, the lower one of equals:

| operation | torchvision at m | here at L |
|---|---|---|
| ShearX, ShearY | slope ±m/30 | ±0.03·L |
| TranslateX, TranslateY | ±int(m · 150/331 · side/9) px, to 45 % of the side | ±round(L·side/32) px, to 28 % |
| Rotate | ±30·m/9 degrees | ±3·L degrees |
| Brightness, Color, Contrast, Sharpness | factor 1 ± 0.1·m, the sign drawn for each image | factor 0.1 + 0.18·L |
| Posterize | 8 - round(m · 4/9) bits, 4 … 8 | 4 - int(0.4·L) bits: always L = 0, 4 bits |
| Solarize | inverted from 255 · (1 - m/9) up | inverted from 256 - int(25.6·L) up |
| AutoContrast, Equalize, Invert | no magnitude | L = 0 |

torchvision draws the sign of the enhancement operations. Here the entries of an operation alternate: the first and the
third have the sign +, the second and the fourth the sign -, and so on. Effects beyond level 9 become level 9.
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
from spaces.schedule.image_spec import ImageSpec
from spaces.schedule.schedule import Phase

APPROXIMATION = (
    "AutoAugment's 25 pairs as 50 entries: pairing and order are lost, and PBA's walk decides how many an image gets; "
    "each magnitude is the level of nearest effect, and an enhancer's random sign is + and - in turn"
)

_BINS = 10
_ENHANCERS = ("Brightness", "Color", "Contrast", "Sharpness")


def read(
    source: Path | str, epochs: int, image: ImageSpec, operations: Sequence[str] | None
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """Return the table `source` (imagenet, cifar10 or svhn) as one phase; see `spaces.importers.read_schedule`."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes a second to import

    if operations is not None:
        raise RequestError("operations must not be given for an AutoAugment table", value=list(operations))
    tables = {policy.value: policy for policy in AutoAugmentPolicy}
    name = str(source)
    if name not in tables:
        raise unknown("AutoAugment table", name, tables)
    policy = _policy(AutoAugment(tables[name]), image.size)
    return (Phase(epochs, Genome(policy)),), {"table": name, "approximation": APPROXIMATION}


def level_effect(op: str, level: int, side: int) -> float:
    """Return the effect of a level on images of `side` px: degrees, slope, pixels, factor, bits or threshold.

    Example:
        >>> from spaces.importers.autoaugment import level_effect
        >>> level_effect("Rotate", 4, 32), level_effect("TranslateX", 4, 32)
        (12, 4)
    """
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
    """Return the effect of torchvision's `_apply_op` at a magnitude, in the units of `level_effect`."""
    if op in _ENHANCERS:
        return 1 + sign * magnitude
    if op == "Solarize":
        return math.ceil(magnitude)
    return int(magnitude) if op.startswith("Translate") else magnitude
