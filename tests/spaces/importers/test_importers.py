"""Readers of schedules made elsewhere: the winner's true history, clear refusals, and the nearest level."""

import json
import math
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spaces import OPERATIONS, Entry, Genome, ImageSpec, Policy, RequestError, Schedule, Space
from spaces.importers import IMAGE, READERS, read_schedule
from spaces.importers.autoaugment import level_effect
from spaces.importers.pba import SOURCE_ORDER, genome_from_numbers
from spaces.importers.pbt_log import MAX_FILE_BYTES, MAX_LINE_CHARACTERS
from spaces.operations.geometry import MATRICES
from spaces.operations.tone import enhancement_factors

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Writes a file and returns its path, always the same one."""
    path = tmp_path_factory.mktemp("readers") / "pbt_policy_0.txt"

    def write(content):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def numbers(seed=0):
    generator = np.random.default_rng(seed)
    return [int(generator.integers(0, 11 - place % 2)) for place in range(60)]


def genome(values, order=tuple(OPERATIONS)):
    """PBA's reading of 60 numbers, written down once more: two halves, each operation's two numbers side by side."""
    entries = []
    for copy in (values[:30], values[30:]):
        entries += [Entry(op, copy[2 * place], copy[2 * place + 1]) for place, op in enumerate(order)]
    return Genome(Policy(tuple(entries)))


# ---- a population whose true history is known ------------------------------------------------------


class PBTScheduler:
    """Trials that train in a random order and copy each other, and the files that Ray would have written.

    Args:
        folder: where the files go.
        wrap: makes 60 numbers a config.
        write: (config list) → a line's text; None: Ray's own function writes.
    """

    def __init__(self, folder, seed, wrap, write):
        self.folder, self.wrap, self.write = folder, wrap, write
        self.generator = np.random.default_rng(seed)
        self.epochs = 30
        self.trials = [SimpleNamespace(name=str(i), numbers=[0] * 60, history=[]) for i in range(6)]

    def run(self):
        while any(len(trial.history) < self.epochs for trial in self.trials):
            trial = self.trials[self.generator.integers(len(self.trials))]
            donor = self.trials[self.generator.integers(len(self.trials))]
            if trial is not donor and self.generator.random() < 0.08:
                self.copy(trial, donor)
            elif len(trial.history) < self.epochs:
                trial.history.append(trial.numbers)
        return self

    def copy(self, target, donor):
        new = self.explore(donor.numbers)
        line = [
            target.name,
            donor.name,
            len(target.history),
            len(donor.history),
            self.wrap(donor.numbers),
            self.wrap(new),
        ]
        if self.write is None:
            self.ray_writes(line)
        else:
            mine, theirs = self.file(target), self.file(donor)
            before = theirs if theirs.exists() else mine
            mine.write_text((before.read_text() if before.exists() else "") + self.write(line) + "\n")
        target.numbers, target.history = new, list(donor.history)

    def ray_writes(self, line):
        scheduler = pytest.importorskip("ray.tune.schedulers").PopulationBasedTraining
        target, clone, at, clone_at, old, new = line

        def trial(name, epoch, config):
            return SimpleNamespace(
                trial_id=name,
                local_dir=str(self.folder),
                local_experiment_path=str(self.folder),
                last_result={"training_iteration": epoch},
                config=config,
            )

        states = (SimpleNamespace(orig_tag=target), SimpleNamespace(orig_tag=clone))
        scheduler._log_config_on_step(None, *states, trial(target, at, {}), trial(clone, clone_at, old), new)

    def explore(self, values):
        steps = self.generator.integers(-3, 4, len(values))
        return [int(np.clip(v + s, 0, 10 - i % 2)) for i, (v, s) in enumerate(zip(values, steps, strict=True))]

    def file(self, trial):
        return self.folder / f"pbt_policy_{trial.name}.txt"

    def files(self):
        return [(self.file(trial), trial) for trial in self.trials if self.file(trial).exists()]


def as_object(values):
    """A config as role-kd's files hold it: the numbers among other things."""
    return {"model_name": "ResNet18", "no_aug": False, "train_dir": None, "hp_policy": values, "lr": 1e-3}


def as_genome(values):
    return {"lr": math.nan, "genome": genome(values).to_json()}


FORMATS = {
    "pba's own": ("pba", list, repr),
    "pba's, objects": ("pba", as_object, repr),
    "role-kd's": ("pba", as_object, json.dumps),
    "ray's, numbers": ("ray", as_object, None),
    "ray's, genomes": ("ray", as_genome, None),
}


@pytest.mark.parametrize("layout", FORMATS)
def test_the_schedule_is_what_the_trial_was_trained_with(layout, tmp_path):
    kind, wrap, write = FORMATS[layout]
    seen = Counter()
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        population = PBTScheduler(folder, seed, wrap, write).run()
        for path, trial in population.files():
            schedule = read_schedule(kind, path, epochs=population.epochs)
            assert [schedule.at(epoch) for epoch in range(schedule.epochs)] == [genome(v) for v in trial.history]
            assert schedule.epochs == population.epochs
            lines = schedule.provenance["lines"] + schedule.provenance["stale_lines"]
            assert lines == len(path.read_text().splitlines())
            seen["files"] += 1
            seen["stale"] += schedule.provenance["stale_lines"] > 0
            seen["long"] += len(schedule.phases) > 4
    assert min(seen["files"], seen["stale"], seen["long"]) >= 3, seen


def test_rays_own_replay_reads_the_same(tmp_path):
    replay = pytest.importorskip("ray.tune.schedulers").PopulationBasedTrainingReplay
    for path, _ in PBTScheduler(tmp_path, 7, as_object, None).run().files():
        theirs = replay(str(path))
        genomes = {0: theirs.config} | dict(theirs._policy)  # of copies at the same epoch the last one
        schedule = read_schedule("ray", path, epochs=30)
        for epoch in range(30):
            in_force = max(start for start in genomes if start <= epoch)
            assert schedule.at(epoch) == genome(genomes[in_force]["hp_policy"])


# ---- lines by hand ---------------------------------------------------------------------------------


def line(target="1", clone="2", at=3, clone_at=4, old=None, new=None, write=repr):
    """One line; configs are given by the seed of their numbers."""
    return write([target, clone, at, clone_at, numbers(old or 0), numbers(new or 1)]) + "\n"


def phases(schedule):
    return [(phase.epochs, phase.genome) for phase in schedule.phases]


def test_one_copy_makes_two_phases(file):
    schedule = read_schedule("pba", file(line()), epochs=10, role="teacher")
    assert phases(schedule) == [(4, genome(numbers(0))), (6, genome(numbers(1)))]
    assert (schedule.role, schedule.image) == ("teacher", IMAGE)
    assert schedule.provenance == {"reader": "pba", "file": "pbt_policy_0.txt", "lines": 1, "stale_lines": 0}
    assert Schedule.loads(schedule.dumps()) == schedule
    assert len(schedule.phases[0].genome.policy) == len(Space().zero().policy) == 30
    assert [e.op for e in schedule.at(0).policy] == [e.op for e in Space().zero().policy]


def test_the_lines_before_the_last_break_are_stale(file):
    stale = line("1", "5", 1, 2, 7, 8) + line("9", "1", 2, 2, 8, 9) + line("1", "6", 3, 5, 7, 8)
    valid = line("2", "3", 6, 4, 0, 1) + line("1", "2", 8, 9, 1, 2)
    schedule = read_schedule("pba", file(stale + valid), epochs=12)
    assert phases(schedule) == [(4, genome(numbers(0))), (5, genome(numbers(1))), (3, genome(numbers(2)))]
    assert schedule.provenance["lines"] == 2 and schedule.provenance["stale_lines"] == 3


def test_epochs_that_go_backwards_break_the_chain(file):
    content = line("2", "3", 9, 8, 5, 6) + line("1", "2", 8, 7, 0, 1)
    schedule = read_schedule("pba", file(content), epochs=9)
    assert phases(schedule) == [(7, genome(numbers(0))), (2, genome(numbers(1)))]
    assert schedule.provenance["stale_lines"] == 1


def test_phases_of_no_epochs_vanish_and_equal_neighbors_merge(file):
    content = (
        line("2", "3", 0, 0, 0, 1) + line("4", "2", 3, 3, 1, 2) + line("5", "4", 3, 3, 2, 1) + line("1", "5", 6, 6)
    )
    schedule = read_schedule("pba", file(content), epochs=6)
    assert phases(schedule) == [(6, genome(numbers(1)))]


def test_the_targets_own_epoch_does_not_count(file):
    one, two, three = (read_schedule("pba", file(line(at=at)), epochs=10) for at in (0, 4, 10**6))
    assert one == two == three


@pytest.mark.parametrize("kind", ["pba", "ray"])
def test_blank_lines_and_foreign_line_ends(kind, file):
    config = as_object(numbers(3))
    text = json.dumps(["1", "2", 3, 4, config, config])
    for content in (text, f"\n{text}\n\n", f"{text}\r\n", f"  {text}  \n \t\n"):
        assert phases(read_schedule(kind, file(content), epochs=9)) == [(9, genome(numbers(3)))]


def test_ray_prefers_names_to_numbers(file):
    named = Genome(Policy((Entry("Cutout", 3, 4),)))
    config = {"hp_policy": numbers(1), "genome": named.to_json()}
    schedule = read_schedule("ray", file(json.dumps(["1", "2", 3, 4, config, config])), epochs=5)
    assert phases(schedule) == [(5, named)]
    assert phases(read_schedule("pba", file(json.dumps(["1", "2", 3, 4, config, config])), epochs=5)) == [
        (5, genome(numbers(1)))
    ]


def test_the_images_are_the_callers():
    image = ImageSpec(28, 1, (33,))
    assert read_schedule("autoaugment", "svhn", epochs=3, image=image).image == image


# ---- the order of operations -----------------------------------------------------------------------


def python_2_keys(names):
    """The keys of `{name: … for name in names}` as 64-bit Python 2.7 lists them (dictobject.c, stringobject.c)."""
    mask = 2**64 - 1

    def hashed(name):
        value = ord(name[0]) << 7
        for character in name:
            value = (1000003 * value & mask) ^ ord(character)
        return value ^ len(name)

    def insert(table, name):
        slot = perturb = hashed(name)
        while table[slot % len(table)] is not None:
            slot = 5 * slot + perturb + 1 & mask
            perturb >>= 5
        table[slot % len(table)] = name

    table = [None] * 8
    for count, name in enumerate(names, 1):
        insert(table, name)
        if 3 * count >= 2 * len(table):
            size = 8
            while size <= 4 * count:
                size *= 2
            table, old = [None] * size, table
            for key in filter(None, old):
                insert(table, key)
    return tuple(filter(None, table))


def test_the_default_order_is_how_python_2_lists_the_other():
    assert python_2_keys(SOURCE_ORDER) == tuple(OPERATIONS)


def test_another_order(file):
    schedule = read_schedule("pba", file(line(new=5)), epochs=5, operations=SOURCE_ORDER)
    assert schedule.at(4) == genome(numbers(5), SOURCE_ORDER)
    assert schedule.provenance["operations"] == list(SOURCE_ORDER)
    assert read_schedule("pba", file(line(new=5)), epochs=5, operations=list(OPERATIONS)).at(4) == genome(numbers(5))


def test_fewer_operations_have_fewer_numbers():
    found = genome_from_numbers([1, 2, 3, 4, 5, 6, 7, 8], ("Cutout", "Rotate"))
    assert found.policy.entries == (
        Entry("Cutout", 1, 2),
        Entry("Rotate", 3, 4),
        Entry("Cutout", 5, 6),
        Entry("Rotate", 7, 8),
    )


@pytest.mark.parametrize("operations", [[], ["Rotate", "Rotate"], ["Rotat"], "Rotate", [3], [*SOURCE_ORDER, "Rotate"]])
def test_an_order_that_is_none(operations, file):
    with pytest.raises(RequestError):
        read_schedule("pba", file(line()), epochs=5, operations=operations)


# ---- refusals --------------------------------------------------------------------------------------


def refusal(kind, path, epochs=10, **options):
    with pytest.raises(RequestError) as error:
        read_schedule(kind, path, epochs=epochs, **options)
    (text,) = str(error.value).splitlines()
    assert len(text) < 600 + len(str(path))
    return text.removeprefix(str(path))


def replaced(place, value):
    """A line with the given value in one place; its text, not its repr."""
    parts = [repr(part) for part in ("1", "2", 3, 4, numbers(0), numbers(1))]
    parts[place] = value
    return f"[{', '.join(parts)}]"


def with_number(value, place=0):
    return replaced(5, "[" + ", ".join([value if i == place else "1" for i in range(60)]) + "]")


BROKEN = {
    "no line": ("\n\n", " must have at least one line; a trial that never copied another has no log"),
    "no literal": ("hello", ", line 1: a line must be JSON or a Python literal, got 'hello'"),
    "code": ("__import__('os').getcwd()", ", line 1: a line must be JSON or a Python literal, got"),
    "cut off": (line() + line()[:100], ", line 2: a line must be JSON or a Python literal"),
    "no list": ("{'a': 1}", ", line 1: a line must be a list [target, clone,"),
    "too few parts": ("['1', '2', 3, 4, []]", ", line 1: a line must be a list"),
    "no names": (replaced(1, "2"), ", line 1: target and clone must be strings, got ['1', 2]"),
    "negative epoch": (
        replaced(3, "-1"),
        ", line 1: the epochs of target and clone must be integers >= 0, got [3, -1]",
    ),
    "half epoch": (
        replaced(3, "4.0"),
        ", line 1: the epochs of target and clone must be integers >= 0, got [3, 4.0]",
    ),
    "true epoch": (
        replaced(3, "True"),
        ", line 1: the epochs of target and clone must be integers >= 0, got [3, True]",
    ),
    "no epoch": (replaced(2, "'x'"), ", line 1: the epochs of target and clone must be integers >= 0, got"),
    "late copy": (line() + line("3", "1", 5, 11), ", line 2: the epoch of the last copy must be <= 10, the epochs"),
    "huge epoch": (replaced(3, "0x" + "f" * 9999), ", line 1: the epoch of the last copy must be <= 10, the epochs"),
    "59 numbers": (
        replaced(5, str([1] * 59)),
        ", line 1: hp_policy must have 60 numbers, a probability and a magnitude per",
    ),
    "61 numbers": (
        replaced(4, str([1] * 61)),
        ", line 1: hp_policy must have 60 numbers, a probability and a magnitude per",
    ),
    "no numbers": (replaced(4, "'" + "1" * 60 + "'"), ", line 1: hp_policy must be a list of 60 numbers, got '111"),
    "another object": (
        replaced(5, "{'lr': 1, 'policy': []}"),
        ", line 1: a config must have the key hp_policy, got ['lr', 'policy']",
    ),
    "a huge key": (
        replaced(5, "{0x" + "f" * 9999 + ": 1}"),
        ", line 1: a config must have the key hp_policy, got a value",
    ),
    "probability 11": (
        with_number("11"),
        ", line 1: the probability of Rotate must be an integer from 0 to 10, got",
    ),
    "magnitude 10": (with_number("10", 59), ", line 1: the magnitude of Contrast must be an integer from 0 to 9, got"),
    "true": (with_number("True"), ", line 1: the probability of Rotate must be an integer from 0 to 10, got True"),
    "a half": (with_number("0.5"), ", line 1: the probability of Rotate must be an integer from 0 to 10, got 0.5"),
    "none": (with_number("None"), ", line 1: the probability of Rotate must be an integer from 0 to 10, got None"),
    "huge number": (with_number("0x" + "f" * 9999), ", line 1: the probability of Rotate must be an integer from 0"),
    "many digits": (with_number("9" * 9999), ", line 1: a line must be JSON or a Python literal"),
    "unhashable": ("{[]: 1}", ", line 1: a line must be JSON or a Python literal"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_named_with_its_line(fault, file):
    content, text = BROKEN[fault]
    assert refusal("pba", file(content)).startswith(text)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "1e3", "true", "null"])
def test_json_numbers_that_are_not_whole(constant, file):
    text = with_number(constant).replace("'", '"')
    assert refusal("pba", file(text)).startswith(", line 1: the probability of Rotate must be an integer from 0 to 10")


def test_ray_names_the_keys_that_it_found(file):
    content = json.dumps(["0_lr=1", "1", 2, 3, {"lr": 1, "momentum": 2}, {}])
    text = ", line 1: a config must be an object with the key genome or hp_policy, got ['lr', 'momentum']"
    assert refusal("ray", file(content)) == text
    assert refusal("ray", file(line().replace("'", '"'))).startswith(
        ", line 1: a config must be an object with the key"
    )
    assert refusal("ray", file(line())).startswith(", line 1: a line must be JSON, got \"['1', ")
    broken = {"genome": {"policy": [{"op": "Rotat", "probability": 1, "magnitude": 1}]}}
    text = ", line 1: unknown operation 'Rotat'; did you mean 'Rotate'?"
    assert refusal("ray", file(json.dumps(["0", "1", 2, 3, broken, broken]))) == text


@pytest.mark.parametrize("kind", ["pba", "ray"])
def test_what_is_no_file_of_copies(kind, tmp_path, file):
    assert "cannot read the PBT log" in refusal(kind, tmp_path / "absent.txt")
    assert "cannot read the PBT log" in refusal(kind, tmp_path)
    assert "cannot read the PBT log" in refusal(kind, "a\0b")
    assert refusal(kind, file(b"")).startswith(" must have at least one line")
    assert "a PBT log must be UTF-8 text" in refusal(kind, file(line().encode("utf-16")))
    assert "a PBT log must be UTF-8 text" in refusal(kind, file(bytes(range(256))))
    assert ", line 1: a line must be JSON" in refusal(kind, file(line().encode("utf-16-le")))
    assert refusal(kind, file("0," * (MAX_LINE_CHARACTERS // 2) + "0")).startswith(
        ", line 1: a line must have at most 262144 characters"
    )
    assert refusal(kind, file(b"\n" * (MAX_FILE_BYTES + 1))).startswith(": a PBT log must have at most 16777216 bytes")
    assert "must be the log of one trial, not of all; pass pbt_policy" in refusal(kind, tmp_path / "pbt_global.txt")


@pytest.mark.parametrize("size", [1000, 10**5, MAX_LINE_CHARACTERS])
@pytest.mark.parametrize("kind", ["pba", "ray"])
def test_deep_and_long_lines(kind, size, file):
    """What is known to trouble Python's parser: each ends in one line, and none in a crash."""
    for text in (
        "[" * (size // 2) + "]" * (size // 2),
        '{"a":' * (size // 6) + "1" + "}" * (size // 6),
        "[" * size,
        "-" * (size - 1) + "1",
        "1" + "+1" * (size // 2 - 1),
        "0," * (size // 2),
        "not " * (size // 4 - 1) + "1",
        "1" * size,
        "\0" * size,
    ):
        assert refusal(kind, file(text)).startswith(", line 1: a line must")
        assert refusal(kind, file(replaced(4, text))).startswith(", line 1: ")


@pytest.mark.parametrize("epochs", [0, -1, True, 2.0, "3", None, math.nan])
@pytest.mark.parametrize("kind", READERS)
def test_epochs_that_are_none(kind, epochs, file):
    source = "svhn" if kind == "autoaugment" else file(line())
    with pytest.raises(RequestError, match=r"^the epochs of a schedule must be an integer >= 1, got "):
        read_schedule(kind, source, epochs=epochs)


def test_unknown_names_name_the_nearest(file):
    path = file(line())
    assert refusal("pbaa", path) == "unknown reader 'pbaa'; did you mean 'pba'?"
    assert refusal("optuna", path) == "unknown reader 'optuna'; known: autoaugment, pba, ray"
    assert refusal("pba", path, role="studnet") == "unknown role 'studnet'; did you mean 'student'?"
    assert refusal("autoaugment", "cifar") == "unknown AutoAugment table 'cifar'; did you mean 'cifar10'?"
    assert refusal("autoaugment", "svhn", operations=SOURCE_ORDER).startswith(
        "operations must not be given for an AutoAugment table"
    )


@pytest.mark.parametrize("depth", [10, 300, 900])
def test_genomes_are_no_more_trusted_than_in_a_policy_file(depth, file):
    """Neither names to import nor endless nesting come in, and nothing is imported."""
    for inner in ('"antigravity.fly"', '"identity"'):
        nested = '{"kind": "pick", "base": ' * depth + inner + "}" * depth
        for augment in (inner, nested):
            config = f'{{"genome": {{"policy": [], "augment": {augment}}}}}'
            read_or_refused("ray", file(f'["1", "2", 3, 4, {config}, {config}]'), 9)
    config = {"genome": {"policy": [], "augment": {"kind": "antigravity.fly"}}}
    assert refusal("ray", file(json.dumps(["1", "2", 3, 4, config, config])))
    assert "antigravity" not in sys.modules


# ---- any file at all -------------------------------------------------------------------------------


def read_or_refused(kind, path, epochs):
    """A schedule that can be written and read again, or one line that names the file."""
    try:
        schedule = read_schedule(kind, path, epochs=epochs)
    except RequestError as error:
        (text,) = str(error).splitlines()
        assert str(path) in text
        assert len(text) < 600 + len(str(path))
        return
    assert schedule.epochs == epochs
    assert all(one.genome != two.genome for one, two in zip(schedule.phases, schedule.phases[1:], strict=False))
    assert Schedule.loads(schedule.dumps()) == schedule


kinds = st.sampled_from(["pba", "ray"])
GOOD = {
    "pba": line("2", "3", 4, 5, 0, 1) + line("1", "2", 6, 7, 1, 2),
    "ray": "".join(
        json.dumps(["1", "2", 3, 4, as_object(numbers(i)), as_genome(numbers(i + 1))]) + "\n" for i in (1, 3)
    ),
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([11, 10, -1, 10**400, "1", "2"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["hp_policy", "genome", "a"]), inner),
    max_leaves=6,
)


@given(kinds, st.binary(max_size=200) | st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@quick
def test_any_bytes(file, kind, content):
    read_or_refused(kind, file(content), 9)


@given(kinds, st.data())
@quick
def test_a_damaged_file(file, kind, data):
    """Some characters of a good file are replaced, doubled or lost."""
    content = GOOD[kind]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 20)))
        filling = data.draw(
            st.sampled_from(
                ["", "'", '"', ",", "]", "[", "\n", "-", "1", ".", "e9", "True", "NaN", "\0", "{", "\ufeff"]
            )
        )
        content = content[:start] + filling + content[data.draw(st.sampled_from([start, end])) :]
    read_or_refused(kind, file(content), data.draw(st.integers(1, 12)))


@given(kinds, st.lists(st.tuples(st.integers(0, 65), values), max_size=3), st.sampled_from([repr, json.dumps]))
@example("pba", [(7, True)], repr)
@example("ray", [(3, math.nan)], json.dumps)
@quick
def test_other_values_in_a_good_line(file, kind, changes, write):
    """Places 0 … 5 are the line's, the others the new config's numbers."""
    new = numbers(1)
    parts = ["1", "2", 3, 4, as_object(numbers(0)), as_object(new)]
    for place, value in changes:
        if place < 6:
            parts[place] = value
        else:
            new[place - 6] = value
    read_or_refused(kind, file(write(parts)), 9)


# ---- AutoAugment -----------------------------------------------------------------------------------


def autoaugment(table, **options):
    (phase,) = read_schedule("autoaugment", table, epochs=7, **options).phases
    assert phase.epochs == 7
    return list(phase.genome.policy)


@pytest.mark.parametrize("table", ["imagenet", "cifar10", "svhn"])
def test_fifty_entries_with_the_tables_names_and_probabilities(table):
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    theirs = [part for pair in AutoAugment(AutoAugmentPolicy(table)).policies for part in pair]
    ours = autoaugment(table)
    assert len(ours) == 50
    assert [(entry.op, entry.probability / 10) for entry in ours] == [(op, p) for op, p, _ in theirs]
    assert all(entry.magnitude == 0 for entry, (_, _, m) in zip(ours, theirs, strict=True) if m is None)
    schedule = read_schedule("autoaugment", table, epochs=7)
    assert schedule.provenance["reader"] == "autoaugment" and schedule.provenance["table"] == table
    assert "pairing and order are lost" in schedule.provenance["approximation"]
    assert Schedule.loads(schedule.dumps()) == schedule


def test_levels_by_hand():
    """CIFAR-10's first sub-policies at 32 px, worked out from torchvision's ranges."""
    expected = [
        ("Invert", 1, 0),
        ("Contrast", 2, 8),  # 1 + 0.6 = 1.6; 0.1 + 0.18 * 8 = 1.54
        ("Rotate", 7, 2),  # 6.67 degrees; 6
        ("TranslateX", 3, 9),  # 14 px; 9, the most there is
        ("Sharpness", 8, 6),  # 1.1; 1.18
        ("Sharpness", 9, 3),  # the second one takes the other sign: 0.7; 0.64
        ("ShearY", 5, 9),  # 0.267; 0.27
        ("TranslateY", 7, 9),
        ("AutoContrast", 5, 0),
        ("Equalize", 9, 0),
        ("ShearY", 2, 8),  # 0.233; 0.24
        ("Posterize", 3, 0),  # 5 bits; 4, the most there is
    ]
    assert [(entry.op, entry.probability, entry.magnitude) for entry in autoaugment("cifar10")[:12]] == expected
    solarize = [entry.magnitude for entry in autoaugment("imagenet") if entry.op == "Solarize"]
    assert solarize == [6, 4, 3, 9, 8, 4, 6]  # from 114, 142, 170, 29, 57, 142, 114 up


def test_translations_follow_the_image():
    """The second one: int(4.8) px of 32 are those of level 4; int(33.8) px of 224 are nearest to level 5, 35 px."""
    small = [entry.magnitude for entry in autoaugment("cifar10") if entry.op == "TranslateY"]
    image = ImageSpec(224, 3, (0, 0, 0))
    large = [entry.magnitude for entry in autoaugment("cifar10", image=image) if entry.op == "TranslateY"]
    assert small == [9, 4, 9, 9, 9] and large == [9, 5, 9, 9, 9]
    assert all(entry.magnitude < 10 for entry in autoaugment("svhn", image=ImageSpec(1, 1, (0,))))


def test_the_effects_are_those_of_the_operations():
    levels = torch.arange(10)
    plus = torch.ones_like(levels)
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(10, 1, 16, 16)
    unused = (plus, torch.zeros(10, 2), torch.zeros(1, dtype=torch.uint8))

    def effects(op, side=32):
        return torch.tensor([float(level_effect(op, level, side)) for level in range(10)])

    for op in ("Brightness", "Color", "Contrast", "Sharpness"):
        torch.testing.assert_close(effects(op), enhancement_factors(levels))
    kept = OPERATIONS["Posterize"](ramp, levels, *unused).flatten(1)
    assert [math.log2(len(row.unique())) for row in kept] == effects("Posterize").tolist()
    turned = OPERATIONS["Solarize"](ramp, levels, *unused).flatten(1)
    assert (turned == ramp.flatten(1)).sum(1).tolist() == effects("Solarize").tolist()
    angles = torch.rad2deg(torch.acos(MATRICES["Rotate"](levels, plus, 32, 32)[:, 0]))
    torch.testing.assert_close(angles.float(), effects("Rotate"), atol=1e-3, rtol=0)
    for op, column in (("ShearX", 1), ("ShearY", 3), ("TranslateX", 2), ("TranslateY", 5)):
        for side in (32, 50):
            found = MATRICES[op](levels, plus, side, side)[:, column]
            torch.testing.assert_close(found.float(), effects(op, side))
