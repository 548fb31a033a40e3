"""Time, injected: durations come from the monotonic clock, times of day are integers of microseconds UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

#: Microseconds since 1970-01-01T00:00Z, as the database holds them.
Micros = int

MICROS_PER_SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Clock(Protocol):
    """What the broker asks for the time."""

    def now(self) -> Micros:
        """Return the time of day, in microseconds UTC. It may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow, for durations."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Micros:
        """Return the time of day, in microseconds UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return the monotonic clock, in seconds."""
        return time.monotonic()


def to_micros(when: datetime) -> Micros:
    """Return an aware datetime as microseconds UTC, exactly; one that UTC cannot show as the last that it can."""
    return min(max((when - _EPOCH) // _MICROSECOND, _FIRST), _LAST)


def to_datetime(micros: Micros) -> datetime:
    """Return microseconds UTC as an aware datetime."""
    return _EPOCH + timedelta(microseconds=micros)
