"""How fast a worker is given runs, from what it says and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runlane_broker.core.pace import (
    AHEAD_SECONDS,
    INTRODUCTION_SECONDS,
    MAX_AHEAD,
    PATIENCE_SECONDS,
    SLOW_SECONDS,
    Pace,
)


def taken(pace: Pace, run_id: str, now: float, *, takes: float = 0.0) -> None:
    pace.send(run_id, now)
    assert pace.acknowledge(now + takes)


def silent() -> Pace:
    """A worker that never reports, and has acknowledged one run; it is 6 s now."""
    pace = Pace()
    taken(pace, "first", 5.0)
    pace.pass_over(5.0 + INTRODUCTION_SECONDS)
    return pace


def test_one_run_is_sent_at_a_time() -> None:
    pace = Pace()
    assert pace.free_at(5.0) == 5.0
    pace.send("a", 5.0)
    assert pace.free_at(5.0) is None
    pace.leave("a", 6.0)
    assert pace.free_at(6.0) == 6.0
    assert not pace.acknowledge(6.0)


def test_a_worker_that_says_nothing_is_served_by_its_acknowledgements() -> None:
    pace = Pace()
    taken(pace, "a", 5.0)
    known = 5.0 + INTRODUCTION_SECONDS
    assert pace.free_at(5.0) == known
    pace.pass_over(5.0)
    assert pace.free_at(5.0) == known
    pace.pass_over(known)
    taken(pace, "b", known)
    assert pace.free_at(known) == known
    assert pace.acknowledged == {"a", "b"}


def test_a_worker_that_reports_is_given_the_next_when_it_has() -> None:
    pace = Pace()
    taken(pace, "a", 5.0)
    pace.report("a")
    assert pace.free_at(5.1) == 5.1
    taken(pace, "b", 6.0)
    assert pace.free_at(1000.0) is None  # it waits for the slot of the first
    pace.leave("a", 1000.0)
    assert pace.free_at(1000.0) == 1000.0 + PATIENCE_SECONDS
    pace.pass_over(1000.0 + PATIENCE_SECONDS)
    taken(pace, "c", 1020.0)
    assert pace.free_at(1020.0) == 1020.0 + PATIENCE_SECONDS
    pace.report("c")
    assert pace.free_at(1021.0) == 1021.0
    assert pace.acknowledged == {"b", "c"}


def test_a_report_may_come_before_the_acknowledgement() -> None:
    pace = Pace()
    pace.send("a", 5.0)
    pace.report("a")
    assert pace.acknowledge(5.0)
    assert pace.free_at(5.0) == 5.0


def test_what_was_reported_to_the_broker_before_is_known() -> None:
    pace = Pace()
    pace.adopt(frozenset({"a"}), frozenset(), 5.0)
    taken(pace, "b", 5.0)
    assert pace.free_at(5.0) is None
    assert pace.acknowledged == {"a", "b"}


def test_what_was_only_acknowledged_to_the_broker_before_is_still_to_be_reported() -> None:
    pace = Pace()
    pace.adopt(frozenset({"a", "b"}), frozenset({"b"}), 5.0)
    assert pace.acknowledged == {"a", "b"}
    assert pace.free_at(5.0) is None
    pace.report("b")
    assert pace.free_at(5.0) == 5.0


def test_who_has_only_acknowledged_to_the_broker_before_may_be_one_that_never_reports() -> None:
    pace = Pace()
    pace.adopt(frozenset({"a"}), frozenset({"a"}), 5.0)
    assert pace.free_at(5.0) == 6.0
    pace.pass_over(6.0)
    assert not pace.may_report


def test_nothing_is_leased_ahead_for_one_that_may_report() -> None:
    pace = Pace()
    for i in range(5):
        taken(pace, str(i), 5.0)
        assert pace.ahead(5.0) == 0


def test_who_acknowledges_at_once_is_leased_ahead() -> None:
    pace = silent()
    for i in range(10):
        taken(pace, str(i), 6.0)
    assert pace.ahead(6.0) == MAX_AHEAD
    pace.report("9")
    assert pace.ahead(6.0) == 0


def test_no_more_is_leased_ahead_than_what_is_taken_soon() -> None:
    pace = silent()
    for i in range(20):
        taken(pace, str(i), 6.0, takes=AHEAD_SECONDS / 4.5)
    assert pace.ahead(6.0) == 4
    for i in range(20):
        taken(pace, str(i), 6.0, takes=AHEAD_SECONDS * 1.1)
    assert pace.ahead(6.0) == 0


def test_one_that_no_longer_acknowledges_is_leased_nothing_ahead() -> None:
    pace = silent()
    for i in range(10):
        taken(pace, str(i), 6.0)
    pace.send("last", 7.0)
    assert pace.ahead(7.0) == MAX_AHEAD
    assert pace.slow_at == 7.0 + SLOW_SECONDS
    assert pace.ahead(7.0 + SLOW_SECONDS) == 0
    pace.acknowledge(17.0)
    assert pace.ahead(17.0) == 0


@given(st.lists(st.tuples(st.sampled_from(["send", "ack", "report", "leave", "pass"]), st.floats(0, 30))))
def test_a_worker_is_never_left_alone_for_ever(said: list[tuple[str, float]]) -> None:
    """Whatever was said: once it holds nothing it is given something, and never two at a time."""
    pace, now, sent = Pace(), 0.0, 0
    for what, seconds in said:
        now += seconds
        if what == "send" and pace.free_at(now) == now:
            sent += 1
            pace.send(str(sent), now)
            assert pace.free_at(now) is None
        elif what == "ack":
            pace.acknowledge(now)
        elif what == "report" and sent:
            pace.report(str(sent))
        elif what == "leave":
            pace.leave(str(sent), now)
        elif what == "pass":
            pace.pass_over(now)
    for run_id in range(sent + 1):
        pace.leave(str(run_id), now)
    assert pace.acknowledged == frozenset()
    assert pace.free_at(now) == now
