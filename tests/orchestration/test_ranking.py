"""Priorities of work queues, against a model that tries everything."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runlane_broker.orchestration.ranking import free_priority, rank, steps


def fewest_changes(before: Mapping[str, int], queue: str, wanted: int) -> int:
    """How many of the others must move at least: every assignment is tried. They only move down, in order."""
    others = sorted((name for name in before if name != queue), key=lambda name: before[name])
    room = range(1, max([*before.values(), wanted]) + len(before) + 1)
    best = len(others) + 1
    for chosen in combinations([priority for priority in room if priority != wanted], len(others)):
        if all(new >= before[name] for name, new in zip(others, chosen, strict=True)):
            best = min(best, sum(new != before[name] for name, new in zip(others, chosen, strict=True)))
    return best


@pytest.mark.parametrize(
    ("taken", "free"), [([], 1), ([1], 2), ([2], 1), ([1, 2, 3, 7], 4), ([7, 1], 2), ([2, 3], 1), ([1, 2], 3)]
)
def test_who_asks_for_nothing_gets_the_first_gap_or_the_end(taken: list[int], free: int) -> None:
    assert free_priority(taken) == free


@pytest.mark.parametrize(
    ("before", "queue", "wanted", "changes"),
    [
        ({}, "a", 1, {"a": 1}),
        ({}, "a", 5, {"a": 5}),
        ({"default": 1, "a": 2}, "b", 1, {"b": 1, "default": 2, "a": 3}),
        ({"a": 1, "b": 3}, "c", 1, {"c": 1, "a": 2}),
        ({"a": 1, "b": 3}, "c", 2, {"c": 2}),
        ({"a": 1, "b": 2, "c": 3}, "c", 1, {"c": 1, "a": 2, "b": 3}),
        ({"a": 1, "b": 2, "c": 3}, "a", 3, {"a": 3, "c": 4}),
        ({"a": 1, "b": 2, "c": 3}, "a", 2, {"a": 2, "b": 3, "c": 4}),
        ({"a": 1, "b": 2}, "a", 1, {}),
        ({"a": 4, "b": 9}, "a", 8, {"a": 8}),
    ],
)
def test_who_asks_gets_it_and_others_move_down(
    before: dict[str, int], queue: str, wanted: int, changes: dict[str, int]
) -> None:
    assert rank(before, queue, wanted) == changes


@pytest.mark.parametrize("wanted", [0, -1])
def test_there_is_nothing_before_the_first(wanted: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        rank({"a": 1}, "a", wanted)


@given(
    st.lists(st.integers(1, 5), unique=True, min_size=1, max_size=4),
    st.integers(0, 4),
    st.integers(1, 6),
)
@settings(max_examples=150, derandomize=True, deadline=None, database=None)
def test_nobody_moves_who_need_not(taken: list[int], which: int, wanted: int) -> None:
    before = {f"q{i}": priority for i, priority in enumerate(taken)}
    queue = f"q{which}"  # there, or new
    changes = rank(before, queue, wanted)
    assert {**before, **changes}[queue] == wanted
    assert sum(name != queue for name in changes) == fewest_changes(before, queue, wanted)


class Ranking(RuleBasedStateMachine):
    """A pool's queues, beside a list that says in which order they have to be."""

    def __init__(self) -> None:
        super().__init__()
        self.priorities: dict[str, int] = {}
        self.order: list[str] = []
        self.made = 0

    def apply(self, changes: Mapping[str, int]) -> None:
        new = set(changes) - set(self.priorities)
        for name, priority in steps(self.priorities, changes):
            assert priority not in self.priorities.values(), "the unique index would refuse this step"
            self.priorities[name] = priority
        assert new <= set(self.priorities)

    def place(self, queue: str, wanted: int) -> None:
        """The model: before the first of the others whose priority is not smaller."""
        if queue in self.order:
            self.order.remove(queue)
        behind = [name for name in self.order if self.priorities[name] >= wanted]
        self.order.insert(self.order.index(behind[0]) if behind else len(self.order), queue)

    @rule(wanted=st.none() | st.integers(1, 12))
    def create(self, wanted: int | None) -> None:
        queue = f"q{self.made}"
        self.made += 1
        wanted = free_priority(self.priorities.values()) if wanted is None else wanted
        self.place(queue, wanted)
        self.apply(rank(self.priorities, queue, wanted))
        assert self.priorities[queue] == wanted

    @precondition(lambda self: self.order)
    @rule(data=st.data(), wanted=st.integers(1, 12))
    def move(self, data: st.DataObject, wanted: int) -> None:
        queue = data.draw(st.sampled_from(self.order))
        if self.priorities[queue] != wanted:
            self.place(queue, wanted)
        self.apply(rank(self.priorities, queue, wanted))
        assert self.priorities[queue] == wanted

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        queue = data.draw(st.sampled_from(self.order))
        self.order.remove(queue)
        del self.priorities[queue]

    @invariant()
    def unique_and_in_the_order_that_was_asked_for(self) -> None:
        assert sorted(self.priorities, key=lambda name: self.priorities[name]) == self.order
        assert len(set(self.priorities.values())) == len(self.priorities)
        assert all(priority >= 1 for priority in self.priorities.values())


TestRanking = Ranking.TestCase
TestRanking.settings = settings(
    max_examples=60, stateful_step_count=30, derandomize=True, deadline=None, database=None
)
