"""What a run's books say after a state, and what is worked out from them when it is shown."""

from __future__ import annotations

from msgspec.structs import replace

from runlane.protocol.states import FINAL, StateType

from ..clock import Micros
from .decisions import Proposed
from .runs import Bookkeeping, CurrentState


def advance(books: Bookkeeping, current: CurrentState | None, entered: Proposed, timestamp: Micros) -> Bookkeeping:
    """Return the books after the run has left `current` for `entered` at `timestamp`.

    `start_time` is that of the first start and stays; `end_time` is that of the first final state, until the run
    leaves its end again.
    """
    runs, ends = entered.type is StateType.RUNNING, entered.type in FINAL
    waits = entered.details.scheduled_time if entered.type is StateType.SCHEDULED else None
    ran = current is not None and current.type is StateType.RUNNING
    start = books.start_time
    return replace(
        books,
        run_count=books.run_count + runs,
        expected_start_time=_first(waits, timestamp) if current is None else books.expected_start_time,
        next_scheduled_start_time=waits,
        start_time=_first(start, timestamp) if runs or ends else start,
        end_time=_first(books.end_time, timestamp) if ends else None,
        total_run_time=books.total_run_time + (timestamp - current.timestamp if current and ran else 0),
    )


def estimated_run_time(total_run_time: int, state_type: StateType | None, since: Micros, now: Micros) -> int:
    """Return for how long a run has been RUNNING up to now, in microseconds; it is in its state `since` then."""
    return total_run_time + (max(now - since, 0) if state_type is StateType.RUNNING else 0)


def estimated_start_time_delta(
    expected: Micros | None, started: Micros | None, state_type: StateType | None, now: Micros
) -> int:
    """Return how late a run has started, or is by now, in microseconds; never negative."""
    if expected is None or (started is None and state_type in FINAL):
        return 0
    return max((now if started is None else started) - expected, 0)


def _first(one: Micros | None, other: Micros) -> Micros:
    return other if one is None else one
