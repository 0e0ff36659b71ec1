"""PBA's schedule files: `pbt_policy_*.txt` of its searches, and of role-kd's, which took over its code.

Source: Ho et al. 2019, https://arxiv.org/abs/1905.05393, https://github.com/arcelien/pba, `pba/utils.py`: `parse_log`.
One line per copy, as JSON or as a Python literal; what it means is said in `spaces.importers.pbt_log`. A config is a list
of 60 whole numbers (the files that PBA ships in `schedules/`) or an object that holds them under `hp_policy`:
2 copies × 15 operations × (probability in tenths 0 … 10, magnitude 0 … 9).

**The files name no operation.** The numbers are in the order in which the writer's Python listed the keys of a dict:

- PBA from commit 950397f on, with any Python: the order of `spaces.OPERATIONS`, the default here.
- PBA before it (588f1b7), and role-kd, whose dict is plain, with Python 2: the same. The hashes of the names give
  exactly that order, and commit 950397f wrote it down. So `schedules/rcifar10_16_wrn.txt` (200 epochs) and
  `schedules/rsvhn_16_wrn.txt` (160 epochs), which came with 588f1b7, are in the default order, and so are role-kd's.
- The same code with Python 3.6 or newer: `LISTED`, the order of its source. Give `operations=LISTED` for such a file.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError
from spaces.importers.pbt_log import read_chain
from spaces.operations import OPERATIONS
from spaces.policy.policy import Entry, Policy
from spaces.schedule.genome import Genome
from spaces.schedule.schedule import ImageSpec, Phase
from spaces.search_space.space import Space

COPIES = 2

LISTED = (
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
"""The order of `HP_TRANSFORMS` in PBA's commit 588f1b7 and in role-kd; what it takes to have used it, see above."""


def read(
    source: Path | str, epochs: int, _image: ImageSpec, operations: Sequence[str] | None
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """The phases in a PBA schedule file; the arguments are those of `spaces.importers.read_schedule`."""
    order = named(operations)
    phases, provenance = read_chain(source, epochs, _parse, partial(_genome, operations=order))
    return phases, provenance | ({} if operations is None else {"operations": list(order)})


def named(operations: Sequence[str] | None) -> tuple[str, ...]:
    """The names that the numbers stand for; `spaces.OPERATIONS` if nobody says otherwise.

    Raises:
        RequestError: a name is unknown or stands twice, or there is none.
    """
    return Space(tuple(OPERATIONS if operations is None else operations)).operations


def from_numbers(numbers: Any, operations: tuple[str, ...]) -> Genome:
    """The genome in PBA's 60 numbers: copy by copy, operation by operation, the probability and the magnitude.

    Raises:
        RequestError: there are more or fewer, or one is not whole or out of range.
    """
    count = COPIES * len(operations) * 2
    if not isinstance(numbers, list | tuple):
        raise RequestError(f"hp_policy is a list of {count} numbers", value=numbers)
    if len(numbers) != count:
        raise RequestError(f"hp_policy has {count} numbers, a probability and a magnitude an entry", value=len(numbers))
    entries = zip(operations * COPIES, numbers[::2], numbers[1::2], strict=True)
    return Genome(Policy(tuple(Entry(op, probability, magnitude) for op, probability, magnitude in entries)))


def _genome(config: Any, operations: tuple[str, ...]) -> Genome:
    if isinstance(config, dict):
        if "hp_policy" not in config:
            raise RequestError("a config holds hp_policy", value=list(config))
        config = config["hp_policy"]
    return from_numbers(config, operations)


def _parse(text: str) -> Any:
    """JSON, or else a literal; neither runs any code."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise RequestError("a line is JSON or a Python literal", value=text) from error
