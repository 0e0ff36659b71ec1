"""Screening as a sweep sees it: what is ranked, what is left of it, and what is written down."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from ray.exceptions import RayTaskError
from support import READY

from results.analysis.screening import ScreeningResult
from search.config.schema import SweepConfig
from search.sweeps.plan import SweepPlan
from search.sweeps.screen_plan import ScreenPlan
from search.sweeps.screening import metrics, plain, rank_with, screen, screen_choices, survivors, write_files
from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, WorkError
from spaces.augmentations import CutMix, Cutout, Flip, Identity, Mixup, Pick, PolicyAugmentation, augmentation
from trainables import Recipe, Task, TrainedTeacher
from trainables.data import load
from trainables.models import build_model
from trainables.screening.ranking import Row, Screening


def sweep(augment=("identity",), **sections):
    content = {"data": {"name": "digits", "train": 60, "validation": 60}, "teacher": {"model": "mlp"}}
    return SweepConfig.from_mapping({**content, "space": {"augment": list(augment)}, **sections})


def contestants(config, only=(), policies=()):
    return ScreenPlan.resolve(config).contestants(only, policies)


def schedule(*names):
    """One phase for each operation."""
    genomes = [Genome(Policy((Entry(name, 5, 3),))) for name in names]
    return Schedule(tuple(Phase(2, genome) for genome in genomes), "student", ImageSpec(8, 1, (78,)))


# ---- what is ranked --------------------------------------------------------------------------------


def test_by_default_the_whole_catalog_is_ranked():
    choices = contestants(sweep())
    assert [choice.kind for choice in choices] == READY and len(choices) >= 10
    assert len({choice.label for choice in choices}) == len(choices)
    assert Pick(base=Mixup()) in choices, "with CutMix it would be CutMixPick once more"


def test_the_sweeps_own_choices_are_ranked_where_it_has_more_than_one():
    own = ["cutmix", {"kind": "cutout", "side": 0.25}]
    assert contestants(sweep(own)) == (CutMix(), Cutout(side=0.25))
    assert len(contestants(sweep(["cutmix"]))) == len(READY), "one alone is nothing to rank"


def test_names_come_before_the_sweeps_own_choices():
    assert contestants(sweep(["cutmix", "flip"]), ["mixup", "identity"]) == (Mixup(), Identity())
    (own,) = contestants(sweep(), ["mypackage.augmentations:blur"])
    assert own == augmentation("mypackage.augmentations:blur"), "which is imported when it is used"


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(RequestError, match="unknown augmentation 'cutmx'; did you mean 'cutmix'"):
        contestants(sweep(), ["flip", "cutmx"])


def test_the_last_phase_of_a_policy_file_is_ranked_too():
    choices = contestants(sweep(), ["flip"], [schedule("Rotate", "Invert"), schedule("Cutout")])
    last = [PolicyAugmentation(policy=Policy((Entry(name, 5, 3),))) for name in ("Invert", "Cutout")]
    assert choices == (Flip(), *last)
    assert len({choice.label for choice in choices}) == 3


def test_what_is_named_twice_is_refused():
    with pytest.raises(RequestError, match="augmentations to rank must differ"):
        contestants(sweep(), ["flip", "cutmix", "flip"])
    twice = sweep(["cutmix", {"kind": "cutmix", "draw": "batch"}], screen={"draw": "batch"})
    with pytest.raises(RequestError, match=r"screen.draw makes equal what differs in draw alone"):
        contestants(twice)


@pytest.mark.parametrize("draw", ["sample", "batch"])
def test_one_draw_for_all(draw):
    """Of a pick its base's draw is what counts; identity draws nothing, and keeps its name."""
    mixed = {"kind": "cutmix", "draw": "batch", "alpha": 0.5}
    own = [mixed, "cutout", "identity", "cutmixpick", {"kind": "pick", "base": {"kind": "mixup", "draw": "batch"}}]
    choices = contestants(sweep(own, screen={"draw": draw}), policies=[schedule("Rotate")])
    cutmix, cutout, identity, cutmixpick, pick, policy = choices
    assert (cutmix, cutout) == (CutMix(draw=draw, alpha=0.5), Cutout(draw=draw))
    assert (identity, identity.label) == (Identity(), "identity")
    assert cutmixpick.base == CutMix(draw=draw) and pick.base == Mixup(draw=draw)
    assert policy.draw == draw


def test_without_it_each_draws_as_it_says():
    own = (CutMix(draw="batch"), Cutout(), Pick(base=Mixup(draw="batch")))
    assert contestants(sweep([choice.to_json() for choice in own])) == own


# ---- what is left ----------------------------------------------------------------------------------


def seen_of(*labels, informative=True):
    """A ranking in this order."""
    rows = [
        Row(label, {"kind": label}, 0.04, 0.03, 0.05, 0.9, 0.8, 1.0, 0.7, 1.2, informative, 0.5) for label in labels
    ]
    return Screening(tuple(rows), 320, 40, False)


RANKED = seen_of("cutmix", "flip", "identity", "cutout", "mixup")
CHOICES = (Flip(), Mixup(), Cutout(), CutMix(), Identity())


@pytest.mark.parametrize(
    ("drop", "kept"),
    [
        (0.0, CHOICES),
        (0.19, CHOICES),
        (0.2, (Flip(), Cutout(), CutMix(), Identity())),
        (0.5, (Flip(), CutMix(), Identity())),
        (0.6, (Flip(), CutMix())),
        (0.99, (CutMix(),)),
    ],
)
def test_the_worst_share_is_dropped_and_the_order_is_kept(drop, kept):
    assert survivors(RANKED, CHOICES, drop) == kept


def test_one_is_always_left():
    assert survivors(RANKED, (Mixup(),), 0.99) == (Mixup(),)
    assert survivors(RANKED, (Mixup(), Cutout()), 0.99) == (Cutout(),)


def test_identity_is_ranked_and_not_kept_where_the_space_does_not_have_it():
    assert survivors(RANKED, (Flip(), Mixup()), 0.5) == (Flip(),)


# ---- what is written -------------------------------------------------------------------------------


def result(seen, **changes):
    content = {"folder": "runs/x-001", "tracking_uri": "sqlite:///x", "seconds": 1.5, **plain(seen), **changes}
    return ScreeningResult(**content)


def test_a_ranking_is_kept_as_data_as_text_and_as_a_picture(tmp_path):
    shown = result(RANKED, dropped=("mixup",))
    data, text, picture = write_files(shown, tmp_path)
    assert (data, text.parent, picture.parent) == (tmp_path / "screening.json", *[tmp_path / "report"] * 2)
    assert json.loads(data.read_text()) == json.loads(json.dumps(shown.to_json()))
    assert [row["label"] for row in json.loads(data.read_text())["rows"]] == [row.label for row in RANKED.rows]
    assert text.read_text() == f"# Screening\n\n{shown.markdown()}" and "mixup (dropped)" in text.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mlflows_metrics_are_named_after_the_augmentation():
    values = metrics(result(seen_of("cutmix", "pick(base=mixup)")))
    expected = {"t_stddev": 0.04, "ratio": 0.9, "agreement": 0.7, "entropy": 1.2}
    assert values == {
        f"screen/{label}/{name}": value for label in ("cutmix", "pick(base=mixup)") for name, value in expected.items()
    }


# ---- with a teacher --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    teacher = TrainedTeacher("mlp", build_model("mlp", seed=5, classes=10, channels=1, size=8).state_dict())
    return Task("student", "mlp", data, Recipe(batch_size=20), 2, validation=data.validation, teacher=teacher)


FEW = {"images": 30, "means": 6}


def test_validation_images_are_shown_as_well(task):
    """They are what the teacher was trained on in full."""
    config = sweep(screen={"precision": {"images": 120, "means": 2}})
    assert rank_with(task, task.teacher, [Flip()], ScreenPlan.resolve(config)).images == 120
    more = sweep(screen={"precision": {"images": 121, "means": 2}})
    with pytest.raises(RequestError, match="images must be at most 120, the images of the set, got 121"):
        rank_with(task, task.teacher, [Flip()], ScreenPlan.resolve(more))


def test_the_ranking_follows_from_the_searchs_seed(task):
    def ratios(seed):
        config = sweep(screen={"precision": FEW}, seed=seed)
        return [
            row.ratio for row in rank_with(task, task.teacher, [CutMix(), Cutout()], ScreenPlan.resolve(config)).rows
        ]

    assert ratios(1) == ratios(1) != ratios(2)


def test_the_weights_it_is_given_stay_as_they_are(task):
    before = {name: value.clone() for name, value in task.teacher.weights.items()}
    rank_with(task, task.teacher, [CutMix()], ScreenPlan.resolve(sweep(screen={"precision": FEW})))
    assert all(torch.equal(task.teacher.weights[name], value) for name, value in before.items())


@pytest.fixture
def here(monkeypatch):
    """The worker is this process; what it raises comes back as Ray gives it back."""

    def call(function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            raise RayTaskError("rank", "Traceback …\n  and more", error).as_instanceof_cause() from None

    def remote(**resources):
        return lambda function: SimpleNamespace(remote=lambda *arguments: (function, *arguments))

    monkeypatch.setattr(
        "search.execution.trials.ray", SimpleNamespace(remote=remote, get=lambda pending: call(*pending))
    )
    monkeypatch.setattr("search.execution.trials.worker", lambda resources: SimpleNamespace(enter=lambda: "cpu"))


NAMES = ["cutmix", "identity", "cutout", {"kind": "pick", "base": "mixup"}]


@pytest.mark.parametrize("draw", [None, "batch"])
def test_a_sweep_knows_what_is_dropped_by_its_own_names(task, here, tmp_path, draw):
    """Whatever draw they were ranked with."""
    config = sweep(NAMES, screen={"drop": 0.5, "draw": draw, "precision": FEW})
    shown = screen_choices(SweepPlan.resolve(config), task, tmp_path, "sqlite:///x")
    ranked = [row["label"] for row in shown.rows]
    assert sorted(ranked) == ["cutmix", "cutout", "identity", "pick(base=mixup)"]
    assert shown.dropped == tuple(a.label for a in config.space.augmentations if a.label in ranked[2:])
    drawn = [row["augment"].get("base", row["augment"])["draw"] for row in shown.rows if row["label"] != "identity"]
    assert drawn == [draw or "sample"] * 3
    alone = rank_with(task, task.teacher, contestants(config), ScreenPlan.resolve(config))
    assert [row["ratio"] for row in shown.rows] == [row.ratio for row in alone.rows]


def test_identity_is_shown_and_cannot_be_dropped_where_the_sweep_does_not_have_it(task, here, tmp_path):
    config = sweep(NAMES[::2], screen={"drop": 0.5, "precision": FEW})
    shown = screen_choices(SweepPlan.resolve(config), task, tmp_path, "")
    assert {row["label"] for row in shown.rows} == {"identity", "cutmix", "cutout"}
    assert len(shown.dropped) == 1 and shown.dropped[0] in ("cutmix", "cutout")


def test_what_goes_wrong_on_the_worker_is_one_line(task, here, tmp_path, monkeypatch):
    def fail(images, generator):
        raise ValueError("no such lens\n  and an essay")

    module = ModuleType("roletune_broken")
    module.raises = lambda: fail
    module.forgets = lambda: lambda images, generator: None
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def refusal(kind, name):
        with pytest.raises(kind) as raised:
            screen_choices(SweepPlan.resolve(sweep(["identity", name], screen={"drop": 0.5})), task, tmp_path, "")
        return str(raised.value)

    line = refusal(WorkError, "roletune_broken:raises")
    assert line == "augmentations could not be ranked: ValueError: no such lens and an essay"
    line = refusal(RequestError, "roletune_broken:forgets")
    assert line.startswith("roletune_broken:forgets must return images of") and line.endswith("got 'NoneType'")


def test_what_can_be_known_to_fail_is_refused_before_a_teacher_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asks = ["identity", {"kind": "cutmixpick", "pick_by": "student"}]
    color = Schedule((Phase(2, Genome()),), "student", ImageSpec(8, 3, (0, 0, 0)))
    for config, policies, rule in (
        (sweep(asks), [], "must not ask a student"),
        (sweep(screen={"precision": {"images": 121}}), [], "images must be at most 120"),
        (sweep(), [color], "must be for images of 1 channels, got 3"),
    ):
        with pytest.raises(RequestError, match=rule):
            screen(config, policies=policies)
    assert not list(tmp_path.iterdir())
