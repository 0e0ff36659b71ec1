"""The policy file: the same bytes for the same schedule, a schema that agrees with the code, and clear refusals."""

import copy
import json
import math
import os
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import spaces.schedule.schedule
from spaces import OPERATIONS, Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, Space
from spaces.augmentations import CATALOG, augmentation
from spaces.operations import LEVELS
from spaces.policy.policy import TENTHS
from spaces.schedule.schedule import ROLES
from spaces.schedule.serialization import FORMAT, VERSION, policy_schema, validate_policy

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

SMALL = Schedule(
    (
        Phase(57, Genome(Policy((Entry("Rotate", 3, 4), Entry("Invert", 0, 9))))),
        Phase(1, Genome()),
    ),
    "student",
    ImageSpec(32, 3, (125, 122, 113)),
    {"sweep": "digits", "run": "ünï", "metric": {"value": 0.5, "name": "accuracy"}, "parents": []},
)
SMALL_TEXT = """\
{
  "format": "roletune.policy",
  "version": 1,
  "role": "student",
  "image": {"size": 32, "channels": 3, "fill": [125, 122, 113]},
  "schedule": [
    {"epochs": 57, "genome": {"policy": [
      {"op": "Rotate", "probability": 3, "magnitude": 4},
      {"op": "Invert", "probability": 0, "magnitude": 9}
    ]}},
    {"epochs": 1, "genome": {"policy": []}}
  ],
  "provenance": {
    "metric": {
      "name": "accuracy",
      "value": 0.5
    },
    "parents": [],
    "run": "ünï",
    "sweep": "digits"
  }
}
"""

CUTMIX = {"kind": "cutmix", "draw": "sample", "alpha": 1.0}
VIEW_TEXT = SMALL_TEXT.replace('"policy": []', f'"policy": [], "augment": {json.dumps(CUTMIX)}').replace(
    "    ]}},\n", f'    ], "augment": {json.dumps(augmentation("cutmixpick").to_json())}}}}},\n'
)

entries = st.builds(Entry, st.sampled_from(list(OPERATIONS)), st.integers(0, 10), st.integers(0, 9))
views = st.sampled_from(["identity", *CATALOG, {"kind": "cutout", "side": 0.25}, {"kind": "pick", "base": "flip"}])
genomes = st.builds(
    Genome, st.lists(entries, max_size=5).map(lambda found: Policy(tuple(found))), views.map(augmentation)
)
images = st.sampled_from([1, 3]).flatmap(
    lambda channels: st.builds(
        ImageSpec, st.integers(1, 512), st.just(channels), st.tuples(*[st.integers(0, 255)] * channels)
    )
)
good_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
provenances = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        good_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_size=4,
)
schedules = st.builds(
    Schedule,
    st.lists(st.builds(Phase, st.integers(1, 10**6), genomes), min_size=1, max_size=5).map(tuple),
    st.sampled_from(ROLES),
    images,
    provenances,
)

near_misses = st.sampled_from(
    [-1, 0, 1, 2, 3, 9, 10, 11, 255, 256, 1.0, 3.0, 0.5, True, False, None, 10**400, "Rotate", "rotate", "student", "3"]
) | st.sampled_from([[], {}, [[]], [1], [1, 2, 3], {"op": "Rotate"}, math.inf, math.nan, "\ud800", "\n", ""])
known_keys = st.sampled_from(
    ["format", "version", "role", "image", "schedule", "genome", "policy", "op", "mix", "fill", "augment", "kind"]
)
any_json = st.recursive(
    near_misses | good_leaves | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(known_keys | st.text(st.characters()), inner, max_size=4)
    ),
    max_leaves=12,
)


def document():
    return json.loads(SMALL_TEXT)


def replaced(*path, value):
    """The small document with one value in another's place."""
    changed = document()
    *way, last = path
    node = changed
    for key in way:
        node = node[key]
    node[last] = value
    return changed


@st.composite
def damaged(draw):
    """The small document, with second views or without, and one to three values replaced, removed or added."""
    changed = json.loads(draw(st.sampled_from([SMALL_TEXT, VIEW_TEXT])))
    for _ in range(draw(st.integers(1, 3))):
        node, key = changed, draw(st.sampled_from(list(changed))) if changed else None
        while key is not None and isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
            node = node[key]
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        action = draw(st.sampled_from(["replace", "remove", "add"])) if key is not None else "add"
        if action == "replace":
            node[key] = copy.deepcopy(draw(near_misses | any_json))  # what is sampled is shared
        elif action == "remove":
            del node[key]
        elif isinstance(node, dict):
            node[draw(known_keys | st.text())] = copy.deepcopy(draw(any_json))
        else:
            node.append(copy.deepcopy(draw(near_misses | any_json)))
    return changed


def refusal(text):
    with pytest.raises(RequestError) as error:
        Schedule.loads(text)
    (line,) = str(error.value).splitlines()
    assert len(line) < 600
    return line


def loaded_or_refused(text):
    """A schedule that can be written again, or one line; any other exception fails the test."""
    try:
        schedule = Schedule.loads(text, "the file")
    except RequestError as error:
        (line,) = str(error).splitlines()
        assert line.startswith("the file")
        assert len(line) < 600
        return None
    again = Schedule.loads(schedule.dumps())
    assert again == schedule
    assert again.dumps() == schedule.dumps()
    schedule.dumps().encode()
    return schedule


# ---- the text --------------------------------------------------------------------------------------


def test_the_whole_text_of_a_small_schedule():
    assert SMALL.dumps() == SMALL_TEXT
    assert Schedule.loads(SMALL_TEXT) == SMALL
    assert Schedule.loads(SMALL_TEXT).provenance == SMALL.provenance


def test_a_second_view_stands_after_its_policy():
    genomes = [phase.genome for phase in SMALL.phases]
    viewed = [Genome(genomes[0].policy, augmentation("cutmixpick")), Genome(genomes[1].policy, augmentation("cutmix"))]
    schedule = Schedule((Phase(57, viewed[0]), Phase(1, viewed[1])), "student", SMALL.image, SMALL.provenance)
    assert schedule.dumps() == VIEW_TEXT
    assert Schedule.loads(VIEW_TEXT) == schedule != SMALL
    assert '    {"epochs": 1, "genome": {"policy": [], "augment": {"kind": "cutmix", "draw": "sample", ' in VIEW_TEXT


def test_chosen_bits_stand_in_the_text():
    genome = Genome(distill={"loss": "kd"}, bits={"weights": 2, "activations": 4})
    schedule = Schedule((Phase(3, genome),), "student", SMALL.image)
    rest = '"distill": {"loss": "kd"}, "bits": {"weights": 2, "activations": 4}'
    assert f'    {{"epochs": 3, "genome": {{"policy": [], {rest}}}}}' in schedule.dumps()
    assert Schedule.loads(schedule.dumps()) == schedule
    assert [phase.genome.bits for phase in schedule.stretch(7).phases] == [genome.bits]


@given(schedules)
@quick
def test_text_gives_a_schedule_back(schedule):
    text = schedule.dumps()
    again = Schedule.loads(text)
    assert again == schedule
    assert again.provenance == schedule.provenance
    assert again.dumps() == text
    assert json.loads(text) == schedule.to_json()


@given(schedules)
@quick
def test_what_is_equal_has_the_same_text(schedule):
    """Whatever the layout and the order of keys it was read from."""

    def turned(value):
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    other = Schedule.loads(json.dumps(turned(schedule.to_json()), indent=7))
    assert other.dumps() == schedule.dumps()


def test_one_entry_a_line():
    schedule = Schedule((Phase(3, Space().random(np.random.default_rng(0))),), "teacher", ImageSpec(8, 1, (0,)))
    assert sum('"op"' in line for line in schedule.dumps().splitlines()) == 30
    assert all(line.count('"op"') <= 1 for line in schedule.dumps().splitlines())


def test_whole_numbers_written_as_floats_are_refused():
    """Else equal schedules would not have equal bytes."""
    for path in (
        ("image", "size"),
        ("image", "channels"),
        ("image", "fill", 0),
        ("schedule", 0, "epochs"),
        ("schedule", 0, "genome", "policy", 0, "probability"),
        ("schedule", 0, "genome", "policy", 0, "magnitude"),
    ):
        value = document()
        for key in path:
            value = value[key]
        assert f"{value}.0" in refusal(json.dumps(replaced(*path, value=float(value))))


@pytest.mark.parametrize(
    "provenance",
    [
        {"value": math.nan},
        {"value": [-math.inf]},
        {"when": object()},
        {"run": "\ud800"},
        {1: 2, "a": 3},
        {"seed": 10**5000},
        {"seed": np.int64(3)},
    ],
)
def test_a_provenance_that_is_no_json_is_refused_when_it_is_written(provenance, tmp_path):
    schedule = Schedule(SMALL.phases, "student", SMALL.image, provenance)
    with pytest.raises(RequestError, match=r"^a policy file must be plain JSON: ") as error:
        schedule.save(tmp_path / "policy.json")
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_provenance_of_endless_lists_is_refused():
    endless, deep = [], []
    endless.append(endless)
    for _ in range(100_000):
        deep = [deep]
    for lists in (endless, deep):
        with pytest.raises(RequestError, match="plain JSON"):
            Schedule(SMALL.phases, "student", SMALL.image, {"a": lists}).dumps()
        with pytest.raises(RequestError, match="plain JSON"):
            Schedule.from_json({**document(), "provenance": {"a": lists}})


# ---- the schema agrees with the code ---------------------------------------------------------------


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(dict(policy_schema()))
    on_disk = json.loads((Path(spaces.schedule.schedule.__file__).parent / "policy.schema.json").read_text("utf-8"))
    assert dict(policy_schema()) == on_disk
    with pytest.raises(TypeError):
        policy_schema()["type"] = "array"


def test_the_schema_says_what_the_code_says():
    schema = policy_schema()
    properties, entry = schema["properties"], schema["$defs"]["entry"]["properties"]
    assert entry["op"]["enum"] == sorted(OPERATIONS)
    assert (entry["probability"]["minimum"], entry["probability"]["maximum"]) == (0, TENTHS)
    assert (entry["magnitude"]["minimum"], entry["magnitude"]["maximum"]) == (0, LEVELS - 1)
    assert properties["role"]["enum"] == list(ROLES)
    assert (properties["format"]["const"], properties["version"]["enum"]) == (FORMAT, [1, VERSION])
    assert properties["image"]["properties"]["channels"]["enum"] == [1, 3]


def test_the_schema_names_every_key_that_is_written():
    schema, written = policy_schema(), document()
    phase, genome, entry = (schema["$defs"][name] for name in ("phase", "genome", "entry"))
    for part, rule in (
        (written, schema),
        (written["image"], schema["properties"]["image"]),
        (written["schedule"][0], phase),
        (written["schedule"][0]["genome"], genome),
        (written["schedule"][0]["genome"]["policy"][0], entry),
    ):
        assert sorted(part) == sorted(rule["oneOf"][0]["required"] if rule is genome else rule["required"])
        optional = [{"scaled", "augment", "distill", "bits"}] * (rule is genome) + [{"weights"}] * (rule is schema)
        assert set(rule["properties"]) == set(part).union(*optional)
        assert rule["additionalProperties"] is False


ENTRY = ("schedule", 0, "genome", "policy", 0)


@pytest.mark.parametrize(
    ("path", "accepted", "refused"),
    [
        ((*ENTRY, "probability"), [0, 10], [-1, 11, 0.5, "3", None, True]),
        ((*ENTRY, "magnitude"), [0, 9], [-1, 10, 0.5, "3", None, True]),
        ((*ENTRY, "op"), list(OPERATIONS), ["rotate", "", 3, None]),
        (("schedule", 0, "genome", "augment"), [CUTMIX], [None, "cutmix", [], {}, {"kind": 3}, {"alpha": 1.0}]),
        (
            ("schedule", 0, "genome", "bits"),
            [{"weights": 1}, {"activations": 2}, {"weights": 4, "activations": 8}, {"activations": 32}],
            [None, 2, [2], {"weights": 3}, {"weights": "2"}, {"weights": True}, {"weights": [2]}, {"weight": 2}],
        ),
        (("schedule", 0, "epochs"), [1, 10**9], [0, -1, 0.5, "3", None, True]),
        (("image", "size"), [1, 4096], [0, -1, 0.5, "3", None, True]),
        (("image", "channels"), [3], [0, 2, 4, "3", None, True]),
        (("image", "fill"), [[0, 255, 3]], [[], [0, 0, 256], [-1, 0, 0], [0, 0, 0, 0], [0.5, 0, 0], "abc", None]),
        (("role",), list(ROLES), ["judge", "Teacher", 1, None]),
        (("schedule",), [[{"epochs": 1, "genome": {"policy": []}}]], [[], {}, None, [None]]),
        (("provenance",), [{}, {"a": [1, None]}], [None, [], "sweep"]),
    ],
)
def test_schema_and_code_draw_the_same_lines(path, accepted, refused):
    validator = jsonschema.Draft202012Validator(dict(policy_schema()))
    for value in accepted:
        changed = replaced(*path, value=value)
        assert validator.is_valid(changed)
        assert Schedule.from_json(changed).to_json() == changed
    for value in refused:
        changed = replaced(*path, value=value)
        assert not validator.is_valid(changed), value
        with pytest.raises(RequestError, match=r"^policy file, at \$\."):
            Schedule.from_json(changed)


def test_the_first_fault_is_named_by_its_place():
    line = refusal(json.dumps(replaced(*ENTRY, "probability", value=11)))
    expected = "policy file, at $.schedule[0].genome.policy[0].probability: 11 is greater than the maximum of 10"
    assert line == f"the text: {expected}"


def test_a_second_view_that_is_none_of_the_catalogs_is_refused_with_the_file_that_names_it():
    place = ("schedule", 0, "genome", "augment")
    line = refusal(json.dumps(replaced(*place, value={"kind": "cutmx"})))
    assert line == "the text: unknown augmentation 'cutmx'; did you mean 'cutmix'?"
    line = refusal(json.dumps(replaced(*place, value={**CUTMIX, "alpha": 0})))
    assert line == "the text: cutmix alpha must be a number from 0.001 to 100, got 0"
    line = refusal(json.dumps(replaced(*place, value={"kind": "os.system"})))
    assert line.startswith("the text: a policy file must not import custom code without permission")


def test_a_fill_for_another_number_of_channels():
    assert "ImageSpec.fill must have 3 integers" in refusal(json.dumps(replaced("image", "fill", value=[1])))
    assert "ImageSpec.fill must have 1 integers" in refusal(json.dumps(replaced("image", "channels", value=1)))


@pytest.mark.parametrize("key", ["format", "version", "role", "image", "schedule", "provenance"])
def test_a_missing_key(key):
    changed = document()
    del changed[key]
    assert key in refusal(json.dumps(changed))


def test_an_unknown_key():
    assert "'hard' was unexpected" in refusal(json.dumps({**document(), "hard": {}}))
    assert "'mix' was unexpected" in refusal(json.dumps(replaced("schedule", 0, "genome", "mix", value={})))


# ---- versions and other files ----------------------------------------------------------------------


@pytest.mark.parametrize("version", [3, 4, 10**400])
def test_a_newer_version(version):
    """Refused for its version, whatever else it says by then."""
    newer = {"format": FORMAT, "version": version, "phases": [], "role": "judge"}
    line = refusal(json.dumps(newer))
    assert line.startswith("the text: the version of a policy file must be <= 2 for this roletune, got ")
    assert line.endswith("; install a newer roletune")
    with pytest.raises(RequestError, match="must be <= 2 for this roletune, got"):
        validate_policy(newer)


@pytest.mark.parametrize("version", [0, -1, "1", "2", True, None, 1.5])
def test_a_version_that_never_was(version):
    assert refusal(json.dumps({**document(), "version": version})) == (
        f"the text: policy file, at $.version: {version!r} is not one of [1, 2]"
    )


@pytest.mark.parametrize(
    "other", [None, [], 3, "text", {}, {"format": "roletune.sweep"}, {"format": None}, [SMALL_TEXT]]
)
def test_another_files_content(other):
    line = refusal(json.dumps(other))
    assert line.startswith('the text: a policy file must be an object with "format": "roletune.policy", got ')


def test_every_truncation_is_refused():
    whole = SMALL_TEXT.rstrip()
    for length in range(len(whole)):
        assert refusal(whole[:length]).startswith("the text must be a policy file: ")
    assert Schedule.loads(whole) == SMALL


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("place", ['"value": 0.5', '"epochs": 57', '"size": 32', '"probability": 3'])
def test_numbers_that_json_has_not(constant, place):
    key = place.split(":")[0]
    text = SMALL_TEXT.replace(place, f"{key}: {constant}")
    assert text != SMALL_TEXT
    line = refusal(text)
    assert "e999" in constant or line.startswith(f"the text must be a policy file: {constant} is not JSON")


def test_half_a_surrogate_pair_is_refused():
    """UTF-8 could not hold it, so what was read could not be written."""
    assert "surrogates not allowed" in refusal(SMALL_TEXT.replace("ünï", "\\ud800"))
    assert Schedule.loads(SMALL_TEXT.replace("ünï", "\\ud83d\\ude00")).provenance["run"] == "😀"


@pytest.mark.parametrize("key", ["version", "epochs", "op", "sweep", "size"])
def test_a_key_that_stands_twice_is_refused(key):
    """Python would take the last one and drop the first without a word."""
    line = next(line for line in SMALL_TEXT.splitlines() if f'"{key}"' in line)
    pair = next(part for part in line.replace("{", ",").strip(" ,}").split(",") if f'"{key}"' in part).strip()
    text = SMALL_TEXT.replace(pair, f"{pair}, {pair}", 1)
    assert f"the key '{key}' occurs twice" in refusal(text)


@pytest.mark.parametrize("depth", [50, 400, 960, 980, 990, 1000, 2000, 100_000])
def test_deep_nesting(depth):
    for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        loaded_or_refused(deep)
        loaded_or_refused(SMALL_TEXT.replace('"student"', deep))
        loaded_or_refused(SMALL_TEXT.replace('"parents": []', f'"parents": {deep}'))
    refusal("[" * depth)


@pytest.mark.parametrize("digits", [19, 400, 4300, 4301, 100_000])
def test_huge_numbers(digits):
    number = "9" * digits
    for place in ('"version": 1', '"probability": 3', '"magnitude": 4', '"channels": 3'):
        refusal(SMALL_TEXT.replace(place, place.rstrip("0123456789") + number))
    for place in ('"epochs": 57', '"size": 32', '"value": 0.5'):
        loaded_or_refused(SMALL_TEXT.replace(place, f"{place.split(':')[0]}: {number}"))


def test_more_than_numbers_may_hold_is_refused_when_written():
    endless = Schedule((Phase(10**5000, Genome()),), "student", SMALL.image)
    with pytest.raises(RequestError, match="plain JSON"):
        endless.dumps()


# ---- anything --------------------------------------------------------------------------------------


@given(st.text(st.characters()) | any_json.map(json.dumps))
@example("")
@example("\ufeff" + SMALL_TEXT)
@quick
def test_any_text_is_refused_in_one_line(text):
    assert loaded_or_refused(text) is None


@given(damaged())
@settings(quick, max_examples=300)
def test_any_damaged_document_is_a_schedule_or_refused_in_one_line(changed):
    loaded_or_refused(json.dumps(changed))
    before = copy.deepcopy(changed)
    try:
        Schedule.from_json(changed)
    except RequestError as error:
        assert len(str(error).splitlines()) == 1
    assert repr(changed) == repr(before)


@given(st.integers(0, len(SMALL_TEXT) - 1), st.integers(0, 12), st.text(max_size=3) | st.sampled_from('{}[],:"01-.e\\'))
@settings(quick, max_examples=300)
def test_any_damaged_text_is_a_schedule_or_refused_in_one_line(start, length, text):
    loaded_or_refused(SMALL_TEXT[:start] + text + SMALL_TEXT[start + length :])


# ---- on disk ---------------------------------------------------------------------------------------


def test_save_and_load(tmp_path):
    place = tmp_path / "new" / "folder" / "policy.json"
    assert SMALL.save(place) == place
    assert place.read_bytes() == SMALL_TEXT.encode()
    assert Schedule.load(place) == Schedule.load(str(place)) == SMALL
    assert Schedule.load(place).save(str(tmp_path / "again.json")).read_bytes() == place.read_bytes()
    assert [path.name for path in place.parent.iterdir()] == ["policy.json"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    place = tmp_path / "policy.json"
    with pytest.raises(RequestError, match=f"^cannot read the policy file {place}: No such file"):
        Schedule.load(place)
    with pytest.raises(RequestError, match=f"^cannot read the policy file {tmp_path}: Is a directory"):
        Schedule.load(tmp_path)
    place.write_text(SMALL_TEXT[:300])
    with pytest.raises(RequestError, match=f"^{place} must be a policy file: .*; is the JSON complete"):
        Schedule.load(place)
    place.write_text("{}")
    with pytest.raises(RequestError, match=f"^{place}: a policy file must be an object"):
        Schedule.load(place)
    place.write_bytes(SMALL_TEXT.encode("latin-1"))
    with pytest.raises(RequestError, match=f"^a policy file must be UTF-8 text, got '{place}'"):
        Schedule.load(place)


OTHER = Schedule((Phase(2, Genome()),), "teacher", ImageSpec(8, 1, (0,)))


@pytest.mark.parametrize("place", ["replace", "fsync"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(place, fault, tmp_path, monkeypatch):
    path = SMALL.save(tmp_path / "policy.json")

    def fail(*_args):
        raise fault

    monkeypatch.setattr(*((Path, "replace") if place == "replace" else (os, "fsync")), fail)
    expected = RequestError if isinstance(fault, OSError) else type(fault)
    with pytest.raises(expected) as error:
        OTHER.save(path)
    if expected is RequestError:
        assert str(error.value) == f"cannot write {path}: No space left on device; choose another path"
    assert path.read_text(encoding="utf-8") == SMALL_TEXT
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_place_of_the_file(tmp_path):
    place = tmp_path / "policy.json"
    place.mkdir()
    with pytest.raises(RequestError, match=f"^cannot write {place}: Is a directory; choose another path$"):
        SMALL.save(place)
    assert list(tmp_path.iterdir()) == [place]
    assert list(place.iterdir()) == []


def test_a_schedule_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = SMALL.save(tmp_path / "policy.json")
    with pytest.raises(RequestError, match="plain JSON"):
        Schedule(SMALL.phases, "student", SMALL.image, {"value": math.nan}).save(path)
    assert path.read_text(encoding="utf-8") == SMALL_TEXT
    assert list(tmp_path.iterdir()) == [path]
