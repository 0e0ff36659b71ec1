"""The sweep file: what it may say, its defaults, and the one line that refuses anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from spaces import RequestError, RoletuneError, Space
from spaces.augmentations import Identity
from spaces.core.errors import unknown
from spaces.core.io import read_text
from spaces.core.redaction import strip_credentials
from spaces.search_space.domain import enumerate_values, example_values, is_constant
from trainables.distillation.objective import Distill
from trainables.quantization import Bits
from trainables.screening.ranking import Precision
from trainables.training.recipe import Recipe

Count = Annotated[int, Field(ge=1)]

SEVERAL = ("random", "grid", "tpe")
"""Kinds of search that may have several objectives."""

GRIDS = ("choice", "grid")
"""Kinds of search that try every combination of choices, without a policy."""

COPYING = ("pbt", "pb2")
"""Kinds of search whose members copy each other's weights."""


class Section(BaseModel):
    """A part of the sweep file: unknown keys are errors, types are exact, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images, and how they are split."""

    name: str = Field(description="a built-in set, or a factory of your own: package.module:function")
    root: str = Field("data", description="folder that the set's files lie in")
    train: Count | None = Field(None, description="images kept for the search; null: all that are not held out")
    validation: Count | None = Field(None, description="images held out; null: the rest, or 10 % where train is null")
    seed: int = Field(0, ge=0, description="of the split")
    size: Count | None = Field(None, description="side in px, for image folders")
    download: bool = Field(False, description="whether a missing set may be fetched")
    workers: int = Field(0, ge=0, description="decoding processes, for image folders")


class StageConfig(Section):
    """A role's search."""

    epochs: Count = Field(24, description="epochs each member is trained")
    population: int = Field(4, ge=2, description="members")
    interval: Count = Field(3, description="epochs between perturbations")


class FullConfig(Section):
    """A role's full training with what was found, on train and validation images together."""

    epochs: Count | None = Field(None, description="null: as many as the stage has")
    seeds: Count = Field(1, description="repetitions; two or more give an interval")


class RoleConfig(Section):
    """One role."""

    model: str = Field("resnet8", description="a built-in model, or a factory of your own: package.module:function")
    recipe: Recipe = Field(default_factory=Recipe, description="how it is trained")
    stage: StageConfig = Field(default_factory=StageConfig, description="its search")
    full: FullConfig = Field(default_factory=FullConfig, description="its full training")

    @property
    def full_epochs(self) -> int:
        """Epochs of the full training."""
        return self.full.epochs or self.stage.epochs


class TeacherConfig(RoleConfig):
    """The teacher."""

    model: str = Field("resnet20", description="a built-in model, or a factory of your own: package.module:function")
    data: DataConfig | None = Field(None, description="its own task, where it is another than the student's")
    pretrained: bool = Field(True, description="false: a teacher with random weights; its stage is skipped")
    classes: Count | None = Field(None, description="that given weights answer with; null: those of its data")
    weights: str | None = Field(None, description="a trained teacher (safetensors or state_dict): its stage is skipped")
    policy: str | None = Field(None, description="with weights: the policy it was trained with, for distinct views")

    @property
    def given(self) -> bool:
        """Whether there is nothing to train: the weights are a file's, or random."""
        return self.weights is not None or not self.pretrained

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherConfig:
        if self.weights is not None and not self.pretrained:
            raise ValueError("pretrained: false has random weights; leave out weights, or pretrained")
        if self.policy is not None and self.weights is None:
            raise ValueError("policy goes with weights; without them the teacher's own is searched")
        if self.classes is not None and not self.given:
            raise ValueError("classes goes with weights or pretrained: false; a teacher that is trained has its data's")
        return self


class StudentConfig(RoleConfig):
    """The student."""

    distill: Distill = Field(default_factory=Distill, description="how it learns from the teacher")
    bits: Bits = Field(default_factory=Bits, description="of weights and activations: 1, 2, 4, 8, or 32 for neither")


class SearchConfig(Section):
    """How genomes evolve."""

    kind: Literal["pbt", "pb2", "random", "asha", "tpe", "tpe+asha", "choice", "grid"] = Field(
        "pbt",
        description="population-based training (pb2: a bandit chooses its numbers); fixed genomes, random or suggested "
        "by Optuna's TPE (asha: the worse are stopped early); students for each of space.augment, or each combination",
    )
    objective: tuple[Literal["accuracy", "size"], ...] = Field(
        ("accuracy",), description="what is searched for; with size, the bits of the exported student, together"
    )
    seed: int = Field(0, ge=0, description="of genomes, weights and batches")
    synch: bool = Field(True, description="perturb all members together, suggest in rounds; false: each as it arrives")
    tie_break: Literal["none", "t_stddev"] = Field("none", description="between students of equal accuracy")
    repeats: Count = Field(3, description="for choice and grid: students for each combination; the best mean wins")
    reduction: int = Field(3, ge=2, description="for asha: one in so many goes on, at epochs interval, interval × 3, …")
    quantile: float = Field(0.25, gt=0, le=0.5, description="share of members that copy, and that are copied")

    @model_validator(mode="after")
    def _objectives_can_be_had(self) -> SearchConfig:
        if self.objective[:1] != ("accuracy",) or len(set(self.objective)) < len(self.objective):
            raise ValueError(f"objective names accuracy first, and each once, got {list(self.objective)}")
        if len(self.objective) > 1 and self.kind not in SEVERAL:
            kinds = f"{', '.join(SEVERAL[:-1])} or {SEVERAL[-1]}"
            raise ValueError(f"several objectives go with kind: {kinds}, got {self.kind}")
        return self


class ScreenConfig(Section):
    """How augmentations are ranked by T. stddev with the teacher alone."""

    drop: float = Field(0.0, ge=0, lt=1, description="share of space.augment that students do without; 0: no screening")
    draw: Literal["sample", "batch"] | None = Field(None, description="random numbers for all; null: as each one says")
    precision: Precision = Field(default_factory=Precision, description="how long to look")


class ValidateConfig(Section):
    """What is scored, and when."""

    images: Count | Literal["auto"] | None = Field(
        "auto",
        description="at most so many of the validation images, the same for all; null: all; auto: 2,000, or one for "
        "every 6 images trained on between two perturbations, if that is more",
    )
    every: Literal["slice", "epoch"] = Field(
        "slice", description="at each perturbation, or each epoch, for curves: the last score counts"
    )

    @field_validator("images", mode="before")
    @classmethod
    def _images_are_counted(cls, images: Any) -> Any:
        if images in (None, "auto") or (type(images) is int and images >= 1):
            return images
        raise ValueError("images is auto, a whole number from 1, or null for all")


class ResourceConfig(Section):
    """What one trial gets."""

    cpus_per_trial: int = Field(1, ge=1, description="also its threads")
    gpus_per_trial: float = Field(0.0, ge=0, description="a fraction shares a GPU")
    retries: int = Field(2, ge=0, description="times a trial that died is started again from its checkpoint")
    epoch_limit: float | None = Field(
        None, gt=0, description="seconds an epoch may take; null: 20 times the slowest so far, at least 600"
    )


class TrackingConfig(Section):
    """Where MLflow writes."""

    uri: str | None = Field(
        None, repr=False, description="null: MLFLOW_TRACKING_URI, or a store in the sweep's own folder"
    )

    @field_serializer("uri")
    def _without_credentials(self, uri: str | None) -> str | None:
        """The sweep's own copy of its file, and what is printed of it, hold no password."""
        return uri and strip_credentials(uri)


class SweepConfig(Section):
    """A whole sweep file."""

    name: str = Field("sweep", description="of the sweep's folders and its MLflow experiment")
    data: DataConfig
    teacher: TeacherConfig | None = Field(default_factory=TeacherConfig, description="null: a student alone")
    student: StudentConfig | None = Field(default_factory=StudentConfig, description="null: a teacher alone")
    space: Space = Field(default_factory=Space, description="where the agents may move")
    search: SearchConfig = Field(default_factory=SearchConfig)
    baselines: tuple[Literal["none", "random"], ...] = Field(
        ("none", "random"), description="full trainings at the same budget to compare with"
    )
    screen: ScreenConfig = Field(default_factory=ScreenConfig)
    validate_: ValidateConfig = Field(default_factory=ValidateConfig, alias="validate")
    resources: ResourceConfig = Field(default_factory=ResourceConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    storage: str = Field("runs", description="folder, or on a cluster a shared one, that the sweep's folder is made in")

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise ValueError("a name has letters, digits, '.', '_' and '-', and starts with a letter or digit")
        return name

    @model_validator(mode="after")
    def _roles_fit_together(self) -> SweepConfig:
        if self.student is None and (self.teacher is None or self.teacher.given):
            raise ValueError("student: null with no teacher to train leaves nothing to train")
        if self.student is None and self.teacher is not None and self.teacher.data is not None:
            raise ValueError("teacher.data is the task of a teacher beside a student; set data instead")
        if self.student is None and self.space.distill:
            raise ValueError("space.distill is the student's; there is none")
        if self.search.kind == "choice" and self.space.distill:
            raise ValueError("kind: choice compares space.augment alone; for space.distill take grid, tpe or pbt")
        if self.search.kind == "grid" and enumerate_values({**self.space.distill, **self.space.bits}) is None:
            raise ValueError("kind: grid tries every choice, and a range has no end of them; list values")
        if self.student is not None:
            for example in example_values(self.space.distill):
                self.student.distill.under(example)
            self._views_fit(self.student.distill)
        self._bits_fit()
        return self

    def _bits_fit(self) -> None:
        """The bits that are free can be had, and an objective of size has something to choose.

        Raises:
            ValueError: they cannot, or it has not.
        """
        free, kind = self.space.bits, self.search.kind
        if "size" in self.search.objective and is_constant(free.get("weights")):
            raise ValueError("objective: size is the same for every student; free space.bits.weights, or leave it out")
        if not free:
            return
        if self.student is None:
            raise ValueError("space.bits is the student's; there is none")
        if kind == "choice":
            raise ValueError("kind: choice compares space.augment alone; for space.bits take random, grid, tpe or asha")
        if kind in COPYING and not is_constant(free):
            raise ValueError(
                f"kind: {kind} copies weights between members, so that all have the same bits; "
                "for space.bits take random, grid, tpe or asha"
            )
        for name, domain in free.items():
            if (values := enumerate_values(domain)) is None:
                raise ValueError(f"space.bits.{name} is a choice among 1, 2, 4, 8 and 32, and a range holds others")
            for value in values:
                self.student.bits.under({name: value})

    def _views_fit(self, distill: Distill) -> None:
        """What teacher and student see can be had.

        Raises:
            ValueError: it cannot.
        """
        distinct, teacher = distill.view == "distinct", self.teacher
        if teacher is None:
            if distinct or distill.init == "teacher" or self.screen.drop or self.search.tie_break != "none":
                raise ValueError(
                    "view: distinct, init: teacher, screen.drop and tie_break take a teacher; there is none"
                )
            if any(choice.kind != Identity.kind for choice in self.space.augmentations):
                raise ValueError("a second view is learned from the teacher's answers; leave out space.augment")
            return
        if distinct and teacher.given and teacher.policy is None:
            raise ValueError("view: distinct shows a given teacher its own schedule; set teacher.policy to its file")
        if distinct and self.search.tie_break == "t_stddev":
            raise ValueError(
                "tie_break: t_stddev takes view: shared; a teacher with its own view never sees the student's"
            )

    @property
    def roles(self) -> dict[str, RoleConfig]:
        """The roles that are searched, in order."""
        roles: dict[str, RoleConfig] = {}
        if self.teacher is not None and not self.teacher.given:
            roles["teacher"] = self.teacher
        return roles | ({"student": self.student} if self.student else {})

    def to_yaml(self) -> str:
        """The resolved sweep file: every value, defaults included."""
        content = json.loads(self.model_dump_json(by_alias=True))
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)

    @classmethod
    def load(cls, path: Path | str, overrides: Iterable[str] = ()) -> SweepConfig:
        """Read a sweep file, with `key.path=value` overrides on top.

        Raises:
            RequestError: no such file, no YAML, or content that a sweep file cannot have.
        """
        content = parse_yaml(read_text(path, "sweep file"), str(path))
        if not isinstance(content, dict):
            raise RequestError(f"{path}: a sweep file is a mapping with at least data: {{name: …}}", value=content)
        for override in overrides:
            _override(content, override)
        return cls.from_mapping(content, str(path))

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], source: str = "the sweep") -> SweepConfig:
        """The configuration in plain data; `source` names it for errors.

        Raises:
            RequestError: the first thing that is wrong, and how many more there are.
        """
        try:
            # As JSON, because only there a list is as good as a tuple while everything else stays strict.
            return cls.model_validate_json(json.dumps(_named(content), default=str))
        except ValidationError as error:
            raise _refusal(error, source) from error


def _named(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A sweep without a name is called after its data."""
    data = content.get("data")
    if "name" in content or not isinstance(data, Mapping):
        return content
    return {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", str(data.get("name", ""))), **content}


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-3` is a number, a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise RequestError(
                    "a key stands once", value=key, hint=f"see line {node.value[index][0].start_mark.line + 1}"
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    """The plain data in YAML text.

    Raises:
        RequestError: it is no YAML; the line is named.
    """
    try:
        return yaml.load(text, _Loader)
    except RequestError as error:
        raise RequestError(f"{source}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise RequestError(f"{source} is no YAML: {error}") from error


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RequestError("--set takes key=value", value=override, hint="for example --set student.stage.epochs=6")
    *parents, last = key.split(".")
    for parent in parents:
        child = content.setdefault(parent, {})
        if child is None:
            child = content[parent] = {}
        if not isinstance(child, dict):
            raise RequestError(f"--set {override}: {parent} is a value, not a section", value=child)
        content = child
    content[last] = parse_yaml(value, f"--set {override}")


def _refusal(error: ValidationError, source: str) -> RoletuneError:
    """The first fault as one line. Unknown keys come first: they are most often why something else is missing."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] not in _UNKNOWN)
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] in _UNKNOWN:
        text = str(unknown("key", where.rpartition(".")[2], _keys(fault["loc"][:-1])))
        return RequestError(f"{source}: {text.replace('unknown key', f'unknown key at {where}:', 1)}{more}")
    rule = fault["msg"].removeprefix("Value error, ")
    label = f"{source}: {where}: {rule}" if where else f"{source}: {rule}"
    if fault["type"] == "missing":
        return RequestError(f"{source}: {where} must be given{more}")
    if fault["type"] == "value_error":
        return RequestError(label + more)
    return RequestError(label + more, value=fault["input"])


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def _keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at `place` in a sweep file, from the schema."""
    schema = SweepConfig.model_json_schema()
    node: dict[str, Any] = schema
    for part in place:
        node = _resolve(node.get("properties", {}).get(str(part), {}), schema)
    return list(node.get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for choice in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
        if "$ref" in choice:
            found: dict[str, Any] = schema["$defs"][choice["$ref"].rpartition("/")[2]]
            return found
    return node
