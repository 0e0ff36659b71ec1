"""What a sweep leaves at its end."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_folder import result, sweep_folder

from results.analysis.effects import Effect, EffectsReport, RoleEffects
from search.config.schema import SweepConfig
from search.sweeps.artifacts import Records
from search.sweeps.plan import SweepPlan
from search.sweeps.sample_images import COUNT, samples
from trainables import data as datasets


class Kept:
    """A tracker that keeps what it is given."""

    uri = "sqlite:///x"

    def __init__(self):
        self.files, self.tags, self.finished = [], {}, False

    def start(self, *args, **kwargs):
        return "parent"

    def artifact(self, run, path):
        assert Path(path).is_file()
        self.files.append(Path(path).name)

    def tag(self, run, tags):
        self.tags |= tags

    def log(self, run, metrics):
        pass

    def finish(self, run):
        self.finished = True


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", train=40, validation=40)


@pytest.fixture
def closed(tmp_path):
    """Ends a sweep on `data`, and gives its result and its tracker."""
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / "result.json").unlink()

    def close(data):
        tracker = Kept()
        plan = SweepPlan.resolve(SweepConfig.from_mapping({"data": {"name": "digits", "train": 40, "validation": 40}}))
        records = Records(replace(plan, data=data), folder, tracker)
        return records.close(result(folder).roles, {}, 75.0), tracker

    return close


def test_the_report_is_written_and_kept(closed, digits):
    found, tracker = closed(digits)
    page = (Path(found.report) / "index.html").read_text()
    assert "Student: worse than no augmentation" in page and "image 6 at epoch 2" in page
    assert tracker.files[-3:] == ["summary.md", "result.json", "index.html"]
    assert tracker.finished and list(tracker.tags) == ["mlflow.note.content"]


class Estimated:
    """A search that estimated this effect of Rotate, or none."""

    def __init__(self, role, estimate=None):
        self.role, self.estimate = role, estimate

    def effects(self, outcomes):
        if self.estimate is None:
            return None
        bounds = self.estimate - 0.2, self.estimate + 0.2
        effect = Effect("Rotate", "operation", ("off", "on"), self.estimate, *bounds, 0.9, 1.3)
        return RoleEffects(self.role, "accuracy", 24, 0.5, (effect,), {"Rotate": "on"})


def test_effects_of_both_roles_are_in_one_file_and_kept(tmp_path):
    tracker, folder = Kept(), sweep_folder(tmp_path / "digits-001")
    plan = SweepPlan.resolve(SweepConfig.from_mapping({"data": {"name": "digits", "train": 40, "validation": 40}}))
    records = Records(plan, folder, tracker)
    assert records.effects(Estimated("teacher"), []) is None and not (folder / "effects.json").exists()
    alone = records.effects(Estimated("teacher", 0.1), [])
    assert list(alone.roles) == ["teacher"] and alone.differences == ()
    both = records.effects(Estimated("student", 2.0), [])
    assert EffectsReport.load(folder / "effects.json").to_json() == both.to_json()
    assert [each.factor for each in both.different] == ["Rotate"]
    assert tracker.files[-3:] == ["effects.json", "effects.md", "effects.png"]
    written = (folder / "effects.json").read_bytes()
    records.effects(Estimated("teacher", 0.1), [])
    assert (folder / "effects.json").read_bytes() == written, "as after a sweep that was resumed"


class Gone:
    """Images of the user's own that are not there any more."""

    def __init__(self, images):
        self.labels = images.labels

    def subset(self, indices):
        raise FileNotFoundError("/photos/1.png")


def test_a_report_that_cannot_be_drawn_takes_nothing_from_the_result(closed, digits, caplog):
    with caplog.at_level(logging.WARNING):
        found, tracker = closed(replace(digits, validation=Gone(digits.validation)))
    assert json.loads((Path(found.folder) / "result.json").read_text()) == found.to_json()
    assert not (Path(found.report) / "index.html").exists()
    assert tracker.finished and tracker.tags.pop("mlflow.note.content")
    assert tracker.tags == {"report.error": "FileNotFoundError: /photos/1.png"}
    (said,) = caplog.messages
    assert "the report could not be drawn" in said and f"roletune report {found.folder} tries again" in said


def test_samples_are_one_of_each_of_some_classes(digits):
    images = samples(digits)
    assert images.shape == (COUNT, 1, 8, 8)
    seen = [int(digits.validation.labels[(digits.validation.images == image).flatten(1).all(1)][0]) for image in images]
    assert seen == [0, 1, 3, 5, 6, 8]
