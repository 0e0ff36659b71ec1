"""Ray Tune's files of population based training: `pbt_policy_<trial>.txt`, where the genome stands in the config.

Source: `ray/tune/schedulers/pbt.py` (2.60): `_log_config_on_step` writes one JSON list per copy,
`PopulationBasedTrainingReplay` reads them, and from the last line backwards as it is done here. What they mean is said
in `spaces.importers.pbt_log`; an epoch is Ray's `training_iteration`, so the trainable must have reported once an epoch.

The configs are the user's own. They are read where they hold `genome` (as `Genome.to_json` gives it), or else
`hp_policy` (PBA's 60 numbers); what else they hold is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError
from spaces.importers.pba import from_numbers, named
from spaces.importers.pbt_log import read_chain
from spaces.schedule.genome import Genome
from spaces.schedule.schedule import ImageSpec, Phase


def read(
    source: Path | str, epochs: int, _image: ImageSpec, operations: Sequence[str] | None
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """The phases in a Ray Tune file; the arguments are those of `spaces.importers.read_schedule`."""
    order = named(operations)
    phases, provenance = read_chain(source, epochs, _parse, partial(_genome, operations=order))
    return phases, provenance | ({} if operations is None else {"operations": list(order)})


def _genome(config: Any, operations: tuple[str, ...]) -> Genome:
    if isinstance(config, dict) and "genome" in config:
        try:
            return Genome.from_json(config["genome"])
        except RecursionError as error:
            raise RequestError("a genome is not nested without end") from error
    if isinstance(config, dict) and "hp_policy" in config:
        return from_numbers(config["hp_policy"], operations)
    got = list(config) if isinstance(config, dict) else config
    raise RequestError("a config is an object that holds genome or hp_policy", value=got)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("a line is JSON", value=text) from error
