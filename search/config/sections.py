"""The sections of a sweep file and their defaults; `search.config.schema` puts them together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from search.config import registry
from spaces.core.redaction import strip_credentials
from trainables.distillation.objective import Distill
from trainables.quantization import Bits
from trainables.screening.ranking import Precision
from trainables.training.recipe import Recipe

STARTS = ("zero", "random", "uniform")
"""Rules for what the members of a search start with."""

Count = Annotated[int, Field(ge=1)]

FINAL_EPOCHS = 24
"""Epochs of the final training of a role without a search, where nothing else is said."""


class Section(BaseModel):
    """Section of the sweep file: unknown keys are errors, types are exact, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Images, and how they are split."""

    name: str = Field(description="built-in data set, or dotted name of your own factory: package.module:function")
    root: str = Field("data", description="folder with the files of the data set")
    train: Count | None = Field(None, description="training images; null: all that are not held out")
    validation: Count | None = Field(None, description="validation images; null: the rest, or 10 % where train is null")
    seed: int = Field(0, ge=0, description="seed of the split")
    size: Count | None = Field(None, description="side of the images in px, for image folders")
    download: bool = Field(False, description="download a missing data set")
    workers: int = Field(0, ge=0, description="processes that decode images, for image folders")
    validation_from: str | None = Field(
        None, description="target domain to validate on: a data set, dotted name, or folder of class folders"
    )
    test_from: str | None = Field(None, description="target domain to test on, likewise")


class SearchConfig(Section):
    """Search of one role.

    Settings that the algorithm does not take must be left out; see `roletune list algorithm`.

    Example:
        >>> SearchConfig(algorithm="tpe", trials=40).epochs
        24
        >>> SearchConfig(algorithm="pba").population
        16
    """

    algorithm: str = Field(
        "pbt",
        description="pbt, pba, pb2, random, successive_halving, tpe, grid, factorial or race, or the dotted name of "
        "your own class",
    )
    population: int = Field(4, ge=2, description="members that are trained together (pbt, pb2; pba: 16)")
    trials: int = Field(
        4,
        ge=2,
        description="members that are drawn or suggested (random, successive_halving, tpe; factorial: 24; race: 16)",
    )
    rounds: int = Field(
        1, ge=1, le=2, description="experiments of a factorial search; the second is on what the first left open"
    )
    epochs: Count = Field(24, description="epochs that each member is trained")
    interval: Count = Field(3, description="epochs between perturbations or scores; the first rung of early stopping")
    synchronous: bool = Field(True, description="compare all members together; false: each as it arrives")
    tie_break: Literal["none", "t_stddev"] = Field("none", description="order of students of equal accuracy")
    quantile: float = Field(0.25, gt=0, le=0.5, description="share of members that copy, and share that is copied")
    reduction: int = Field(3, ge=2, description="one member in so many goes on at each rung")
    replicates: Count = Field(3, description="students for each combination of a grid; the best mean wins")
    early_stopping: Literal["none", "asha"] = Field("none", description="stop the worse members early (tpe)")
    start: str | None = Field(
        None,
        description="what members start with: zero, random, uniform, factorial, or a policy file; null: the result of "
        "the search before in the list, else zero (population-based searches); tpe suggests it first",
    )
    growth: float = Field(1.0, ge=1, le=10, description="factor by which the interval grows at each perturbation (pbt)")
    candidates: tuple[str, ...] = Field(
        (),
        description="what races: none, uniform, trivialaugment, randaugment, or policy files; empty: all free "
        "baselines that the space has",
    )
    objective: tuple[Literal["accuracy", "size"], ...] = Field(
        ("accuracy",), description="what is optimized; size is the number of bits of the exported student"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="settings of an algorithm of your own")

    @field_validator("algorithm")
    @classmethod
    def _algorithm_is_known(cls, name: str) -> str:
        registry.check_name(name)
        return name

    @model_validator(mode="after")
    def _settings_apply(self) -> SearchConfig:
        if self.objective[:1] != ("accuracy",) or len(set(self.objective)) < len(self.objective):
            raise ValueError(f"objective must name accuracy first, and each once, got {list(self.objective)}")
        if not registry.is_custom(self.algorithm):
            self.check_algorithm(registry.capabilities(self.algorithm))
        return self

    def check_algorithm(self, algorithm: type[registry.Capabilities]) -> None:
        """Check the settings against an algorithm, and fill in its own defaults.

        Raises:
            ValueError: The algorithm does not take a setting that is given.
        """
        if self.options and not registry.is_custom(self.algorithm):
            raise ValueError("options must be left out with a built-in algorithm; they go with a dotted name")
        for name, value in algorithm.defaults.items():
            if name not in self.model_fields_set:
                self.__dict__[name] = value
        actual = algorithm.variant(self)
        for name in type(self).model_fields:
            if name in self.model_fields_set & registry.SETTINGS - actual.settings:
                other = {"population": "trials", "trials": "population"}.get(name, "")
                hint = f"set {other}" if other in actual.settings else f"it takes {_words(actual.settings)}"
                raise ValueError(f"{name} must be left out with algorithm: {self.algorithm}; {hint}")
        if len(self.objective) > 1 and not actual.multi_objective:
            names = registry.names_with(multi_objective=True)
            early = " without early_stopping" if algorithm.multi_objective else ""
            raise ValueError(f"objective must be [accuracy], except for algorithm: {names}{early}")

    @model_serializer(mode="wrap")
    def _without_other_settings(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the settings that the algorithm does not take."""
        if registry.is_custom(self.algorithm):
            taken: Iterable[str] = self.model_fields_set
        else:
            taken = registry.capabilities(self.algorithm).variant(self).settings
        content: dict[str, Any] = handler(self)
        unused = registry.SETTINGS - set(taken) | (set() if self.options else {"options"})
        return {name: value for name, value in content.items() if name not in unused}


ONE, SEVERAL = "one search", "a list of searches"
"""Tags of the two forms of a role's `search`; messages leave them out."""

Searches = Annotated[
    Annotated[SearchConfig, Tag(ONE)] | Annotated[tuple[SearchConfig, ...], Tag(SEVERAL), Field(min_length=1)],
    Discriminator(lambda value: SEVERAL if isinstance(value, list | tuple) else ONE),
]


def default_searches() -> tuple[SearchConfig, ...]:
    """Return the default pipeline: which operation helps, then population-based training from there, within these."""
    return SearchConfig(algorithm="factorial", epochs=16), SearchConfig(algorithm="pbt", epochs=24, growth=1.5)


class FinalConfig(Section):
    """Final training of a role with the policy that was found, on training and validation images together."""

    epochs: Count | None = Field(None, description="null: as many as the search has, or 24 without a search")
    seeds: Count = Field(1, description="repetitions; two or more give a confidence interval")


class RoleConfig(Section):
    """One role."""

    model: str = Field("resnet8", description="built-in model, or dotted name of your own: package.module:function")
    recipe: Recipe = Field(default_factory=Recipe, description="optimizer and schedule of the training")
    search: Searches | None = Field(
        default_factory=default_searches,
        description="search of its augmentation, or a list of searches, each from the result of the one before; null: "
        "trained without one; by default factorial, then pbt from its policy",
    )
    final: FinalConfig = Field(default_factory=FinalConfig, description="final training with the policy that was found")

    @property
    def final_epochs(self) -> int:
        """Epochs of the final training."""
        return self.final.epochs or (self.searches[-1].epochs if self.searches else FINAL_EPOCHS)

    @property
    def searches(self) -> tuple[SearchConfig, ...]:
        """Searches of the role, in order."""
        if self.search is None:
            return ()
        return (self.search,) if isinstance(self.search, SearchConfig) else self.search


class TeacherConfig(RoleConfig):
    """The teacher."""

    model: str = Field("resnet20", description="built-in model, or dotted name of your own: package.module:function")
    data: DataConfig | None = Field(None, description="its own data, where they differ from the student's")
    pretrained: bool = Field(True, description="false: a teacher with random weights, which is not trained")
    classes: Count | None = Field(None, description="classes of given weights; null: those of its data")
    weights: str | None = Field(None, description="file of a trained teacher (safetensors or state_dict)")
    policy: str | None = Field(None, description="with weights: the policy it was trained with, for distinct views")

    @property
    def given(self) -> bool:
        """True where there is nothing to train: the weights come from a file, or are random."""
        return self.weights is not None or not self.pretrained

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherConfig:
        if self.weights is not None and not self.pretrained:
            raise ValueError("weights must be left out with pretrained: false, which has random weights")
        if self.policy is not None and self.weights is None:
            raise ValueError("policy must go with weights; without them the teacher's own policy is searched")
        if self.classes is not None and not self.given:
            raise ValueError("classes must go with weights or pretrained: false; a trained teacher has its data's")
        return self


class StudentConfig(RoleConfig):
    """The student."""

    distill: Distill = Field(default_factory=Distill, description="how it learns from the teacher")
    bits: Bits = Field(default_factory=Bits, description="bits of weights and of activations: 1, 2, 4, 8 or 32")


class ScreenConfig(Section):
    """Screening: augmentations are ranked by T. stddev with the teacher alone."""

    drop: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of space.augment that is dropped before the student's search; 0: no screening",
    )
    draw: Literal["sample", "batch"] | None = Field(
        None, description="random numbers per sample or per batch; null: as each augmentation says"
    )
    precision: Precision = Field(default_factory=Precision, description="number of images and means")


class ValidateConfig(Section):
    """Validation: what members are scored on, and when."""

    images: Count | Literal["auto"] | None = Field(
        "auto",
        description="number of validation images, the same for all members; null: all; auto: 2,000, or one for every "
        "6 images trained on between two perturbations, if that is more",
    )
    score: Literal["auto", "accuracy", "cross_entropy"] = Field(
        "auto",
        description="what members are selected by; auto: cross-entropy where fewer than 2,000 images are scored, or "
        "where members are compared while they train; else accuracy",
    )
    every: Literal["slice", "epoch"] = Field(
        "slice", description="score at each perturbation, or at each epoch for curves; the last score counts"
    )

    @field_validator("images", mode="before")
    @classmethod
    def _images_are_counted(cls, images: Any) -> Any:
        if images in (None, "auto") or (type(images) is int and images >= 1):
            return images
        raise ValueError("images must be auto, a whole number >= 1, or null for all")


class ResourceConfig(Section):
    """Resources of one trial."""

    cpus_per_trial: int = Field(1, ge=1, description="CPUs, and threads of PyTorch")
    gpus_per_trial: float = Field(0.0, ge=0, description="GPUs; a fraction shares one")
    retries: int = Field(2, ge=0, description="times that a failed trial is restarted from its checkpoint")
    epoch_limit: float | None = Field(
        None, gt=0, description="longest epoch in s; null: 20 times the slowest so far, at least 600"
    )


class HeadroomConfig(Section):
    """Headroom: no augmentation against the uniform policy, before anything is searched."""

    seeds: int | None = Field(
        None, ge=0, description="trainings of each; 0: not measured; null: 3 for a role with a list of searches, else 0"
    )
    report: bool = Field(False, description="search even where there is nothing to gain")


class ConfirmConfig(Section):
    """Confirmation: the policy found against the free baselines, from fresh seeds, before it is exported."""

    seeds: int = Field(3, ge=0, description="seeds of the last round, half as many in earlier ones; 0: not confirmed")
    policies: tuple[str, ...] = Field((), description="policy files of your own that take part")


class TrackingConfig(Section):
    """Tracking by MLflow."""

    uri: str | None = Field(
        None,
        repr=False,
        description="address of an MLflow server or store; null: MLFLOW_TRACKING_URI, or a store in the sweep's folder",
    )

    @field_serializer("uri")
    def _without_credentials(self, uri: str | None) -> str | None:
        """Leave the password out of the sweep's own copy of its file, and of what is printed of it."""
        return uri and strip_credentials(uri)


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "no such setting"
