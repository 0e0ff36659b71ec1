"""The names that a sweep file can use, read from the registries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from importlib import import_module
from typing import Any, get_args, get_type_hints

from rich.markup import escape
from rich.table import Table

from search.config import registry
from spaces import OPERATIONS
from spaces.augmentations import CATALOG
from spaces.core.errors import unknown
from trainables.data.registry import DATA
from trainables.losses import LOSSES, FeatureLoss
from trainables.models import MODELS
from trainables.quantization import CHOICES

OWN = "a dotted name of your own"


@dataclass(frozen=True)
class Setting:
    """One setting of a sweep file, and its possible names.

    Args:
        name: Name of the setting.
        about: What it chooses.
        names: Names, each with its options and their defaults, and one line about it.
        own: True where a dotted name of the user's own is possible, too.
    """

    name: str
    about: str
    names: Mapping[str, tuple[str, str]]
    own: bool = False

    def table(self) -> Table:
        """Return a table of the names with their options, for a terminal."""
        table = Table(
            header_style="bold", show_edge=False, pad_edge=False, title=escape(self.name), title_justify="left"
        )
        table.add_column(self.about, overflow="fold")
        if not any(any(text) for text in self.names.values()):
            table.add_row(escape(", ".join(self.names)))
            return table
        table.add_column("options", overflow="fold")
        table.add_column("what it is", overflow="fold")
        for name, (options, about) in self.names.items():
            table.add_row(escape(name), escape(options), escape(about))
        return table


def settings() -> tuple[Setting, ...]:
    """Return all settings that are chosen by name."""
    hints = get_type_hints(FeatureLoss)
    projections, normalizations = (dict.fromkeys(_literal(hints[n]), ("", "")) for n in ("projection", "normalization"))
    augmentations = {kind: (_options(choice), _first(choice)) for kind, choice in CATALOG.items()}
    losses = {kind: (_options(loss), _first(import_module(loss.__module__))) for kind, loss in LOSSES.items()}
    algorithms = {name: registry.capabilities(name) for name in registry.ALGORITHMS}
    searches = {name: (", ".join(sorted(each.settings)), _first(each)) for name, each in algorithms.items()}
    return (
        Setting("space.operations", "what a policy is made of", {name: ("", "") for name in OPERATIONS}),
        Setting("space.augment", "a student's second view", augmentations, own=True),
        Setting("student.distill.loss", "losses and their sums", losses, own=True),
        Setting("… projection", "under a loss on features", projections),
        Setting("… normalization", "of features, before it", normalizations),
        Setting("student.bits", "of weights, of activations", {str(bits): ("", "") for bits in CHOICES}),
        Setting(
            "teacher.model, student.model",
            "the networks",
            {**{name: ("", "") for name in MODELS}, "torchvision:NAME": ("", "any classifier of torchvision")},
            own=True,
        ),
        Setting("data.name", "the images", {k: ("", source.about) for k, source in DATA.items()}, own=True),
        Setting("teacher.search.algorithm, student.search.algorithm", "how policies are searched", searches, own=True),
    )


def setting(name: str) -> Setting:
    """Return the setting called `name`, or whose last word that is: `loss` for `student.distill.loss`.

    Raises:
        RequestError: There is no such setting.
    """
    known: dict[str, Setting] = {}
    for each in settings():
        for full in each.name.removeprefix("… ").split(", "):
            known |= {full: each, full.rpartition(".")[2]: each}
    if name not in known:
        raise unknown("setting", name, known)
    return known[name]


def markdown() -> str:
    """Return all settings as one Markdown table."""
    lines = ["| setting | what it chooses | choices |", "| --- | --- | --- |"]
    for each in settings():
        names = ", ".join(f"`{name}`" for name in each.names)
        lines.append(f"| `{each.name}` | {each.about} | {names}{f', {OWN}' if each.own else ''} |")
    return "\n".join(lines) + "\n"


def _options(kind: Any) -> str:
    """Return the fields of a dataclass with their defaults."""
    return ", ".join(f"{field.name}={default}" for field in fields(kind) if (default := _default(field)) is not None)


def _first(documented: Any) -> str:
    """Return the first line of a docstring."""
    return (documented.__doc__ or "").strip().split("\n")[0]


def _default(field: Field[Any]) -> Any:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if value == () or value == "":
        return "[]" if value == () else None
    return value if isinstance(value, str | int | float) else "null" if value is None else None


def _literal(hint: Any) -> list[str]:
    """Return the names in a `Literal`, wherever it is in a type."""
    found: list[str] = []
    for part in get_args(hint):
        found += [part] if isinstance(part, str) else _literal(part)
    return found
