"""The sweep file: its sections together, and what must hold between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from search.config import registry
from search.config.sections import (
    ConfirmConfig,
    DataConfig,
    HeadroomConfig,
    ResourceConfig,
    RoleConfig,
    ScreenConfig,
    SearchConfig,
    Section,
    StudentConfig,
    TeacherConfig,
    TrackingConfig,
    ValidateConfig,
)
from search.config.yaml_io import apply_override, check_renamed, parse_yaml, refusal
from spaces import RequestError, Space
from spaces.augmentations import Identity
from spaces.core.io import read_text
from spaces.search_space.domain import enumerate_values, example_values, is_constant


class SweepConfig(Section):
    """A sweep file.

    Example:
        >>> config = SweepConfig.from_mapping({
        ...     "data": {"name": "digits"},
        ...     "student": {"model": "mlp", "search": {"algorithm": "pba"}},
        ... })
        >>> config.student.search.population, [search.algorithm for search in config.teacher.search], config.seed
        (16, ['factorial', 'pbt'], 0)
        >>> list(config.roles)
        ['teacher', 'student']
    """

    name: str = Field("sweep", description="name of the sweep's folders and of its MLflow experiment")
    seed: int = Field(0, ge=0, description="seed of genomes, weights and batches")
    data: DataConfig
    teacher: TeacherConfig | None = Field(default_factory=TeacherConfig, description="null: a student alone")
    student: StudentConfig | None = Field(default_factory=StudentConfig, description="null: a teacher alone")
    space: Space = Field(default_factory=Space, description="what the searches may choose")
    baselines: tuple[Literal["none", "uniform", "trivialaugment", "randaugment", "random", "blind"], ...] = Field(
        ("none", "random"),
        description="final trainings to compare with: free baselines, the best random genome of the same budget, and a "
        "population without selection (blind); the strongest free baseline of the confirmation is always one",
    )
    headroom: HeadroomConfig = Field(default_factory=HeadroomConfig)
    confirm: ConfirmConfig = Field(default_factory=ConfirmConfig)
    screen: ScreenConfig = Field(default_factory=ScreenConfig)
    validate_: ValidateConfig = Field(default_factory=ValidateConfig, alias="validate")
    resources: ResourceConfig = Field(default_factory=ResourceConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    storage: str = Field("runs", description="folder of the sweeps' folders; on a cluster one that all nodes share")

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise ValueError("name must have letters, digits, '.', '_' and '-', and start with a letter or digit")
        return name

    @model_validator(mode="after")
    def _roles_fit_together(self) -> SweepConfig:
        if self.student is None and (self.teacher is None or self.teacher.given):
            raise ValueError("student must not be null without a teacher to train: there is nothing to train")
        if self.student is None and self.teacher is not None and self.teacher.data is not None:
            raise ValueError("teacher.data must be left out with student: null; set data instead")
        for setting in ("distill", "bits"):
            if self.student is None and getattr(self.space, setting):
                raise ValueError(f"space.{setting} must be left out with student: null; it is the student's")
        if self.student is not None:
            for example in example_values(self.space.distill):
                self.student.distill.override(example)
            self._views_fit(self.student)
            self._bits_fit(self.student)
        for role, settings in self.roles.items():
            self._starts_exist(role, settings.searches)
            for number, search in enumerate(settings.searches):
                if not registry.is_custom(search.algorithm):
                    self.check_search(role, search, registry.capabilities(search.algorithm), first=number == 0)
        return self

    def _starts_exist(self, role: str, searches: Sequence[SearchConfig]) -> None:
        """Check that a search that starts from a factorial one comes after it.

        Raises:
            ValueError: It does not.
        """
        before: list[str] = []
        for search in searches:
            if search.start == "factorial" and "factorial" not in before:
                rule = f"{role}.search: start: factorial must come after algorithm: factorial in the list of searches"
                raise ValueError(f"{rule}; found {', '.join(before) or 'none'} before {search.algorithm}")
            before.append(search.algorithm)

    def check_search(
        self, role: str, search: SearchConfig, algorithm: type[registry.Capabilities], *, first: bool = True
    ) -> None:
        """Check a role's search against what its algorithm declares.

        Args:
            role: `teacher` or `student`.
            search: Settings of the search.
            first: False for a later search of a list, whose bits are those that the one before chose.
            algorithm: Class of the algorithm; one of the user's own is imported when the sweep starts.

        Raises:
            ValueError: They do not go together.
        """
        place, name = f"{role}.search", search.algorithm
        if role not in algorithm.roles:
            hint = f"it chooses what only the {algorithm.roles[0]} has; set {place}: null"
            raise ValueError(f"{place}.algorithm must not be {name}: {hint}")
        if not first and not algorithm.continues:
            hint = "it starts from its candidates, not from the result of another search"
            raise ValueError(f"algorithm: {name} must be the first search of {place}; {hint}")
        if role == "teacher" and len(search.objective) > 1:
            raise ValueError(f"{place}.objective must be [accuracy]; size is an objective of the student")
        if role == "teacher" and search.tie_break != "none":
            raise ValueError(f"{place}.tie_break must be none; t_stddev orders students by what their teacher says")
        space, free = self.space, self.space.bits
        if role == "student" and algorithm.copies_weights and not is_constant(free) and first:
            # A race, which continues no other search, chooses among policies alone.
            names = registry.names_with(copies_weights=False, continues=True)
            raise ValueError(
                f"space.bits must not be free with algorithm: {name}, which copies weights between members; "
                f"use {names} for {place}"
            )
        if "size" in search.objective and is_constant(free.get("weights")):
            raise ValueError(
                f"{place}.objective must be [accuracy] where every student has the same size; free space.bits.weights"
            )
        algorithm.check(search, space)

    def _bits_fit(self, student: StudentConfig) -> None:
        """Check that the free bits are possible.

        Raises:
            ValueError: They are not.
        """
        for name, domain in self.space.bits.items():
            if (values := enumerate_values(domain)) is None:
                raise ValueError(f"space.bits.{name} must be a list of 1, 2, 4, 8 and 32; a range holds others")
            for value in values:
                student.bits.override({name: value})

    def _views_fit(self, student: StudentConfig) -> None:
        """Check that what teacher and student see is possible.

        Raises:
            ValueError: It is not.
        """
        distinct, teacher = student.distill.teacher_view == "distinct", self.teacher
        tie_break = any(search.tie_break != "none" for search in student.searches)
        if teacher is None:
            if distinct or student.distill.init == "teacher" or self.screen.drop or tie_break:
                without = "teacher_view: distinct, init: teacher, screen.drop and tie_break"
                raise ValueError(f"{without} must be left out with teacher: null")
            if any(choice.kind != Identity.kind for choice in self.space.augmentations):
                raise ValueError("space.augment must be left out with teacher: null; a second view needs its answers")
            return
        if distinct and teacher.given and teacher.policy is None:
            raise ValueError("teacher.policy must be given with teacher_view: distinct and a given teacher")
        if distinct and tie_break:
            rule = "tie_break: t_stddev must go with teacher_view: shared"
            raise ValueError(f"{rule}; a teacher with its own view never sees the student's")

    @property
    def roles(self) -> dict[str, RoleConfig]:
        """Roles that are trained, in order."""
        roles: dict[str, RoleConfig] = {}
        if self.teacher is not None and not self.teacher.given:
            roles["teacher"] = self.teacher
        return roles | ({"student": self.student} if self.student else {})

    def to_yaml(self) -> str:
        """Return the resolved sweep file: every value, defaults included.

        Example:
            >>> SweepConfig.from_mapping({"data": {"name": "digits"}}).to_yaml().splitlines()[:2]
            ['name: digits', 'seed: 0']
        """
        content = json.loads(self.model_dump_json(by_alias=True))
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)

    @classmethod
    def load(cls, path: Path | str, overrides: Iterable[str] = ()) -> SweepConfig:
        """Read a sweep file.

        Args:
            path: YAML file.
            overrides: `key.path=value` each, applied in order; values are YAML.

        Raises:
            RequestError: There is no such file, it is not YAML, or a sweep file cannot hold its content.

        Example:
            >>> SweepConfig.load("sweep.yaml", ["student.search.epochs=6"])  # doctest: +SKIP
        """
        content = parse_yaml(read_text(path, "sweep file"), str(path))
        if not isinstance(content, dict):
            raise RequestError(f"{path}: a sweep file must be a mapping with at least data: {{name: …}}", value=content)
        for override in overrides:
            apply_override(content, override)
        return cls.from_mapping(content, str(path))

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], source: str = "the sweep") -> SweepConfig:
        """Return the configuration in plain data.

        Args:
            content: Sections of a sweep file.
            source: Name of the sweep file, which messages begin with.

        Raises:
            RequestError: The first fault, and how many more there are.

        Example:
            >>> SweepConfig.from_mapping({"data": {"name": "digits"}, "sead": 1})
            Traceback (most recent call last):
            ...
            spaces.core.errors.RequestError: the sweep: unknown key at sead: 'sead'; did you mean 'seed'?
        """
        check_renamed(content, source)
        try:
            # As JSON, because only there a list is as good as a tuple while everything else stays strict.
            return cls.model_validate_json(json.dumps(_completed(content), default=str))
        except ValidationError as error:
            raise refusal(error, source, _schema()) from error


@cache
def _schema() -> dict[str, Any]:
    return SweepConfig.model_json_schema()


def _raw_searches(content: Mapping[str, Any]) -> Iterator[Any]:
    """Yield each search of the roles that are trained, before anything is checked; None for the default pipeline."""
    for role in ("teacher", "student"):
        section = content.get(role, {})
        given = isinstance(section, Mapping) and (
            section.get("weights") is not None or section.get("pretrained") is False
        )
        if not isinstance(section, Mapping) or (role == "teacher" and given):
            continue
        search = section.get("search", [None])
        if search is not None:
            yield from search if isinstance(search, list | tuple) else [search]


def _is_factorial(search: Any) -> bool:
    return search is None or (isinstance(search, Mapping) and search.get("algorithm") == "factorial")


def _completed(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in what depends on other sections: a name from the data, and scaled policies for a factorial search."""
    data, space = content.get("data"), content.get("space", {})
    if "name" not in content and isinstance(data, Mapping):
        content = {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", str(data.get("name", ""))), **content}
    if isinstance(space, Mapping) and "genome" not in space and any(map(_is_factorial, _raw_searches(content))):
        content = {**content, "space": {**space, "genome": "scaled"}}  # which can weigh operations
    return content
