"""Domains: drawn, explored and first values belong, names are unique, and what is no domain is refused in one line."""

import copy
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from spaces import RequestError
from spaces.search_space.domain import (
    MAX_DEPTH,
    RESAMPLE_PROBABILITY,
    UniformSampler,
    check_domain,
    contains,
    draw,
    drawn_values,
    enumerate_values,
    example_values,
    explore,
    initial,
    is_constant,
)

quick = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

DISTILL = {
    "loss": [
        "kd",
        {"kd": 1, "hint": {"weight": {"low": 1, "high": 100, "log": True}, "projection": ["student", "inverted"]}},
    ],
    "temperature": {"low": 1, "high": 8},
}

seeds = st.integers(0, 2**32)
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text(max_size=2)
keys = st.sampled_from(["loss", "kd", "a.b", "a", "b", "", "[1]", "1", '"', "log"]) | st.text(max_size=3)
keys = keys.filter(lambda key: key not in ("low", "high"))


def is_range(domain):
    return isinstance(domain, dict) and "low" in domain


@st.composite
def ranges(pick):
    ends = st.integers(-50, 50) if pick(st.booleans()) else st.floats(-1e3, 1e3)
    low, high = sorted((pick(ends), pick(ends)))
    assume(low < high)
    log = {"log": pick(st.booleans())} if low > 0 else {}
    return {"low": low, "high": high, **log}


def choices(inner):
    def key(item):
        return json.dumps(item, sort_keys=True).replace(".0", "").replace("-0", "0")

    return st.lists(inner, min_size=1, max_size=4, unique_by=key)


domains = st.recursive(
    scalars | ranges(),
    lambda inner: choices(inner) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["low", "high", "log", "a"]), inner, max_size=3)
    ),
    max_leaves=10,
)


def generator(seed=0):
    return np.random.default_rng(seed)


def state(source):
    return source.bit_generator.state


def through_json(value):
    return json.loads(json.dumps(value))


class Asked:
    """Keeps the name of every question, and its bounds; `item`, if given, is the answer to every choice."""

    def __init__(self, source, item=None):
        self.inner, self.item, self.questions = UniformSampler(source), item, []

    def choice(self, name, count):
        self.questions.append((name, count))
        return self.inner.choice(name, count) if self.item is None else self.item

    def number(self, name, low, high, *, log):
        self.questions.append((name, low, high, log))
        return self.inner.number(name, low, high, log=log)

    def integer(self, name, low, high, *, log):
        self.questions.append((name, low, high, log))
        return self.inner.integer(name, low, high, log=log)


# ---- drawing ---------------------------------------------------------------------------------------


def test_the_example():
    check_domain(DISTILL, "space.distill")
    recorder = Asked(generator(1))
    seen = Counter(type(draw(DISTILL, recorder)["loss"]) for _ in range(100))
    assert set(seen) == {str, dict}
    assert set(recorder.questions) == {
        ("loss", 2),
        ("loss[1].hint.weight", 1, 100, True),
        ("loss[1].hint.projection", 2),
        ("temperature", 1, 8, False),
    }
    value = draw(DISTILL, Asked(generator(2), item=1))
    assert value["loss"]["kd"] == 1 and value["loss"]["hint"]["projection"] == "inverted"


def test_only_what_is_chosen_is_asked_for():
    domain = [{"a": {"low": 0, "high": 1}}, "b"]
    recorder = Asked(generator())
    for _ in range(20):
        recorder.questions.clear()
        value = draw(domain, recorder, "x")
        assert [name for name, *_ in recorder.questions] == (["x"] if value == "b" else ["x", "x[0].a"])


def test_names_of_places():
    domain = {"a": [[1, 2], 3], "a.b": [1, 2], "": [1, 2], 'c"]': {"low": 0.0, "high": 1.0}}
    recorder = Asked(generator(), item=0)
    draw(domain, recorder, "root")
    names = [name for name, *_ in recorder.questions]
    assert names == ["root.a", "root.a[0]", 'root["a.b"]', 'root[""]', r'root["c\"]"]']


class Given:
    """A sampler of values by name."""

    def __init__(self, values):
        self.values = values

    def choice(self, name, count):
        assert self.values[name] in range(count)
        return self.values[name]

    def number(self, name, low, high, *, log):
        assert low <= self.values[name] <= high
        return self.values[name]

    integer = number


@quick
@given(domains, seeds)
def test_a_value_is_drawn_again_from_what_its_sampler_gave(domain, seed):
    value = draw(domain, UniformSampler(np.random.default_rng(seed)))
    assert draw(domain, Given(drawn_values(domain, value, "x")), "x") == value


def test_a_value_that_cannot_be_drawn_has_no_sampler():
    assert drawn_values(DISTILL, {"loss": "rkd", "temperature": 2}, "distill") == {}


@given(domains, seeds)
@quick
def test_a_drawn_value_belongs(domain, seed):
    check_domain(domain, "domain")
    before = copy.deepcopy(domain)
    value = draw(domain, UniformSampler(generator(seed)))
    assert contains(domain, value) and contains(through_json(domain), through_json(value))
    assert contains(as_tuples(domain), value)
    assert draw(domain, UniformSampler(generator(seed))) == value
    assert draw(as_tuples(domain), UniformSampler(generator(seed))) == value
    assert domain == before


def as_tuples(domain):
    if isinstance(domain, list):
        return tuple(map(as_tuples, domain))
    return {key: as_tuples(inner) for key, inner in domain.items()} if isinstance(domain, dict) else domain


@given(domains, seeds)
@quick
def test_no_two_questions_of_one_draw_have_the_same_name(domain, seed):
    recorder, places = Asked(generator(seed)), {}
    draw(domain, recorder)
    names = [name for name, *_ in recorder.questions]
    assert len(set(names)) == len(names)
    for _ in range(10):  # and whatever is drawn, a name stands for one place
        draw(domain, recorder)
    for name, *bounds in recorder.questions:
        assert places.setdefault(name, bounds) == bounds


def test_a_value_shares_nothing_with_its_domain():
    domain = {"a": {"b": {"c": 1}}, "d": [{"e": 2}]}
    for value in (
        initial(domain),
        draw(domain, UniformSampler(generator())),
        explore(domain, initial(domain), generator()),
    ):
        value["a"]["b"]["c"] = value["d"]["e"] = 9
    shown = example_values({"a": {"b": 1}, "c": [1, 2]})
    shown[0]["a"]["b"] = 9
    assert shown[1] == {"a": {"b": 1}, "c": 2}
    assert domain == {"a": {"b": {"c": 1}}, "d": [{"e": 2}]}


def test_what_is_drawn_is_uniform():
    source, count = UniformSampler(generator(3)), 6000
    assert stats.chisquare(np.bincount([draw([0, 1, 2, 3], source) for _ in range(count)])).pvalue > 1e-3
    whole = [draw({"low": -2, "high": 3}, source) for _ in range(count)]
    assert all(type(number) is int for number in whole)
    assert stats.chisquare(np.bincount(np.array(whole) + 2)).pvalue > 1e-3
    numbers = [draw({"low": 0.5, "high": 2}, source) for _ in range(count)]
    assert all(type(number) is float for number in numbers)
    assert stats.kstest(numbers, stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3


def test_the_logarithm_is_uniform():
    source, count = UniformSampler(generator(4)), 6000
    numbers = [draw({"low": 0.01, "high": 100.0, "log": True}, source) for _ in range(count)]
    assert stats.kstest(numbers, stats.loguniform(0.01, 100).cdf).pvalue > 1e-3
    whole = Counter(draw({"low": 1, "high": 6, "log": True}, source) for _ in range(count))
    expected = [count * math.log((number + 0.5) / (number - 0.5)) / math.log(6.5 / 0.5) for number in range(1, 7)]
    assert stats.chisquare([whole[number] for number in range(1, 7)], expected).pvalue > 1e-3


# ---- belonging -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "value", "does"),
    [
        (1, 1.0, True),
        (1, True, False),
        (True, 1, False),
        (False, False, True),
        (None, None, True),
        (None, 0, False),
        ("1", 1, False),
        ("kd", ["kd"], False),
        (["kd", 3], "kd", True),
        (["kd", 3], "hint", False),
        ([], "kd", False),
        ({"low": 1, "high": 8}, 8, True),
        ({"low": 1, "high": 8}, 8.0, True),
        ({"low": 1, "high": 8}, 7.5, False),
        ({"low": 1, "high": 8}, 9, False),
        ({"low": 1, "high": 8}, True, False),
        ({"low": 1, "high": 8}, "3", False),
        ({"low": 1, "high": 8}, math.nan, False),
        ({"low": 1.0, "high": 8}, 7.5, True),
        ({"low": 1.0, "high": 8}, 8, True),
        ({"low": 1.0, "high": 8}, math.inf, False),
        ({"a": [1, 2]}, {"a": 2}, True),
        ({"a": [1, 2]}, {"a": 3}, False),
        ({"a": [1, 2]}, {}, False),
        ({"a": [1, 2]}, {"a": 1, "b": 1}, False),
        ({"a": [1, 2]}, [1], False),
        ({}, {}, True),
    ],
)
def test_belongs(domain, value, does):
    assert contains(domain, value) is does


# ---- exploring -------------------------------------------------------------------------------------


@given(domains, seeds)
@quick
def test_an_explored_value_belongs(domain, seed):
    value = draw(domain, UniformSampler(generator(seed)))
    neighbor = explore(domain, value, generator(seed + 1))
    assert contains(domain, neighbor)
    assert explore(through_json(domain), through_json(value), generator(seed + 1)) == neighbor
    assert json.dumps(neighbor)


@given(domains, domains | json_values, seeds)
@quick
def test_from_any_value_at_all(domain, value, seed):
    assert contains(domain, explore(domain, value, generator(seed)))


@given(domains, seeds)
@quick
def test_nothing_is_drawn_where_nothing_is_free(domain, seed):
    source = generator(seed)
    before = state(source)
    value = draw(domain, UniformSampler(source))
    explore(domain, value, source)
    assert (state(source) == before) == is_constant(domain)
    if is_constant(domain):
        assert enumerate_values(domain) == example_values(domain) == [value]


def shares(domain, value, count=4000, seed=5):
    source = generator(seed)
    return Counter(json.dumps(explore(domain, value, source)) for _ in range(count))


def test_a_choice_is_drawn_anew_with_probability_a_fifth():
    found, count = shares(["a", "b", "c", "d"], "b"), 4000
    expected = {"a": 0.05, "b": 0.85, "c": 0.05, "d": 0.05}
    assert stats.chisquare([found[f'"{k}"'] for k in expected], [count * p for p in expected.values()]).pvalue > 1e-3
    assert RESAMPLE_PROBABILITY == 0.2


@pytest.mark.parametrize(
    ("domain", "value", "moves"),
    [
        ({"low": 1, "high": 100}, 20, (16, 25)),
        ({"low": 1, "high": 100}, 20.0, (16, 25)),
        ({"low": 1, "high": 100}, 2, (1, 3)),  # 1.6 and 2.5 are 2 again, when rounded
        ({"low": 1, "high": 100}, 1, (1, 2)),
        ({"low": 1, "high": 100, "log": True}, 100, (80, 100)),
        ({"low": -50, "high": 50}, 0, (-1, 1)),
        ({"low": -50, "high": 50}, -1, (0, -2)),
        ({"low": -50, "high": 50}, -20, (-16, -25)),
    ],
)
def test_a_whole_number_moves_by_a_factor_or_by_one(domain, value, moves):
    found, count = shares(domain, value), 4000
    anew = 0.2 * count / (domain["high"] - domain["low"] + 1) if "log" not in domain else 0
    for moved in moves:
        chance = 0.4 + (anew / count)
        assert stats.binomtest(found[str(moved)], count, chance).pvalue > 1e-4 or "log" in domain
        assert found[str(moved)] > 0.36 * count
    assert not any("." in moved for moved in found)


@pytest.mark.parametrize(
    ("value", "moves"), [(2.0, (1.6, 2.5)), (2, (1.6, 2.5)), (7.5, (6.0, 8.0)), (1.1, (1.0, 1.375))]
)
def test_a_number_moves_by_a_factor_and_is_clipped(value, moves):
    found, count = shares({"low": 1.0, "high": 8}, value), 4000
    for moved in moves:
        assert stats.binomtest(found[json.dumps(moved)], count, 0.4).pvalue > 1e-4
    anew = [float(moved) for moved in found if float(moved) not in moves]
    assert stats.kstest(anew, stats.uniform(1, 7).cdf).pvalue > 1e-3


def test_the_branch_that_a_value_came_from_is_explored():
    domain = [{"kind": "a", "x": {"low": 0.0, "high": 1.0}}, {"kind": "b", "x": {"low": 0.0, "high": 1.0}}]
    source, stayed = generator(6), []
    for _ in range(4000):
        moved = explore(domain, {"x": 0.5, "kind": "b"}, source)
        if moved["kind"] == "b":
            stayed.append(moved["x"])
    assert stats.binomtest(len(stayed), 4000, 0.9).pvalue > 1e-3
    near = sum(x in (0.4, 0.625) for x in stayed)
    assert stats.binomtest(near, 4000, 0.8 * 0.8).pvalue > 1e-3, "a new branch is drawn afresh"


def test_the_first_item_that_a_value_may_come_from_counts():
    domain = [{"low": 1, "high": 10}, {"low": 5.0, "high": 100.0}]
    moved = {explore(domain, 8, generator(seed)) for seed in range(200)}
    assert {6, 10} <= moved and all(type(number) is int or number >= 5 for number in moved)
    assert 10.0 in {explore(domain, 12.5, generator(seed)) for seed in range(200)}


def test_what_the_domain_has_no_place_for_is_drawn_anew():
    domain = {"a": ["x", "y", "z"], "b": {"low": 0.0, "high": 1.0}, "c": 3}
    source, count = generator(7), 3000
    moved = [explore(domain, {"a": "w", "b": 0.5, "d": 1}, source) for _ in range(count)]
    assert stats.chisquare(list(Counter(value["a"] for value in moved).values())).pvalue > 1e-3
    kept = sum(value["b"] in (0.4, 0.625) for value in moved)
    assert stats.binomtest(kept, count, 0.8).pvalue > 1e-3, "and what it has a place for is explored"
    assert all(value["c"] == 3 for value in moved)
    anew = [explore({"low": 0.0, "high": 1.0}, 2.0, source) for _ in range(count)]
    assert stats.kstest(anew, "uniform").pvalue > 1e-3


# ---- where a search starts, and what it may meet ---------------------------------------------------


def test_the_first_of_the_example():
    assert initial(DISTILL) == {"loss": "kd", "temperature": 1}
    assert initial([{"low": 2, "high": 3.0}, 1]) == 2.0 and type(initial({"low": 2, "high": 3.0})) is float


def test_the_examples_of_the_example():
    def hint(weight=1, projection="student"):
        return {"kd": 1, "hint": {"weight": weight, "projection": projection}}

    assert example_values(DISTILL) == [
        {"loss": "kd", "temperature": 1},
        {"loss": hint(), "temperature": 1},
        {"loss": hint(weight=100), "temperature": 1},
        {"loss": hint(projection="inverted"), "temperature": 1},
        {"loss": "kd", "temperature": 8},
    ]


def size(domain):
    """Items of choices and ends of ranges, at most."""
    if is_range(domain):
        return 2
    if isinstance(domain, list):
        return sum(map(size, domain))
    return 1 + sum(map(size, domain.values())) if isinstance(domain, dict) else 1


@given(domains)
@quick
def test_examples_belong_and_are_few(domain):
    found = example_values(domain)
    assert found[0] == initial(domain)
    assert all(contains(domain, value) for value in found)
    assert len(found) <= size(domain)
    assert (len(found) == 1) or not is_constant(domain)


class Steered:
    """The first of everything, but for what leads to the place `name`, and its `answer` there."""

    def __init__(self, name, answer):
        self.name, self.answer = name, answer

    def choice(self, name, count):
        if name == self.name:
            return self.answer
        return next((index for index in range(count) if self.name.startswith(f"{name}[{index}]")), 0)

    def number(self, name, low, high, *, log):
        return self.answer if name == self.name else low

    integer = number


def places(domain, name=""):
    """Every item of every choice, and every end of every range, with the name of its place."""
    if is_range(domain):
        yield from ((name, domain[end]) for end in ("low", "high"))
    elif isinstance(domain, list):
        for index, item in enumerate(domain):
            if len(domain) > 1:
                yield name, index
            yield from places(item, f"{name}[{index}]")
    elif isinstance(domain, dict):
        for key, inner in domain.items():
            plain = key and not set(key) & set('.[]"')
            yield from places(inner, f"{name}.{key}".lstrip(".") if plain else f"{name}[{json.dumps(key)}]")


@given(domains)
@quick
def test_every_item_and_every_end_has_an_example(domain):
    found = example_values(domain)
    for place in places(domain):
        assert draw(domain, Steered(*place)) in found


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (3, [3]),
        ({}, [{}]),
        (["a"], ["a"]),
        ([["a", "b"], "a", {"c": [True, 1]}], ["a", "b", {"c": True}, {"c": 1}]),
        ({"a": [1, 2], "b": ["x", "y"]}, [{"a": a, "b": b} for a in (1, 2) for b in "xy"]),
        ({"low": 1, "high": 2}, None),
        (["a", {"b": {"low": 1, "high": 2}}], None),
        ({"a": [1, 2], "b": {"c": {"low": 1, "high": 2}}}, None),
    ],
)
def test_variants(domain, expected):
    found = enumerate_values(domain)
    assert found == expected and [*map(repr, found or [])] == [*map(repr, expected or [])]


@given(domains, seeds)
@quick
def test_variants_are_all_that_can_be_drawn(domain, seed):
    found = enumerate_values(domain)
    if found is None:
        assert not is_constant(domain)
        return
    value = draw(domain, UniformSampler(generator(seed)))
    assert value in found and all(contains(domain, other) for other in found)
    assert all(other in found for other in example_values(domain))
    assert len(found) == 1 or not is_constant(domain)


# ---- what is no domain -----------------------------------------------------------------------------


PLACE = "space.distill.loss[1].hint.weight"


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ([], f"{PLACE} must be a choice of at least one item, got []"),
        ([1, "a", 1.0], f"{PLACE} must be a choice of different items, got [1, 'a', 1.0]"),
        ([{"a": 1, "b": [2]}, {"b": [2], "a": 1}], f"{PLACE} must be a choice of different items, got ["),
        ({"low": 1}, f"{PLACE} must be a range with low, high, optional log, and no other keys, got ['low']"),
        ({"high": 1, "log": True}, f"{PLACE} must be a range with low, high, optional log, and no other keys, got ["),
        (
            {"low": 1, "high": 2, "step": 1},
            f"{PLACE} must be a range with low, high, optional log, and no other keys, got",
        ),
        ({"low": 2, "high": 2}, f"low of {PLACE} must be less than high, got [2, 2]"),
        ({"low": 3.0, "high": 2}, f"low of {PLACE} must be less than high, got [3.0, 2]"),
        ({"low": 0, "high": 2, "log": True}, f"low of {PLACE} must be > 0 for log, got 0"),
        ({"low": -1.0, "high": 2, "log": True}, f"low of {PLACE} must be > 0 for log, got -1.0"),
        ({"low": 1, "high": 2, "log": 1}, f"log of {PLACE} must be true or false, got 1"),
        ({"low": 1, "high": math.inf}, f"low and high of {PLACE} must be finite numbers, got [1, inf]"),
        ({"low": math.nan, "high": 1}, f"low and high of {PLACE} must be finite numbers, got [nan, 1]"),
        ({"low": "1", "high": 2}, f"low and high of {PLACE} must be finite numbers, got ['1', 2]"),
        ({"low": False, "high": 2}, f"low and high of {PLACE} must be finite numbers, got [False, 2]"),
        ({"low": [1, 2], "high": 3}, f"low and high of {PLACE} must be finite numbers, got [[1, 2], 3]"),
        ({"low": 0, "high": 10**400}, f"low and high of {PLACE} must be finite numbers, got [0, 1000"),
        ({"low": 0, "high": 2**53 + 1}, f"low and high of {PLACE} must be from -2⁵³ to 2⁵³, got [0, 90"),
        ({"low": -1.5e308, "high": 1.5e308}, f"low and high of {PLACE} must differ by a finite float, got"),
        ({"low": 2**60, "high": 2.0**60 + 1}, f"low of {PLACE} must be less than high, got ["),
        ({"low": 2.0**60, "high": 2**60 + 1}, f"low and high of {PLACE} must differ by a finite float, got"),
        (math.nan, f"{PLACE} must be finite, got nan"),
        (-math.inf, f"{PLACE} must be finite, got -inf"),
        ({1: "a"}, f"the keys of {PLACE} must be strings, got 1"),
        (
            {"low", "high"},
            f"{PLACE} must be plain data: a string, a number, true, false, null, a list or a mapping, got 's",
        ),
        (
            np.int64(3),
            f"{PLACE} must be plain data: a string, a number, true, false, null, a list or a mapping, got 'int64",
        ),
        (b"kd", f"{PLACE} must be plain data: a string, a number, true, false, null, a list or a mapping, got 'bytes'"),
    ],
)
def test_what_is_no_domain(domain, message):
    with pytest.raises(RequestError) as error:
        check_domain({"loss": ["kd", {"kd": 1, "hint": {"weight": domain}}]}, "space.distill")
    assert str(error.value).startswith(message) and len(str(error.value).splitlines()) == 1


def test_items_that_look_alike_may_differ():
    check_domain([1, True, "1", None, {"a": 1}, {"a": True}, {"b": 1}, [1], 0, False], "x")
    check_domain({"low": 1, "high": 2, "log": False}, "x")
    check_domain({"log": True, "a": []} | {"a": ["log"]}, "x")
    check_domain({"low": -(2**53), "high": 2**53}, "x")
    check_domain((1, 2), "x")


def test_nesting_to_the_limit_is_refused_in_one_line():
    deep, kind = 0, (lambda inner: [inner], lambda inner: {"a": inner})
    for level in range(MAX_DEPTH - 1):
        deep = kind[level % 2](deep)
    check_domain(deep, "x")
    assert is_constant(deep) and contains(deep, initial(deep)) and len(example_values(deep)) == 1
    for level in range(100_000):
        deep = kind[level % 2](deep)
    knot = []
    knot.append(knot)
    for domain in (deep, knot):
        with pytest.raises(RequestError, match=f"^a domain must be nested at most {MAX_DEPTH} deep; see x") as error:
            check_domain(domain, "x")
        assert len(str(error.value)) < 200


@given(json_values, seeds)
@quick
def test_any_json_is_a_domain_or_refused_in_one_line(domain, seed):
    try:
        check_domain(domain, "x")
    except RequestError as error:
        assert len(str(error).splitlines()) == 1
    else:
        value = draw(domain, UniformSampler(generator(seed)), "x")
        assert contains(domain, value)
        assert contains(domain, explore(domain, value, generator(seed)))
        assert all(contains(domain, shown) for shown in example_values(domain))
