"""The sweep file: its defaults, its round trip, and one line for everything that it cannot say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config.schema import SweepConfig, parse_yaml
from spaces import RequestError
from trainables.screening.ranking import Precision

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

    folder = Path(__file__).parents[3] / "examples"
    examples = sorted([*folder.glob("*.yaml"), *folder.glob("searches/*.yaml"), folder / "cluster" / "sweep.yaml"])
    assert examples
    for example in examples:
        SweepConfig.load(example)


def test_nothing_is_screened_and_ties_go_by_index_unless_it_is_asked_for(tmp_path):
    config = load(tmp_path, MINIMAL)
    assert (config.screen.drop, config.screen.draw, config.screen.precision) == (0, None, Precision())
    assert (config.search.tie_break, config.search.repeats) == ("none", 3)
    assert config.space.augment == ("identity",)


def test_a_choice_sweep_that_screens_is_written_as_it_was_read(tmp_path):
    config = load(
        tmp_path,
        MINIMAL,
        "search={kind: choice, repeats: 5, tie_break: t_stddev}",
        "space.augment=[identity, {kind: cutmix, alpha: 0.5}]",
        "screen={drop: 0.5, draw: batch, precision: {images: 40, means: 50, half_width: 0, guard: 0.25}}",
    )
    assert config.screen.precision == Precision(images=40, means=50, half_width=0, guard=0.25)
    assert (config.screen.drop, config.screen.draw, config.search.repeats) == (0.5, "batch", 5)
    assert load(tmp_path, config.to_yaml()) == config


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
        ("teacher.stage.epochs=many", "teacher.stage.epochs: Input should be a valid integer, got 'many'"),
        ("teacher.stage.epochs=0", "greater than or equal to 1, got 0"),
        ("teacher.stage.population=1", "greater than or equal to 2"),
        ("teacher.stage.epochs=2.5", "teacher.stage.epochs"),
        ("search.quantile=0.7", "less than or equal to 0.5, got 0.7"),
        ("search.kind=genetic", "'choice' or 'grid', got 'genetic'"),
        ("search.tie_break=loss", "'none' or 't_stddev', got 'loss'"),
        ("search.repeats=0", "greater than or equal to 1, got 0"),
        ("search.repeat=2", "did you mean 'repeats'?"),
        ("search.synch=maybe", "valid boolean"),
        ("teacher.recipe.lr=-1", "lr must be above 0, got -1"),
        ("teacher.recipe.lr=.nan", "lr must be a finite number, got nan"),
        ("teacher.recipe.batch_size=1", "2 or more, for batch normalization, got 1"),
        ("student.distill.alpha=2", r"alpha must be in \[0, 1\], got 2"),
        ("space.operations=[Rotat]", "unknown operation 'Rotat'; did you mean 'Rotate'?"),
        ("space.operations=[Rotate, Rotate]", "names each operation once"),
        (
            "space.distill={los: [kd, dkd]}",
            "unknown setting of distill that a genome chooses 'los'; did you mean 'loss'?",
        ),
        ("space.distill={loss: [kd, dkdd]}", "unknown loss 'dkdd'; did you mean 'dkd'?"),
        ("space.distill={temperature: {low: 0, high: 4}}", "temperature must be above 0, got 0"),
        ("space.distill={temperature: {low: 4, high: 4}}", "space.distill.temperature"),
        ("student.distill.loss={hint: -1}", "hint"),
        ("student.distill.loss=hnt", "unknown loss 'hnt'; did you mean 'hint'?"),
        ("student.bits.weights=3", "bits.weights is one of 1, 2, 4, 8, 32, got 3"),
        ("student.bits={weight: 2}", "did you mean 'weights'?"),
        ("student.bits.activations=true", "activations"),
        ("teacher.classes=4", "classes goes with weights or pretrained: false"),
        ("teacher={pretrained: false, weights: x}", "pretrained: false has random weights"),
        ("teacher={pretrained: false, policy: x}", "policy goes with weights"),
        ("teacher.data={nme: digits}", "teacher.data"),
        ("space.augment=[cutmx]", "unknown augmentation 'cutmx'; did you mean 'cutmix'?"),
        ("space.augment=[cutmix, {kind: cutmix, alpha: 1}]", "at least one augmentation, each once"),
        ("screen.drop=1", "screen.drop: Input should be less than 1, got 1"),
        ("screen.drop=-0.1", "greater than or equal to 0, got -0.1"),
        ("screen.drop='0.5'", "screen.drop"),
        ("screen.dropped=0.5", "did you mean 'drop'?"),
        ("screen.draw=image", "'sample' or 'batch', got 'image'"),
        ("screen.precision.image=3", "unknown key at screen.precision.image: 'image'; did you mean 'images'?"),
        ("screen.precision.images=0", "a mean takes one image or more, got 0"),
        ("screen.precision.means=1", "a spread takes two means or more, got 1"),
        ("screen.precision.means=2.5", "screen.precision.means"),
        ("screen.precision.half_width=2", r"half_width lies in \[0, 1\], got 2"),
        ("screen.precision.guard=-1", r"guard lies in \[0, 1\], got -1"),
        ("screen=0.5", "screen: "),
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


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        (["student=null", "teacher.data={name: digits}"], "teacher.data is the task of a teacher beside a student"),
        (["student=null", "space.distill={loss: [kd, dkd]}"], "space.distill is the student's; there is none"),
        (["student=null", "teacher=null"], "leaves nothing to train"),
        (["student=null", "teacher.pretrained=false"], "leaves nothing to train"),
        (["search.kind=choice", "space.distill={loss: [kd, dkd]}"], "kind: choice compares space.augment alone"),
        (["search.kind=grid", "space.distill={temperature: {low: 1, high: 8}}"], "a range has no end of them"),
        (["search={kind: asha, reduction: 1}"], "greater than or equal to 2"),
        (["resources.epoch_limit=0.0"], "greater than 0"),
        (["teacher=null", "student.distill.view=distinct"], "take a teacher; there is none"),
        (["teacher=null", "student.distill.init=teacher"], "take a teacher; there is none"),
        (["teacher=null", "screen.drop=0.5"], "take a teacher; there is none"),
        (["teacher=null", "search.tie_break=t_stddev"], "take a teacher; there is none"),
        (["teacher=null", "space.augment=[identity, cutmix]"], "learned from the teacher's answers"),
        (["teacher.pretrained=false", "student.distill.view=distinct"], "set teacher.policy to its file"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, overrides, rule):
    with pytest.raises(RequestError, match=rule):
        load(tmp_path, MINIMAL, *overrides)


def test_a_random_teacher_and_no_teacher_are_not_searched(tmp_path):
    assert list(load(tmp_path, MINIMAL, "teacher.pretrained=false").roles) == ["student"]
    alone = load(tmp_path, MINIMAL, "teacher=null", "student.distill.loss={spectral: 1}")
    assert alone.teacher is None and list(alone.roles) == ["student"]


def test_a_space_of_losses_is_written_as_it_was_read(tmp_path):
    domain = "{loss: [kd, {hint: {weight: {low: 1, high: 9, log: true}, projection: [student, inverted]}}], alpha: 0.5}"
    config = load(tmp_path, MINIMAL, "search.kind=tpe", f"space.distill={domain}", "space.operations=[]")
    assert load(tmp_path, config.to_yaml()) == config
    assert config.space.distill["loss"][1]["hint"]["weight"] == {"low": 1, "high": 9, "log": True}


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
    with pytest.raises(RequestError, match=r"a key stands once, got 'name'; see line 3"):
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
sections = st.sampled_from(
    ["name", "data", "teacher", "student", "space", "search", "screen", "baselines", "validate", "x"]
)


@given(st.dictionaries(sections, trees, max_size=4))
def test_any_tree_is_a_sweep_or_refused(tree):
    try:
        SweepConfig.from_mapping({"data": {"name": "digits"}, **tree})
    except RequestError as refusal:
        assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    "content",
    [
        "tracking: {uri: 'http://user:s3cr3t@host'}",
        "tracking: 'http://user:s3cr3t@host'",
        "tracking: {url: 'http://user:s3cr3t@host'}",
        "tracking: {uri: ['http://user:s3cr3t@host']}",
        "tracking: {uri: http://user:s3cr3t@host: no}",
    ],
)
def test_nothing_shows_the_password_of_the_tracking_server(tmp_path, content):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"data: {{name: digits}}\n{content}\n")
    try:
        config = SweepConfig.load(path)
    except RequestError as error:
        assert "s3cr3t" not in str(error) and "tracking" in str(error)
    else:
        assert config.tracking.uri == "http://user:s3cr3t@host", "which it is asked with"
        assert "s3cr3t" not in repr(config) + str(config) + config.to_yaml() + config.model_dump_json()
