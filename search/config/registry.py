"""The search algorithms by name, and what each declares about itself; nothing here imports Ray, Optuna or SciPy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from spaces.core.errors import RequestError, unknown
from spaces.core.importing import check_dotted, import_dotted

if TYPE_CHECKING:
    from spaces import Space

ALGORITHMS: Mapping[str, str] = {
    "pbt": "search.algorithms.pbt:PBT",
    "pba": "search.algorithms.pbt:PBA",
    "blind": "search.algorithms.pbt:Blind",
    "pb2": "search.algorithms.pb2:PB2",
    "random": "search.algorithms.random:RandomSearch",
    "successive_halving": "search.algorithms.successive_halving:SuccessiveHalving",
    "tpe": "search.algorithms.tpe:TPE",
    "grid": "search.algorithms.grid:GridSearch",
    "factorial": "search.algorithms.factorial:Factorial",
    "race": "search.algorithms.race:Race",
}
"""Module and class by the name in a sweep file; a module is imported when its algorithm is first asked for."""

SETTINGS = frozenset(
    {
        "start",
        "growth",
        "candidates",
        "population",
        "trials",
        "rounds",
        "synchronous",
        "tie_break",
        "quantile",
        "reduction",
        "replicates",
        "early_stopping",
    }
)
"""Settings of a search that only some algorithms take."""


class SearchSettings(Protocol):
    """The `search` section of a role, as an algorithm reads it."""

    @property
    def algorithm(self) -> str:
        """Name of the algorithm, or dotted name of the user's own class."""

    @property
    def epochs(self) -> int:
        """Epochs that each member is trained."""

    @property
    def interval(self) -> int:
        """Epochs between perturbations or scores."""

    @property
    def population(self) -> int:
        """Members that are trained together."""

    @property
    def trials(self) -> int:
        """Members that are drawn or suggested."""

    @property
    def start(self) -> str | None:
        """Genome that members start with: `zero`, `random`, `uniform`, `factorial`, a policy file, or None."""

    @property
    def growth(self) -> float:
        """Factor by which the interval grows at each perturbation, >= 1."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """Free baselines and policy files that race; empty for all that the space has."""

    @property
    def rounds(self) -> int:
        """Rounds of a screening experiment: 1 or 2."""

    @property
    def synchronous(self) -> bool:
        """True where all members are compared together."""

    @property
    def tie_break(self) -> str:
        """Order of members of equal score: `none` or `t_stddev`."""

    @property
    def quantile(self) -> float:
        """Share of members that copy, in (0, 0.5]."""

    @property
    def reduction(self) -> int:
        """One member in so many goes on at each rung, >= 2."""

    @property
    def replicates(self) -> int:
        """Members for each combination of a grid."""

    @property
    def early_stopping(self) -> str:
        """`none` or `asha`."""

    @property
    def objective(self) -> tuple[str, ...]:
        """Objectives of the search: `accuracy`, perhaps `size`."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Settings of an algorithm of the user's own."""


class Capabilities:
    """Declared capabilities of a search algorithm; code asks for them instead of comparing names.

    Attributes:
        copies_weights: Members copy each other's weights, so all members have the same number of bits.
        stops_early: Some members end before the last epoch.
        multi_objective: The search accepts `objective: [accuracy, size]`.
        constant_genomes: A member keeps one genome from its first epoch to its last.
        random_control: Fixed random genomes of the same budget are a fair control of the search.
        continues: The search can start from the result of another one; else it must be the first of its list.
        roles: Roles that the algorithm can search.
        settings: Names in `SETTINGS` that the algorithm takes.
        defaults: Defaults that differ from those of the sweep file.
    """

    copies_weights: ClassVar[bool] = False
    stops_early: ClassVar[bool] = False
    multi_objective: ClassVar[bool] = False
    constant_genomes: ClassVar[bool] = True
    random_control: ClassVar[bool] = True
    continues: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = ("teacher", "student")
    settings: ClassVar[frozenset[str]] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def variant(cls, search: SearchSettings) -> type[Self]:  # noqa: ARG003  # for subclasses
        """Return the class that carries out these settings; its capabilities are those that hold."""
        return cls

    @classmethod
    def check(cls, search: SearchSettings, space: Space) -> None:
        """Check what the algorithm requires of its settings and of the space.

        Raises:
            ValueError: A requirement is not met.
        """

    @classmethod
    def member_count(cls, search: SearchSettings, space: Space) -> int:  # noqa: ARG003  # for subclasses
        """Return the number of members of a search of `space`, before screening."""
        return search.population if "population" in cls.settings else search.trials

    @classmethod
    def budget(cls, search: SearchSettings, space: Space) -> int:
        """Return the epochs of training over all members, where none fails."""
        return cls.member_count(search, space) * search.epochs


def is_custom(name: str) -> bool:
    """Return True for a dotted name, which is imported from the user's own code."""
    return bool({".", ":"} & set(name))


def capabilities(name: str) -> type[Capabilities]:
    """Import the class of an algorithm.

    Args:
        name: Name in `ALGORITHMS`, or a dotted name of the user's own class.

    Raises:
        RequestError: The name is unknown, cannot be imported, or does not name a search algorithm.

    Example:
        >>> capabilities("pbt").copies_weights
        True
    """
    if is_custom(name):
        found = import_dotted(name)
        if not (isinstance(found, type) and issubclass(found, Capabilities)):
            hint = "derive it from search.algorithms.base.SearchAlgorithm"
            raise RequestError("algorithm must name a class of search algorithms", value=name, hint=hint)
        return found
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    module, _, attribute = ALGORITHMS[name].partition(":")
    declared: type[Capabilities] = getattr(importlib.import_module(module), attribute)
    return declared


def check_name(name: str) -> None:
    """Check the form of an algorithm's name; a dotted name is not imported.

    Raises:
        RequestError: The name is neither a known one nor a dotted one.
    """
    if is_custom(name):
        check_dotted(name)
    elif name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)


def label(name: str) -> str:
    """Return the part of an algorithm's name that members, folders and tags carry.

    Example:
        >>> label("pbt"), label("mypackage.search:MyAlgorithm")
        ('pbt', 'MyAlgorithm')
    """
    return check_dotted(name)[1].rpartition(".")[2] if is_custom(name) else name


def names_with(**declared: bool) -> str:
    """Return the built-in algorithms whose capabilities are as `declared`, as words for a message.

    Example:
        >>> names_with(multi_objective=True)
        'random, tpe or grid'
    """
    found = [
        name for name in ALGORITHMS if all(getattr(capabilities(name), key) == value for key, value in declared.items())
    ]
    return f"{', '.join(found[:-1])} or {found[-1]}" if len(found) > 1 else "".join(found)
