"""Interleaved timing."""

from __future__ import annotations

from benchmarks.common.timing import interleaved, spread


def test_contestants_take_turns():
    calls = []
    runs = {name: lambda turn, name=name: calls.append((name, turn)) for name in "abc"}
    figures = interleaved(runs, rounds=5, seconds=0.0, seed=0)
    assert {name: len(seconds) for name, seconds in figures.items()} == {"a": 5, "b": 5, "c": 5}
    assert calls[:6] == [(name, turn) for name in "abc" for turn in (0, 1)], "two to warm up"
    rounds = [calls[start : start + 3] for start in range(6, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [[(name, turn) for name in "abc"] for turn in range(2, 7)]
    assert len({tuple(name for name, _ in each) for each in rounds}) > 1, "not always in the same order"


def test_short_work_is_repeated():
    calls = []
    interleaved({"a": calls.append}, rounds=2, seconds=0.01, seed=0)
    assert len(calls) > 100 and calls == list(range(len(calls)))


def test_spread():
    five = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (five.median, five.low, five.high, five.quartiles) == (3.0, 1.0, 5.0, (2.0, 4.0))
    one = spread([2.0])
    assert (one.median, one.low, one.high, one.quartiles) == (2.0, 2.0, 2.0, (2.0, 2.0))
