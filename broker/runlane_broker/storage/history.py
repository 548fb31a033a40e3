"""Run history: bars of time, and in each what became of the runs that were expected in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from runlane.protocol.states import StateType

from ..clock import MICROS_PER_SECOND, Micros
from .queries.history import PART

#: How many bars there are at most; what comes later is left out.
MAX_BARS: Final = 500


@dataclass(frozen=True, slots=True)
class BarState:
    """The runs of a bar that are in one state now. Sums in microseconds, of what is positive."""

    type: StateType
    name: str
    count: int
    run_time: int
    lateness: int


@dataclass(frozen=True, slots=True)
class Bar:
    """The runs expected in [start, end), by state type and name, in their order."""

    start: Micros
    end: Micros
    states: tuple[BarState, ...]


def count_bars(start: Micros, end: Micros, interval: int) -> int:
    """Return how many bars reach from start to end; the last one may reach further.

    Raises `ValueError` for an interval (microseconds) below a second.
    """
    if interval < MICROS_PER_SECOND:
        raise ValueError("History interval must not be less than 1 second.")
    return min(max(-((start - end) // interval), 0), MAX_BARS)


def make_bars(start: Micros, interval: int, count: int, rows: Iterable[Any]) -> list[Bar]:
    """Return the bars, with the rows of `queries.history.read_history` in them."""
    found: dict[int, list[BarState]] = {}
    for row in rows:
        found.setdefault(row.bar, []).append(_state(row))
    bounds = [start + i * interval for i in range(count + 1)]
    return [
        Bar(bounds[i], bounds[i + 1], tuple(sorted(found.get(i, ()), key=lambda s: (s.type, s.name))))
        for i in range(count)
    ]


def total(seconds: Any, rest: Any) -> int:
    """Return a sum of which there are two parts. (PostgreSQL's sums are decimals.)"""
    return int(seconds) * PART + int(rest)


def _state(row: Any) -> BarState:
    return BarState(
        StateType(row.state_type),
        row.state_name,
        row.count,
        total(row.run_time_seconds, row.run_time_rest),
        total(row.lateness_seconds, row.lateness_rest),
    )
