"""How choices evolve: configuration, stages, the scheduler, the sweep. `search.run(config)` is the whole of it.

Names are loaded when they are first used, so that importing this package does not import Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.analysis.evaluation import Evaluation
    from results.analysis.summary import SweepResult
    from search.config.schema import SweepConfig
    from search.sweeps.evaluation import evaluate
    from search.sweeps.runner import replay, run

_HOMES = {
    "Evaluation": "results.analysis.evaluation",
    "SweepConfig": "search.config.schema",
    "SweepResult": "results.analysis.summary",
    "evaluate": "search.sweeps.evaluation",
    "replay": "search.sweeps.runner",
    "run": "search.sweeps.runner",
}

__all__ = ["Evaluation", "SweepConfig", "SweepResult", "evaluate", "replay", "run"]


def __getattr__(name: str) -> Any:
    """The public name `name`, imported now."""
    if name not in _HOMES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
