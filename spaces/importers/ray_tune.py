"""Files `pbt_policy_<trial>.txt` of Ray Tune's population based training.

Source: `ray/tune/schedulers/pbt.py` (2.60): `_log_config_on_step` writes one JSON list per copy, and
`PopulationBasedTrainingReplay` reads them backward as it is done here; `spaces.importers.pbt_log` describes them. An
epoch is Ray's `training_iteration`, so the trainable must have reported once per epoch.

A config must have `genome` (as from `Genome.to_json`) or `hp_policy` (PBA's 60 numbers); other keys are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError
from spaces.importers.pba import genome_from_numbers, operation_order
from spaces.importers.pbt_log import read_copies
from spaces.schedule.genome import Genome
from spaces.schedule.image_spec import ImageSpec
from spaces.schedule.schedule import Phase


def read(
    source: Path | str, epochs: int, _image: ImageSpec, operations: Sequence[str] | None
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """Return the phases of a Ray Tune file; for the arguments see `spaces.importers.read_schedule`."""
    order = operation_order(operations)
    phases, provenance = read_copies(source, epochs, _parse, partial(_genome, operations=order))
    return phases, provenance | ({} if operations is None else {"operations": list(order)})


def _genome(config: Any, operations: tuple[str, ...]) -> Genome:
    if isinstance(config, dict) and "genome" in config:
        try:
            return Genome.from_json(config["genome"])
        except RecursionError as error:
            raise RequestError("a genome must not be nested this deep") from error
    if isinstance(config, dict) and "hp_policy" in config:
        return genome_from_numbers(config["hp_policy"], operations)
    value = list(config) if isinstance(config, dict) else config
    raise RequestError("a config must be an object with the key genome or hp_policy", value=value)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("a line must be JSON", value=text) from error
