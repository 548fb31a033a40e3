"""Runs by time and state: one statement over the runs, in integers, so that all databases agree to the digit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, Table, and_, case, func, literal_column, select

from runlane.protocol.states import FINAL, StateType

from .base import const, one_of

#: Sums are kept in two parts: no number of runs, however late, is too much for 64 bits.
PART = 1_000_000


def read_history(
    table: Table, conditions: Sequence[ColumnElement[bool]], start: int, end: int, interval: int, now: int
) -> Select[*tuple[Any, ...]]:
    """Return counts and sums of the runs expected in [start, end), by interval, state type and state name.

    Each sum has two columns: whole seconds, and the microseconds beyond.
    """
    r = table.c
    expected = r.expected_start_time
    run_time, lateness = _run_time(table, now), _lateness(table, now)
    return (
        select(
            ((expected - _int(start)) // _int(interval)).label("bar"),
            r.state_type,
            r.state_name,
            func.count().label("count"),
            *_sum(run_time, "run_time"),
            *_sum(lateness, "lateness"),
        )
        .where(expected >= start, expected < end, *conditions)
        .group_by("bar", r.state_type, r.state_name)
    )


def read_lateness(table: Table, conditions: Sequence[ColumnElement[bool]], now: int) -> Select[*tuple[Any, ...]]:
    """Return how many runs there are, and the sum of their lateness in two parts."""
    return select(func.count().label("count"), *_sum(_lateness(table, now), "lateness")).where(*conditions)


def _sum(value: ColumnElement[Any], name: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    part = _int(PART)
    return func.sum(value // part).label(f"{name}_seconds"), func.sum(value % part).label(f"{name}_rest")


def _run_time(table: Table, now: int) -> ColumnElement[Any]:
    """For how long a run has been RUNNING by now (`orchestration.bookkeeping.estimated_run_time`)."""
    r = table.c
    runs = and_(r.state_type == const(StateType.RUNNING), r.state_timestamp < _int(now))
    return case((runs, r.total_run_time + (_int(now) - r.state_timestamp)), else_=r.total_run_time)


def _lateness(table: Table, now: int) -> ColumnElement[Any]:
    """How late a run has started, or is by now (`orchestration.bookkeeping.estimated_start_time_delta`)."""
    r = table.c
    waits = and_(r.start_time.is_(None), r.expected_start_time < _int(now), ~one_of(r.state_type, FINAL))
    return case(
        (r.start_time > r.expected_start_time, r.start_time - r.expected_start_time),
        (waits, _int(now) - r.expected_start_time),
        else_=_int(0),
    )


def _int(value: int) -> ColumnElement[int]:
    """A number in the text: what is grouped by must read the same wherever it stands."""
    return literal_column(str(int(value)), Integer)
