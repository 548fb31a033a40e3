from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane_broker.dispatch import RETRY_LANE, QueuedRun
from runlane_broker.dispatch.runs import OrderedRuns, rank_of

from .support import DUES, LANES, PRIORITIES, PROPERTY, make_run


def test_order_is_priority_then_lane_then_due_then_id() -> None:
    expected = [
        make_run("urgent-later", priority=9, due=5),
        make_run("retry", priority=1, lane=RETRY_LANE, due=9),
        make_run("early", priority=1, due=1),
        make_run("late-a", priority=1, due=2),
        make_run("late-b", priority=1, due=2),
        make_run("low-retry", priority=0, lane=RETRY_LANE),
    ]
    assert list(OrderedRuns(expected[::-1])) == expected
    assert [run.rank for run in expected] == [rank_of(run) for run in expected]


def test_an_empty_collection() -> None:
    runs = OrderedRuns()
    assert (len(runs), runs.first(), runs.last(), runs.get("x")) == (0, None, None, None)
    assert runs.discard("x") is False
    with pytest.raises(IndexError):
        runs.pop_first()
    with pytest.raises(IndexError):
        runs.pop_last()
    assert repr(runs) == "<OrderedRuns 0>"


@PROPERTY
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), PRIORITIES, LANES, DUES)),
    st.lists(st.sampled_from("abcdef")),
)
def test_it_is_a_sorted_dict(added: list[tuple[str, int, int, int]], discarded: list[str]) -> None:
    runs = OrderedRuns()
    model: dict[str, QueuedRun] = {}
    for run_id, priority, lane, due in added:
        run = make_run(run_id, priority=priority, lane=lane, due=due)
        runs.add(run)
        model[run_id] = run
    for run_id in discarded:
        assert runs.discard(run_id) is (model.pop(run_id, None) is not None)
    expected = sorted(model.values(), key=rank_of)
    assert list(runs) == expected
    assert [run.id in runs for run in expected] == [True] * len(expected)
    if expected:
        assert (runs.first(), runs.last()) == (expected[0], expected[-1])
        assert runs.pop_last() == expected.pop()
    if expected:
        assert runs.pop_first() == expected.pop(0)
    assert list(runs) == expected == [runs.get(run.id) for run in expected]
