"""Schedule files `pbt_policy_*.txt` of PBA, and of role-kd, which uses PBA's code.

Source: Ho et al. 2019, https://arxiv.org/abs/1905.05393, https://github.com/arcelien/pba, `pba/utils.py`: `parse_log`.
A file has one line per copy, as JSON or a Python literal; `spaces.importers.pbt_log` describes it. A config is a list
of 60 integers (the files in PBA's `schedules/`) or an object with the list under `hp_policy`: 2 copies × 15 operations
× (probability in tenths 0 … 10, magnitude 0 … 9).

**The files do not name the operations.** Their order is that of a dict in the Python that wrote the file:

- PBA from commit 950397f on, with any Python: the order of `spaces.OPERATIONS`, the default here.
- PBA before it (588f1b7) and role-kd, with Python 2: the same, since the hashes of the names give that order, which
  commit 950397f made explicit. So `schedules/rcifar10_16_wrn.txt` (200 epochs) and `schedules/rsvhn_16_wrn.txt` (160
  epochs) of 588f1b7 and the files of role-kd have the default order.
- The same code with Python 3.6 or newer: `SOURCE_ORDER`. Pass `operations=SOURCE_ORDER` for such a file.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError
from spaces.importers.pbt_log import read_copies
from spaces.operations import OPERATIONS
from spaces.policy.policy import Entry, Policy
from spaces.schedule.genome import Genome
from spaces.schedule.image_spec import ImageSpec
from spaces.schedule.schedule import Phase
from spaces.search_space.space import Space

COPIES = 2

SOURCE_ORDER = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
)
"""Order of `HP_TRANSFORMS` in the source of PBA's commit 588f1b7 and of role-kd."""


def read(
    source: Path | str, epochs: int, _image: ImageSpec, operations: Sequence[str] | None
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """Return the phases of a PBA schedule file; for the arguments see `spaces.importers.read_schedule`."""
    order = operation_order(operations)
    phases, provenance = read_copies(source, epochs, _parse, partial(_genome, operations=order))
    return phases, provenance | ({} if operations is None else {"operations": list(order)})


def operation_order(operations: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the operations in order; `spaces.OPERATIONS` for None.

    Raises:
        RequestError: A name is unknown or repeated, or there is none.
    """
    return Space(tuple(OPERATIONS if operations is None else operations)).operations


def genome_from_numbers(numbers: Any, operations: tuple[str, ...]) -> Genome:
    """Return the genome for PBA's 60 numbers: probability and magnitude of each operation, copy by copy.

    Raises:
        RequestError: The number of numbers is wrong, or one is not an integer or out of range.

    Example:
        >>> from spaces.importers.pba import genome_from_numbers
        >>> genome_from_numbers([5, 9, 0, 0], ("Rotate",)).policy.entries[0]
        Entry(op='Rotate', probability=5, magnitude=9)
    """
    count = COPIES * len(operations) * 2
    if not isinstance(numbers, list | tuple):
        raise RequestError(f"hp_policy must be a list of {count} numbers", value=numbers)
    if len(numbers) != count:
        raise RequestError(
            f"hp_policy must have {count} numbers, a probability and a magnitude per entry", value=len(numbers)
        )
    entries = zip(operations * COPIES, numbers[::2], numbers[1::2], strict=True)
    return Genome(Policy(tuple(Entry(op, probability, magnitude) for op, probability, magnitude in entries)))


def _genome(config: Any, operations: tuple[str, ...]) -> Genome:
    if isinstance(config, dict):
        if "hp_policy" not in config:
            raise RequestError("a config must have the key hp_policy", value=list(config))
        config = config["hp_policy"]
    return genome_from_numbers(config, operations)


def _parse(text: str) -> Any:
    """Parse JSON, or else a Python literal; neither runs code."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise RequestError("a line must be JSON or a Python literal", value=text) from error
