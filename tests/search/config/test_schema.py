"""The sweep file: its defaults, its round trip, and one line for everything that it cannot say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config.schema import SweepConfig
from search.config.yaml_io import parse_yaml
from spaces import RequestError
from trainables.screening.ranking import Precision

MINIMAL = "data: {name: digits}\n"


def load(tmp_path, text, *overrides):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return SweepConfig.load(path, overrides)


def test_everything_has_a_default_but_the_data(tmp_path):
    config = load(tmp_path, MINIMAL)
    assert (config.name, config.seed, config.space.copies) == ("digits", 0, 2)
    for role in config.roles.values():
        screen, refine = role.search
        assert (screen.algorithm, screen.trials, screen.epochs) == ("factorial", 24, 16)
        assert (refine.algorithm, refine.population, refine.epochs, refine.synchronous) == ("pbt", 4, 24, True)
    assert config.space.genome == "scaled"
    assert list(config.roles) == ["teacher", "student"]
    assert config.baselines == ("none", "random")
    with pytest.raises(RequestError, match="data must be given"):
        load(tmp_path, "name: x\n")


PBA, NO_SEARCH = "search: {algorithm: pba}", "search: null"


@pytest.mark.parametrize(
    ("roles", "genome"),
    [
        (f"teacher: {{{PBA}}}\nstudent: {{{PBA}}}", "pba"),
        (f"teacher: {{{PBA}}}\nstudent: {{}}", "scaled"),
        (f"teacher: {{{NO_SEARCH}}}\nstudent: {{{PBA}}}", "pba"),
        (f"teacher: {{pretrained: false}}\nstudent: {{{PBA}}}", "pba"),
        (f"teacher: null\nstudent: {{{PBA}}}", "pba"),
        ("teacher: {search: [{algorithm: factorial}, {algorithm: pbt}]}\nstudent: null", "scaled"),
        ("space: {genome: pba}", "pba"),
        ("space: {copies: 1}", "scaled"),
    ],
)
def test_policies_are_scaled_where_a_search_is_factorial_and_nothing_is_said(tmp_path, roles, genome):
    config = load(tmp_path, MINIMAL + roles)
    assert config.space.genome == genome
    assert load(tmp_path, config.to_yaml()) == config


def test_the_resolved_file_gives_the_same_sweep(tmp_path):
    config = load(tmp_path, MINIMAL, "student.distill.temperature=2.5", "space.operations=[Rotate, Invert]")
    assert load(tmp_path, config.to_yaml()) == config
    assert "temperature: 2.5" in config.to_yaml()


def test_the_examples_are_sweeps():
    from pathlib import Path

    folder = Path(__file__).parents[3] / "examples"
    examples = sorted(
        [
            *folder.glob("*.yaml"),
            *folder.glob("custom_algorithm/*.yaml"),
            *folder.glob("searches/*.yaml"),
            folder / "cluster" / "sweep.yaml",
        ]
    )
    assert examples
    for example in examples:
        SweepConfig.load(example)


def test_nothing_is_screened_and_ties_go_by_index_unless_it_is_asked_for(tmp_path):
    config = load(tmp_path, MINIMAL)
    assert (config.screen.drop, config.screen.draw, config.screen.precision) == (0, None, Precision())
    assert {(search.tie_break, search.replicates) for search in config.student.searches} == {("none", 3)}
    assert config.space.augment == ("identity",)


def test_a_grid_that_screens_is_written_as_it_was_read(tmp_path):
    config = load(
        tmp_path,
        MINIMAL,
        "student.search={algorithm: grid, replicates: 5}",
        "space.augment=[identity, {kind: cutmix, alpha: 0.5}]",
        "screen={drop: 0.5, draw: batch, precision: {images: 40, means: 50, half_width: 0, guard: 0.25}}",
    )
    assert config.screen.precision == Precision(images=40, means=50, half_width=0, guard=0.25)
    assert (config.screen.drop, config.screen.draw, config.student.search.replicates) == (0.5, "batch", 5)
    assert load(tmp_path, config.to_yaml()) == config


def test_overrides_reach_any_depth_and_win(tmp_path):
    config = load(tmp_path, MINIMAL, "teacher.recipe.lr=1e-3", "teacher.search={epochs: 6}", "student=null")
    assert config.teacher.recipe.lr == 1e-3
    assert config.teacher.search.epochs == 6 and config.teacher.search.population == 4
    assert list(config.roles) == ["teacher"]


def test_the_final_training_is_as_long_as_the_search_unless_it_says_otherwise(tmp_path):
    assert load(tmp_path, MINIMAL, "teacher.search.epochs=7").teacher.final_epochs == 7
    assert load(tmp_path, MINIMAL, "teacher.final.epochs=9").teacher.final_epochs == 9
    assert load(tmp_path, MINIMAL, "teacher.search=null").teacher.final_epochs == 24


def test_with_weights_the_teacher_is_not_searched(tmp_path):
    assert list(load(tmp_path, MINIMAL, "teacher.weights=t.safetensors").roles) == ["student"]


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("teacher.search.epoch=3", "unknown key at teacher.search.epoch: 'epoch'; did you mean 'epochs'?"),
        ("teachr={}", "unknown key at teachr: 'teachr'; did you mean 'teacher'?"),
        ("student.recipe.learning_rate=1", "unknown key at student.recipe.learning_rate"),
        ("student.distill.temprature=1", "did you mean 'temperature'?"),
        ("space.operation=[Rotate]", "did you mean 'operations'?"),
        ("teacher.search.epochs=many", "teacher.search.epochs: Input should be a valid integer, got 'many'"),
        ("teacher.search.epochs=0", "greater than or equal to 1, got 0"),
        ("teacher.search.population=1", "greater than or equal to 2"),
        ("teacher.search.epochs=2.5", "teacher.search.epochs"),
        ("teacher.search.quantile=0.7", "less than or equal to 0.5, got 0.7"),
        (
            "student.search.algorithm=genetic",
            "unknown algorithm 'genetic'; known: blind, factorial, grid, pb2, pba, pbt, race, random",
        ),
        ("student.search.algorithm=tpee", "did you mean 'tpe'?"),
        ("student.search.algorithm=my.search-class", "a dotted name must have a module and an attribute"),
        ("student.search.tie_break=loss", "'none' or 't_stddev', got 'loss'"),
        ("student.search={algorithm: grid, replicates: 0}", "greater than or equal to 1, got 0"),
        ("student.search.replicate=2", "did you mean 'replicates'?"),
        ("student.search.synchronous=maybe", "valid boolean"),
        ("teacher.recipe.lr=-1", "lr must be > 0, got -1"),
        ("teacher.recipe.lr=.nan", "lr must be a finite number, got nan"),
        ("teacher.recipe.batch_size=1", "batch_size must be an integer >= 2, which batch normalization needs, got 1"),
        ("student.distill.alpha=2", r"alpha must be in \[0, 1\], got 2"),
        ("space.operations=[Rotat]", "unknown operation 'Rotat'; did you mean 'Rotate'?"),
        ("space.operations=[Rotate, Rotate]", "a space must name each operation once"),
        (
            "space.distill={los: [kd, dkd]}",
            "unknown setting of distill that a genome chooses 'los'; did you mean 'loss'?",
        ),
        ("space.distill={loss: [kd, dkdd]}", "unknown loss 'dkdd'; did you mean 'dkd'?"),
        ("space.distill={temperature: {low: 0, high: 4}}", "temperature must be > 0, got 0"),
        ("space.distill={temperature: {low: 4, high: 4}}", "space.distill.temperature"),
        ("student.distill.loss={hint: -1}", "hint"),
        ("student.distill.loss=hnt", "unknown loss 'hnt'; did you mean 'hint'?"),
        ("student.bits.weights=3", "bits.weights must be one of 1, 2, 4, 8, 32, got 3"),
        ("student.bits={weight: 2}", "did you mean 'weights'?"),
        ("student.bits.activations=true", "activations"),
        ("teacher.classes=4", "classes must go with weights or pretrained: false"),
        (
            "teacher={pretrained: false, weights: x}",
            "weights must be left out with pretrained: false, which has random weights",
        ),
        ("teacher={pretrained: false, policy: x}", "policy must go with weights"),
        ("teacher.data={nme: digits}", "teacher.data"),
        ("space.augment=[cutmx]", "unknown augmentation 'cutmx'; did you mean 'cutmix'?"),
        ("space.augment=[cutmix, {kind: cutmix, alpha: 1}]", "at least one augmentation, each once"),
        ("screen.drop=1", "screen.drop: Input should be less than 1, got 1"),
        ("screen.drop=-0.1", "greater than or equal to 0, got -0.1"),
        ("screen.drop='0.5'", "screen.drop"),
        ("screen.dropped=0.5", "did you mean 'drop'?"),
        ("screen.draw=image", "'sample' or 'batch', got 'image'"),
        ("screen.precision.image=3", "unknown key at screen.precision.image: 'image'; did you mean 'images'?"),
        ("screen.precision.images=0", "images must be >= 1, got 0"),
        ("screen.precision.means=1", "means must be >= 2, got 1"),
        ("screen.precision.means=2.5", "screen.precision.means"),
        ("screen.precision.half_width=2", r"half_width must be in \[0, 1\], got 2"),
        ("screen.precision.guard=-1", r"guard must be in \[0, 1\], got -1"),
        ("screen=0.5", "screen: "),
        ("space.copies=true", "space.copies"),
        ("space.copies='2'", "space.copies"),
        ("teacher.recipe.lr='0.1'", "teacher.recipe.lr"),
        ("name=../x", "letters, digits"),
        ("baselines=[nothing]", "'randaugment', 'random' or 'blind'"),
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
        (["student=null", "teacher.data={name: digits}"], "teacher.data must be left out with student: null"),
        (["student=null", "space.distill={loss: [kd, dkd]}"], "space.distill must be left out with student: null"),
        (["student=null", "teacher=null"], "there is nothing to train"),
        (["student=null", "teacher.pretrained=false"], "there is nothing to train"),
        (["teacher.search={algorithm: grid}"], "teacher.search.algorithm must not be grid.*set teacher.search: null"),
        (["student.search.algorithm=grid", "space.distill={temperature: {low: 1, high: 8}}"], "not ranges"),
        (["student.search={algorithm: successive_halving, reduction: 1}"], "greater than or equal to 2"),
        (["resources.epoch_limit=0.0"], "greater than 0"),
        (["teacher=null", "student.distill.teacher_view=distinct"], "must be left out with teacher: null"),
        (["teacher=null", "student.distill.init=teacher"], "must be left out with teacher: null"),
        (["teacher=null", "screen.drop=0.5"], "must be left out with teacher: null"),
        (["teacher=null", "student.search.tie_break=t_stddev"], "must be left out with teacher: null"),
        (["teacher=null", "space.augment=[identity, cutmix]"], "space.augment must be left out with teacher: null"),
        (
            ["teacher.pretrained=false", "student.distill.teacher_view=distinct"],
            "teacher.policy must be given with teacher_view: distinct",
        ),
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
    config = load(tmp_path, MINIMAL, "student.search.algorithm=tpe", f"space.distill={domain}", "space.operations=[]")
    assert load(tmp_path, config.to_yaml()) == config
    assert config.space.distill["loss"][1]["hint"]["weight"] == {"low": 1, "high": 9, "log": True}


def test_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(RequestError, match="there is nothing to train"):
        load(tmp_path, MINIMAL, "student=null", "teacher.weights=x")


TAKEN = {
    "pbt": {"population", "start", "growth", "synchronous", "tie_break", "quantile"},
    "pba": {"population", "start", "growth", "synchronous", "tie_break", "quantile"},
    "pb2": {"population", "start", "synchronous", "tie_break", "quantile"},
    "random": {"trials"},
    "successive_halving": {"trials", "synchronous", "tie_break", "reduction"},
    "tpe": {"trials", "start", "synchronous", "early_stopping"},
    "grid": {"replicates"},
    "race": {"candidates", "trials"},
}
VALUES = {"population": 4, "trials": 8, "synchronous": True, "tie_break": "none", "quantile": 0.25}
VALUES |= {"reduction": 3, "replicates": 3, "early_stopping": "none"}


@pytest.mark.parametrize("algorithm", TAKEN)
@pytest.mark.parametrize("setting", VALUES)
def test_a_setting_that_the_algorithm_does_not_take_is_refused(algorithm, setting):
    student = {"search": {"algorithm": algorithm, setting: VALUES[setting]}}
    content = {"data": {"name": "digits"}, "student": student}
    if setting in TAKEN[algorithm]:
        search = SweepConfig.from_mapping(content).student.search
        assert set(search.model_dump()) - {"algorithm", "epochs", "interval", "objective"} == TAKEN[algorithm]
        return
    with pytest.raises(RequestError, match=f"{setting} must be left out with algorithm: {algorithm}") as refusal:
        SweepConfig.from_mapping(content)
    other = {"population": "trials", "trials": "population"}.get(setting)
    assert f"; set {other}" in str(refusal.value) if other in TAKEN[algorithm] else "; it takes " in str(refusal.value)


def test_pba_is_pbt_with_the_settings_of_its_paper(tmp_path):
    search = load(tmp_path, MINIMAL, "student.search.algorithm=pba").student.search
    assert (search.population, search.interval, search.quantile) == (16, 3, 0.25)
    assert load(tmp_path, MINIMAL, "student.search={algorithm: pba, population: 8}").student.search.population == 8


def test_early_stopping_brings_its_settings_with_it(tmp_path):
    search = "student.search={algorithm: tpe, early_stopping: asha, reduction: 2, tie_break: t_stddev}"
    assert load(tmp_path, MINIMAL, search).student.search.reduction == 2
    with pytest.raises(RequestError, match="reduction must be left out with algorithm: tpe"):
        load(tmp_path, MINIMAL, "student.search={algorithm: tpe, reduction: 2}")


def test_ties_are_broken_between_students_alone(tmp_path):
    with pytest.raises(RequestError, match=r"teacher\.search\.tie_break must be none"):
        load(tmp_path, MINIMAL, "teacher.search.tie_break=t_stddev")


def test_options_go_with_an_algorithm_of_ones_own(tmp_path):
    search = load(
        tmp_path, MINIMAL, "student.search={algorithm: 'my.code:Search', trials: 3, options: {x: 1}}"
    ).student.search
    assert search.options == {"x": 1} and search.trials == 3, "which is imported when the sweep starts"
    with pytest.raises(RequestError, match="options must be left out with a built-in algorithm"):
        load(tmp_path, MINIMAL, "student.search={algorithm: pbt, options: {x: 1}}")


@pytest.mark.parametrize(
    ("override", "old", "new"),
    [
        ("search={kind: pbt}", "search", "teacher.search and student.search"),
        ("search={kind: pbt, seed: 1}", "search", "teacher.search and student.search, and its seed as seed"),
        ("search.seed=1", "search.seed", "seed"),
        ("teacher.stage.epochs=6", "teacher.stage", "teacher.search"),
        ("student.full={seeds: 3}", "student.full", "student.final"),
        ("student.search.kind=pbt", "student.search.kind", "student.search.algorithm"),
        ("student.search.synch=false", "student.search.synch", "student.search.synchronous"),
        ("student.search.repeats=2", "student.search.repeats", "student.search.replicates"),
        ("student.search.seed=2", "student.search.seed", "seed"),
        ("student.search.algorithm=asha", "student.search.algorithm: asha", "algorithm: successive_halving"),
        ("student.search.kind=choice", "student.search.kind: choice", "algorithm: grid"),
        ("student.search.algorithm=tpe+asha", "tpe+asha", "algorithm: tpe with early_stopping: asha"),
        ("student.distill.view=distinct", "student.distill.view", "student.distill.teacher_view"),
        ("student.distill.loss={hint: {normalisation: none}}", "loss.hint.normalisation", "loss.hint.normalization"),
    ],
)
def test_a_key_of_an_older_version_names_the_new_one(tmp_path, override, old, new):
    with pytest.raises(RequestError) as refusal:
        load(tmp_path, MINIMAL, override)
    line = str(refusal.value)
    assert f"{old} must be written as " in line and line.endswith(new) and "\n" not in line


def test_the_configuration_imports_neither_ray_nor_mlflow_nor_optuna(tmp_path):
    (tmp_path / "s.yaml").write_text(MINIMAL)
    names = "ray", "mlflow", "optuna", "scipy", "sklearn", "pandas", "matplotlib"
    code = f"""import sys
from search.config.schema import SweepConfig
from search.config.catalog import settings
for algorithm in {sorted(TAKEN)}:
    SweepConfig.load({str(tmp_path / "s.yaml")!r}, ["student.search.algorithm=" + algorithm]).to_yaml()
settings()
print(sorted({set(names)!r} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("override", ["name", "=3", "data.name.x=1"])
def test_a_broken_override_is_refused(tmp_path, override):
    with pytest.raises(RequestError, match="--set"):
        load(tmp_path, MINIMAL, override)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "just words", "data: {name: digits}\ndata: {name: mnist}\n"])
def test_what_is_no_sweep_file_is_refused(tmp_path, text):
    with pytest.raises(RequestError):
        load(tmp_path, text)


def test_a_key_that_stands_twice_names_its_line(tmp_path):
    with pytest.raises(RequestError, match=r"a key must be unique in its section, got 'name'; see line 3"):
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
