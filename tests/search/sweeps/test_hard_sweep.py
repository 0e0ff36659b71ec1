"""Sweeps in which students play against augmentors: by choice, in a population, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from results.runlog.events import TrialStarted
from results.runlog.export import export_policy
from results.runlog.members import METRIC
from search import SweepConfig, replay, run
from search.execution.journal import Journal
from search.sweeps.screen_plan import ScreenPlan, rankable
from search.sweeps.screening import screen
from spaces import RequestError, Schedule, Space
from spaces.augmentations import HardAffine

EPOCHS = 6
GAME = "warmup: 4, student_steps: 8, augmentor_steps: 2"
SWEEP = """
name: hard
data: {{name: digits, train: 60, validation: 60}}
teacher:
  model: cnn
  recipe: {{lr: 0.05, batch_size: 20}}
  search: {teacher}
  final: {{epochs: 4}}
student:
  model: mlp
  recipe: {{lr: 0.05, batch_size: 20}}
  search: {student}
validate: {{every: epoch}}
"""
CHOICE = f"""
space:
  augment:
    - {{kind: hard_affine, {GAME}}}
    - {{kind: hard_mix, {GAME}}}
    - {{kind: hard_vae, vae_steps: 30, {GAME}}}
    - identity
    - flip
    - cutmix
screen: {{drop: 0.5, precision: {{images: 30, means: 8}}}}
"""
POPULATION = f"""
space: {{operations: [Rotate], copies: 1, augment: [{{kind: hard_affine, {GAME}}}, {{kind: hard_mix, {GAME}}}]}}
"""


SEARCHES = {
    CHOICE: ("null", f"{{algorithm: grid, replicates: 1, epochs: {EPOCHS}, interval: 2}}"),
    POPULATION: (
        "{algorithm: pbt, population: 2, epochs: 4, interval: 2}",
        f"{{algorithm: pbt, population: 3, epochs: {EPOCHS}, interval: 2}}",
    ),
}


def config_of(folder, text):
    path, (teacher, student) = folder / "sweep.yaml", SEARCHES[text]
    path.write_text(SWEEP.format(teacher=teacher, student=student) + text)
    return SweepConfig.load(path, [f"storage={folder / 'runs'}"])


def test_what_has_yet_to_learn_is_never_ranked(tmp_path):
    config = config_of(tmp_path, CHOICE)
    assert [choice.label for choice in rankable(config.space)] == ["identity", "flip", "cutmix"]
    assert [choice.label for choice in ScreenPlan.resolve(config).contestants()] == ["identity", "flip", "cutmix"]
    alone = config.model_copy(update={"space": Space(augment=("hard_affine", "hard_mix"))})
    assert (
        not any(choice.learns for choice in ScreenPlan.resolve(alone).contestants())
        and len(ScreenPlan.resolve(alone).contestants()) > 10
    )
    with pytest.raises(RequestError, match=r"must not learn against a student.*--policy"):
        screen(config, only=["hard_affine"])
    assert not (tmp_path / "runs").exists(), "refused before there is a folder"


@pytest.fixture(scope="module")
def chosen(_ray, scored_here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hard_choice")
    config = config_of(folder, CHOICE)
    return config, run(config), folder


@pytest.mark.slow
def test_every_learned_choice_plays_and_leaves_its_pictures(chosen):
    _, result, _ = chosen
    folder = Path(result.folder)
    assert result.failed == {}
    dropped = json.loads((folder / "screening.json").read_text())["dropped"]
    assert len(dropped) == 1 and not dropped[0].startswith("hard"), "of the three that need no student, one"
    client = MlflowClient(result.tracking_uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "hard"]
    members = {
        found.data.params["augment"].partition("(")[0]: found
        for found in client.search_runs([experiment.experiment_id])
        if found.data.tags["stage"] == "grid search"
    }
    assert {"hard_affine", "hard_mix", "hard_vae"} < set(members)
    for kind, found in members.items():
        files = {item.path for item in client.list_artifacts(found.info.run_id)}
        pictures = {"hard.grid.png", "hard.parameters.png", "hard.phases.png"}
        assert pictures <= files if kind.startswith("hard") else not pictures & files
        steps = client.get_metric_history(found.info.run_id, "hard/augmentor_steps")
        assert bool(sum(step.value for step in steps)) == kind.startswith("hard")


@pytest.mark.slow
def test_the_vae_is_trained_once_for_all_sweeps(chosen, tmp_path):
    config, _, folder = chosen
    (kept,) = (folder / "runs" / "vae").iterdir()
    before = kept.stat().st_mtime_ns
    short = {"space": Space(augment=(dict(kind="hard_vae", vae_steps=30, warmup=4),))}
    again = run(config.model_copy(update=short))
    assert again.failed == {} and [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert kept.stat().st_mtime_ns == before
    policy = Schedule.load(Path(again.folder) / "policy.student.json")
    assert len({phase.genome.augment.vae.sha256 for phase in policy.phases}) == 1
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert policy.second_view(EPOCHS - 1)(images).images.shape == images.shape, "without teacher or student"


@pytest.fixture(scope="module")
def evolved(_ray, scored_here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hard_population")
    config = config_of(folder, POPULATION)
    return config, run(config)


@pytest.mark.slow
def test_a_population_evolves_games_and_its_policy_is_replayed_as_it_was_trained(evolved, tmp_path):
    _, result = evolved
    folder = Path(result.folder)
    assert result.failed == {}
    policy = Schedule.load(folder / "policy.student.json")
    assert policy.epochs == EPOCHS
    assert not any(phase.genome.augment.learns for phase in policy.phases)
    assert export_policy(str(folder), "student") == policy
    copy = export_policy(str(folder), "student").save(tmp_path / "policy.json")
    assert Schedule.load(copy) == policy
    text = (folder / "policy.student.json").read_text()
    assert text.replace("policy.student.safetensors", "policy.safetensors") == copy.read_text()
    weights = [f"teacher.weights={folder / 'models' / 'teacher.safetensors'}", f"storage={tmp_path / 'runs'}"]
    again = replay(SweepConfig.load(folder / "sweep.yaml", weights), [policy])
    found, expected = again.roles[-1], result.roles[-1]
    assert found.test["policy"] == expected.test["policy"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hard_affine", "hard_mix", "hard_vae"])
def test_each_plays_in_a_population(evolved, tmp_path, kind):
    config, result = evolved
    teacher = config.teacher.model_copy(update={"weights": str(Path(result.folder) / "models" / "teacher.safetensors")})
    rules = {"warmup": 4, "student_steps": 8, "augmentor_steps": 2} | ({"vae_steps": 30} if kind == "hard_vae" else {})
    alone = Space(operations=("Rotate",), copies=1, augment=({"kind": kind, **rules},))
    given = {"storage": str(tmp_path / "runs"), "teacher": teacher, "space": alone, "baselines": ()}
    found = run(config.model_copy(update=given))
    (student,) = found.roles
    policy = Schedule.load(student.policy_file)
    assert found.failed == {} and student.exploits > 0
    assert {phase.genome.augment.kind for phase in policy.phases} == {kind}
    assert len({phase.genome.augment.learned.sha256 for phase in policy.phases}) > 1, "it went on learning"


@pytest.mark.slow
def test_a_run_id_brings_the_weights_too(evolved):
    _, result = evolved
    client = MlflowClient(result.tracking_uri)
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    (parent,) = [found for found in runs if found.data.tags["stage"] == "sweep"]
    policy = export_policy(parent.info.run_id, "student", result.tracking_uri)
    assert policy == Schedule.load(Path(result.folder) / "policy.student.json") and policy.weights


@pytest.mark.slow
def test_what_was_learned_can_be_ranked(evolved, tmp_path):
    config, result = evolved
    policy = Schedule.load(Path(result.folder) / "policy.student.json")
    given = {"storage": str(tmp_path / "runs")}
    found = screen(config.model_copy(update=given), only=["flip"], policies=[policy])
    labels = {row["label"].partition("(")[0] for row in found.rows}
    assert {"identity", "flip", policy.phases[-1].genome.augment.kind} <= labels


def test_an_unfinished_search_says_which_game_to_play(tmp_path):
    start = {"policy": [], "augment": HardAffine(warmup=4).to_json()}
    image, stage = {"size": 8, "channels": 1, "fill": [78]}, "pbt search"
    with Journal(tmp_path) as journal:
        name = "student-pbt-00"
        journal.write(
            TrialStarted(trial=name, role="student", stage=stage, seed=0, epochs=8, image=image, genome=start)
        )
        journal.reported(name, 4, {METRIC: 0.5})
        journal.perturbed("student-pbt", 4, {name: 0.5}, [])
    schedule = export_policy(str(tmp_path), "student")
    assert [phase.genome.augment for phase in schedule.phases] == [HardAffine(warmup=4)]
    assert Schedule.load(schedule.save(tmp_path / "policy.json")) == schedule
    assert not (tmp_path / "policy.safetensors").exists()
