"""Policy files and operations of the previous version give the same pixels for ever."""

import json
from pathlib import Path

import numpy as np
import pytest
from pixel_hashes import operation_hashes, policy_hashes, policy_pixels

from spaces import OPERATIONS, Genome, Schedule
from spaces.schedule.serialization import upgrade_genome

FIXTURES = Path(__file__).parents[2] / "fixtures"
POLICIES = sorted((FIXTURES / "policies_v1").glob("*.json"))


def recorded(name):
    return json.loads((FIXTURES / f"{name}.json").read_text("utf-8"))


def test_all_files_were_recorded():
    assert {path.name for path in POLICIES} == recorded("policy_hashes").keys()
    assert recorded("learned_pixels").keys() == {path.name for path in POLICIES if path.name.startswith("hard")}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_file_gives_the_recorded_pixels(path):
    assert policy_hashes(Schedule.load(path)) == recorded("policy_hashes")[path.name]


@pytest.mark.parametrize("name", recorded("learned_pixels"))
def test_learned_weights_give_the_recorded_pixels(name):
    """The weights act in floating point, so another processor may round a byte up or down."""
    views = policy_pixels(Schedule.load(FIXTURES / "policies_v1" / name))
    expected = recorded("learned_pixels")[name]
    assert views.keys() == expected.keys()
    for key, pixels in views.items():
        np.testing.assert_allclose(pixels, expected[key], atol=1)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_file_is_written_as_it_was(path):
    text = path.read_text("utf-8").replace('"normalisation"', '"normalization"')
    schedule = Schedule.load(path)
    if not schedule.weights:  # else the text also names the weights file, which only `save` writes
        assert schedule.dumps() == text


def test_every_operation_gives_the_recorded_pixels_at_every_level():
    expected = recorded("operation_hashes")
    assert len(expected) == 10 * len(OPERATIONS)
    assert operation_hashes() == expected


def test_an_old_spelling_is_read_in_policy_files_alone():
    old, new = {"normalisation": "layer"}, {"normalization": "layer"}
    content = {"policy": [], "distill": {"loss": ["kd", {"hint": old, "my.losses:Loss": old, "kd": 0.5}]}}
    upgraded = upgrade_genome(content)
    assert upgraded["distill"]["loss"] == ["kd", {"hint": new, "my.losses:Loss": old, "kd": 0.5}]
    assert content["distill"]["loss"][1]["hint"] == old, "the argument is not modified"
    assert Genome.from_json(content).distill["loss"][1]["hint"] == old
    assert upgrade_genome({"policy": []}) == {"policy": []}
    loss = Schedule.load(FIXTURES / "policies_v1" / "color.student.json").phases[1].genome.distill["loss"]
    assert loss["hint"]["normalization"] == "layer"
