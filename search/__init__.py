"""How choices evolve: configuration, search algorithms, sweeps. `search.run(config)` runs a sweep.

Names are loaded when they are first used, so that importing this package does not import Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.analysis.evaluation import Evaluation
    from results.analysis.screening import ScreeningResult
    from results.analysis.summary import SweepResult
    from search.algorithms.base import SearchAlgorithm
    from search.config.schema import SweepConfig
    from search.sweeps.doctor import examine
    from search.sweeps.evaluation import evaluate
    from search.sweeps.runner import replay, run
    from search.sweeps.screening import screen

_MODULES = {
    "Evaluation": "results.analysis.evaluation",
    "ScreeningResult": "results.analysis.screening",
    "SearchAlgorithm": "search.algorithms.base",
    "SweepConfig": "search.config.schema",
    "SweepResult": "results.analysis.summary",
    "evaluate": "search.sweeps.evaluation",
    "examine": "search.sweeps.doctor",
    "replay": "search.sweeps.runner",
    "run": "search.sweeps.runner",
    "screen": "search.sweeps.screening",
}

__all__ = [
    "Evaluation",
    "ScreeningResult",
    "SearchAlgorithm",
    "SweepConfig",
    "SweepResult",
    "evaluate",
    "examine",
    "replay",
    "run",
    "screen",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
