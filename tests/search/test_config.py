"""The sweep file: its defaults, its round trip, and one line for everything that it cannot say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config import SweepConfig, parse_yaml
from spaces import RequestError

MINIMAL = "data: {name: digits}\n"


def load(tmp_path, text, *overrides):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return SweepConfig.load(path, overrides)


def test_everything_has_a_default_but_the_data(tmp_path):
    config = load(tmp_path, MINIMAL)
    assert (config.name, config.search.kind, config.search.synch, config.space.copies) == ("digits", "pbt", True, 2)
    assert list(config.roles) == ["teacher", "student"]
    assert config.baselines == ("none", "random")
    with pytest.raises(RequestError, match="data must be given"):
        load(tmp_path, "name: x\n")


def test_the_resolved_file_gives_the_same_sweep(tmp_path):
    config = load(tmp_path, MINIMAL, "student.distill.temperature=2.5", "space.operations=[Rotate, Invert]")
    assert load(tmp_path, config.to_yaml()) == config
    assert "temperature: 2.5" in config.to_yaml()


def test_the_examples_are_sweeps():
    from pathlib import Path

    examples = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        SweepConfig.load(example)


def test_overrides_reach_any_depth_and_win(tmp_path):
    config = load(tmp_path, MINIMAL, "teacher.recipe.lr=1e-3", "teacher.stage={epochs: 6}", "student=null")
    assert config.teacher.recipe.lr == 1e-3
    assert config.teacher.stage.epochs == 6 and config.teacher.stage.population == 4
    assert list(config.roles) == ["teacher"]


def test_full_training_is_as_long_as_the_stage_unless_it_says_otherwise(tmp_path):
    assert load(tmp_path, MINIMAL, "teacher.stage.epochs=7").teacher.full_epochs == 7
    assert load(tmp_path, MINIMAL, "teacher.full.epochs=9").teacher.full_epochs == 9


def test_with_weights_the_teacher_is_not_searched(tmp_path):
    assert list(load(tmp_path, MINIMAL, "teacher.weights=t.safetensors").roles) == ["student"]


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("teacher.stage.epoch=3", "unknown key at teacher.stage.epoch: 'epoch'; did you mean 'epochs'?"),
        ("teachr={}", "unknown key at teachr: 'teachr'; did you mean 'teacher'?"),
        ("student.recipe.learning_rate=1", "unknown key at student.recipe.learning_rate"),
        ("student.distill.temprature=1", "did you mean 'temperature'?"),
        ("space.operation=[Rotate]", "did you mean 'operations'?"),
        ("teacher.stage.epochs=many", "teacher.stage.epochs: Input should be a valid integer, but got 'many'"),
        ("teacher.stage.epochs=0", "greater than or equal to 1, but got 0"),
        ("teacher.stage.population=1", "greater than or equal to 2"),
        ("teacher.stage.epochs=2.5", "teacher.stage.epochs"),
        ("search.quantile=0.7", "less than or equal to 0.5, but got 0.7"),
        ("search.kind=genetic", "'pbt' or 'random', but got 'genetic'"),
        ("search.synch=maybe", "valid boolean"),
        ("teacher.recipe.lr=-1", "lr must be above 0, but got -1"),
        ("teacher.recipe.lr=.nan", "lr must be a finite number, but got nan"),
        ("teacher.recipe.batch_size=1", "2 or more, for batch normalisation, but got 1"),
        ("student.distill.alpha=2", r"alpha must be in \[0, 1\], but got 2"),
        ("space.operations=[Rotat]", "unknown operation 'Rotat'; did you mean 'Rotate'?"),
        ("space.operations=[Rotate, Rotate]", "each once"),
        ("space.copies=true", "space.copies"),
        ("space.copies='2'", "space.copies"),
        ("teacher.recipe.lr='0.1'", "teacher.recipe.lr"),
        ("name=../x", "letters, digits"),
        ("baselines=[nothing]", "'none' or 'random'"),
        ("data=digits", "data: "),
        ("resources.cpus_per_trial=0", "greater than or equal to 1"),
        ("resources.gpus_per_trial=-1", "greater than or equal to 0"),
    ],
)
def test_what_it_cannot_say_is_refused_in_one_line(tmp_path, override, rule):
    with pytest.raises(RequestError, match=rule.replace("?", r"\?")) as refusal:
        load(tmp_path, MINIMAL, override)
    assert "\n" not in str(refusal.value) and str(refusal.value).startswith(str(tmp_path))


def test_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(RequestError, match="leaves nothing to train"):
        load(tmp_path, MINIMAL, "student=null", "teacher.weights=x")


@pytest.mark.parametrize("override", ["name", "=3", "data.name.x=1"])
def test_a_broken_override_is_refused(tmp_path, override):
    with pytest.raises(RequestError, match="--set"):
        load(tmp_path, MINIMAL, override)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "just words", "data: {name: digits}\ndata: {name: mnist}\n"])
def test_what_is_no_sweep_file_is_refused(tmp_path, text):
    with pytest.raises(RequestError):
        load(tmp_path, text)


def test_a_key_that_stands_twice_names_its_line(tmp_path):
    with pytest.raises(RequestError, match=r"a key stands once, but got 'name'; see line 3"):
        load(tmp_path, "name: a\ndata: {name: digits}\nname: b\n")


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(RequestError, match="cannot read the sweep file"):
        SweepConfig.load(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="UTF-8"):
        SweepConfig.load(tmp_path / "binary.yaml")


@given(st.text(max_size=60))
def test_any_text_is_a_sweep_or_refused(text):
    try:
        content = parse_yaml(text, "text")
        if isinstance(content, dict):
            SweepConfig.from_mapping(content)
    except RequestError as refusal:
        assert "\n" not in str(refusal)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5)
trees = st.recursive(scalars, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=8), t, max_size=3))
sections = st.sampled_from(["name", "data", "teacher", "student", "space", "search", "baselines", "validate", "x"])


@given(st.dictionaries(sections, trees, max_size=4))
def test_any_tree_is_a_sweep_or_refused(tree):
    try:
        SweepConfig.from_mapping({"data": {"name": "digits"}, **tree})
    except RequestError as refusal:
        assert "\n" not in str(refusal)
