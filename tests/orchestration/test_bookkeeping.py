from __future__ import annotations

import pytest

from runlane_broker.orchestration.bookkeeping import advance, estimated_run_time, estimated_start_time_delta
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.orchestration.runs import Bookkeeping, CurrentState

from .support import S


def state(type_: S, at: int) -> CurrentState:
    return CurrentState(type_, type_.value, at)


def at(scheduled: int) -> StateDetails:
    return StateDetails(scheduled_time=scheduled)


@pytest.mark.parametrize(
    ("books", "current", "entered", "expected"),
    [
        # The first state says when the run was expected to start.
        (Bookkeeping(), None, Proposed(S.PENDING), Bookkeeping(expected_start_time=100)),
        (
            Bookkeeping(),
            None,
            Proposed(S.SCHEDULED, details=at(70)),
            Bookkeeping(expected_start_time=70, next_scheduled_start_time=70),
        ),
        (
            Bookkeeping(),
            None,
            Proposed(S.RUNNING, details=at(70)),
            Bookkeeping(run_count=1, expected_start_time=100, start_time=100),
        ),
        # Later ones don't, and the next start is known only while it is waited for.
        (
            Bookkeeping(expected_start_time=5),
            state(S.PENDING, 10),
            Proposed(S.SCHEDULED, details=at(70)),
            Bookkeeping(expected_start_time=5, next_scheduled_start_time=70),
        ),
        (
            Bookkeeping(expected_start_time=5, next_scheduled_start_time=70),
            state(S.SCHEDULED, 10),
            Proposed(S.PENDING, details=at(70)),
            Bookkeeping(expected_start_time=5),
        ),
        # The first start stays; the time in RUNNING adds up, also from one RUNNING to the next.
        (
            Bookkeeping(run_count=1, start_time=40, total_run_time=7),
            state(S.RUNNING, 60),
            Proposed(S.RUNNING),
            Bookkeeping(run_count=2, start_time=40, total_run_time=47),
        ),
        (
            Bookkeeping(run_count=1, start_time=40, total_run_time=7),
            state(S.PENDING, 60),
            Proposed(S.RUNNING),
            Bookkeeping(run_count=2, start_time=40, total_run_time=7),
        ),
        # An end without a start counts as both; the first end stays until the run leaves it.
        (Bookkeeping(), state(S.PENDING, 60), Proposed(S.CANCELLED), Bookkeeping(start_time=100, end_time=100)),
        (
            Bookkeeping(run_count=1, start_time=40, total_run_time=7),
            state(S.RUNNING, 60),
            Proposed(S.FAILED),
            Bookkeeping(run_count=1, start_time=40, end_time=100, total_run_time=47),
        ),
        (
            Bookkeeping(run_count=1, start_time=40, end_time=80),
            state(S.FAILED, 80),
            Proposed(S.COMPLETED),
            Bookkeeping(run_count=1, start_time=40, end_time=80),
        ),
        (
            Bookkeeping(run_count=1, start_time=40, end_time=80),
            state(S.FAILED, 80),
            Proposed(S.PENDING),
            Bookkeeping(run_count=1, start_time=40),
        ),
        (
            Bookkeeping(run_count=1, start_time=40, end_time=80),
            state(S.FAILED, 80),
            Proposed(S.RUNNING),
            Bookkeeping(run_count=2, start_time=40),
        ),
        # What is not a time is left alone.
        (
            Bookkeeping(failures=3, flow_run_run_count=2),
            state(S.RUNNING, 99),
            Proposed(S.PAUSED),
            Bookkeeping(failures=3, flow_run_run_count=2, total_run_time=1),
        ),
    ],
)
def test_the_books_after_a_state(
    books: Bookkeeping, current: CurrentState | None, entered: Proposed, expected: Bookkeeping
) -> None:
    assert advance(books, current, entered, 100) == expected


@pytest.mark.parametrize(
    ("state_type", "since", "expected"),
    [(S.RUNNING, 90, 17), (S.RUNNING, 100, 7), (S.RUNNING, 110, 7), (S.COMPLETED, 90, 7), (None, 0, 7)],
)
def test_the_run_time_goes_on_while_a_run_is_running(state_type: S | None, since: int, expected: int) -> None:
    assert estimated_run_time(7, state_type, since, 100) == expected


@pytest.mark.parametrize(
    ("expected_at", "started", "state_type", "late"),
    [
        (None, None, S.PENDING, 0),
        (None, 90, S.RUNNING, 0),
        (60, 90, S.RUNNING, 30),
        (60, 90, S.COMPLETED, 30),
        (90, 60, S.RUNNING, 0),
        (60, None, S.SCHEDULED, 40),
        (60, None, None, 40),
        (100, None, S.SCHEDULED, 0),
        (170, None, S.SCHEDULED, 0),
        (60, None, S.CANCELLED, 0),
        (60, 0, S.RUNNING, 0),
    ],
)
def test_a_run_is_as_late_as_it_started_or_has_not_started(
    expected_at: int | None, started: int | None, state_type: S | None, late: int
) -> None:
    assert estimated_start_time_delta(expected_at, started, state_type, 100) == late
