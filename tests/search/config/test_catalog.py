"""What can be chosen is read off the code: every name stands there, and what it says can be asked for."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from search.cli import app
from search.config.catalog import markdown, setting, settings
from search.config.schema import SweepConfig
from spaces import OPERATIONS, RequestError
from spaces.augmentations import CATALOG
from trainables.data.registry import DATA
from trainables.losses import LOSSES
from trainables.models import MODELS

REGISTRIES = {
    "operations": OPERATIONS,
    "augment": CATALOG,
    "loss": LOSSES,
    "data.name": DATA,
    "model": {**MODELS, "torchvision:NAME": None},
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_name_of_a_registry_stands_in_its_setting(name):
    assert list(setting(name).names) == list(REGISTRIES[name])


@pytest.mark.parametrize(
    "name", ["student.distill.loss", "loss", "projection", "student.model", "student.search.algorithm", "algorithm"]
)
def test_a_setting_is_found_by_its_name_and_by_its_last_word(name):
    assert setting(name) in settings()


def test_a_setting_that_there_is_not_names_the_nearest():
    with pytest.raises(RequestError, match="unknown setting 'lose'; did you mean 'loss'"):
        setting("lose")


def test_every_choice_of_kind_and_bits_is_allowed_in_a_sweep():
    data = {"data": {"name": "digits"}}
    for algorithm in setting("algorithm").names:
        SweepConfig.from_mapping({**data, "student": {"search": {"algorithm": algorithm}}})
    for bits in setting("bits").names:
        SweepConfig.from_mapping({**data, "student": {"bits": {"weights": int(bits), "activations": int(bits)}}})
    for projection in setting("projection").names:
        for normalization in setting("normalization").names:
            options = {"weight": 1, "projection": projection, "normalization": normalization}
            SweepConfig.from_mapping({**data, "student": {"distill": {"loss": {"hint": options}}}})
    for loss in setting("loss").names:
        SweepConfig.from_mapping({**data, "student": {"distill": {"loss": loss}}})


def test_the_command_shows_names_options_and_sources():
    shown = CliRunner().invoke(app, ["list", "loss"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for text in ("crd", "negatives", "https://arxiv.org/abs/1910.10699", "alpha=1.0, beta=8.0"):
        assert text in shown.output
    everything = json.loads(CliRunner().invoke(app, ["list", "--json"]).output)
    assert list(everything) == [each.name for each in settings()]
    assert everything["student.distill.loss"]["dkd"][0] == "alpha=1.0, beta=8.0"
    assert CliRunner().invoke(app, ["list", "--markdown"]).output == markdown()
