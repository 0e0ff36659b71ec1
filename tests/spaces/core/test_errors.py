"""Errors: one line, with the rule, the value and the mend."""

import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces import RequestError, RoletuneError, WorkError
from spaces.core.errors import unknown

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
any_text = st.text(st.characters())


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, "a hat is worn"),
        ({"value": 3}, "a hat is worn, got 3"),
        ({"value": None}, "a hat is worn, got None"),
        ({"value": ""}, "a hat is worn, got ''"),
        ({"hint": "buy one"}, "a hat is worn; buy one"),
        ({"value": "a cap", "hint": "buy one"}, "a hat is worn, got 'a cap'; buy one"),
    ],
)
def test_rule_value_and_mend(parts, line):
    assert str(RequestError("a hat is worn", **parts)) == line


def test_the_tree():
    assert issubclass(RequestError, RoletuneError) and issubclass(RequestError, ValueError)
    assert issubclass(WorkError, RoletuneError) and issubclass(WorkError, RuntimeError)
    assert not issubclass(WorkError, RequestError) and not issubclass(RequestError, WorkError)


@given(any_text, any_text | st.lists(any_text), any_text)
@quick
def test_always_one_line(rule, got, hint):
    assert len(str(RequestError(rule, value=got, hint=hint)).splitlines()) <= 1
    assert len(str(unknown("thing", got, ["a", "b"])).splitlines()) == 1


def test_a_long_value_is_cut():
    for error in (
        RequestError("r", value="x" * 10**6),
        RequestError("r", value=[*range(10**5)]),
        unknown("hat", "x" * 10**6, []),
    ):
        assert "…" in str(error)
        assert len(str(error)) < 150


def test_a_value_of_120_characters_is_whole():
    assert str(RequestError("r", value="x" * 118)) == f"r, got {'x' * 118!r}"
    assert str(RequestError("r", value="x" * 119)) == f"r, got '{'x' * 118}…"


def test_a_value_too_large_to_be_shown():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert str(RequestError("r", value=deep)) == "r, got a value of type list too large to show"
    assert str(RequestError("r", value=10**5000)) == "r, got a value of type int too large to show"


def test_errors_travel_between_processes():
    for error in (RequestError("r", value=3, hint="m"), WorkError("the work failed")):
        twin = pickle.loads(pickle.dumps(error))
        assert type(twin) is type(error)
        assert str(twin) == str(error)


KNOWN = ["Rotate", "ShearX", "ShearY", "Invert"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("Rotat", "Rotate"), ("rotate", "Rotate"), ("INVERT", "Invert"), ("shearx", "ShearX"), ("SHEARY", "ShearY")],
)
def test_the_nearest_name_whatever_its_case(name, near):
    assert str(unknown("operation", name, KNOWN)) == f"unknown operation {name!r}; did you mean {near!r}?"


@pytest.mark.parametrize("name", ["Mixup", "", None, 3, ["Rotate"]])
def test_far_from_every_name_they_are_all_listed(name):
    expected = f"unknown operation {name!r}; known: Invert, Rotate, ShearX, ShearY"
    if name == ["Rotate"]:
        expected = "unknown operation ['Rotate']; did you mean 'Rotate'?"
    error = unknown("operation", name, iter(KNOWN))
    assert isinstance(error, RequestError)
    assert str(error) == expected
