"""The judge: reads the history of an experiment and says what must not have happened in it. No I/O, no clock.

How to use it, from a simulation or with real processes:

1. Write an event (see `events`) whenever a producer, a worker, or whoever injects faults *does or learns*
   something: before a frame goes out (`Submitted`, `Reported`, `Released`), after one came in (`Acknowledged`,
   `Received`, `Recorded`). `dump` makes a JSON line of it, `load` reads lines; merge those of several processes by
   `at`, of one monotonic clock.
2. Producers that hear nothing (a time-out, `busy`, a connection that broke) write nothing: such a run may exist.
3. Whoever disturbs something writes a `Fault` of it *before*: of a worker, a producer, `BROKER` or `DATABASE`.
   Without one nothing may be delivered twice. A producer writes "cut" of itself when its connection has ended: its
   watches end with it. A worker that was killed or has quit needs another name afterwards.
4. At the end stop the faults, wait until all is done, write `Quiet`, and read a `Snapshot` of the database; there
   may be more before it: what was in the history once may never change.
5. `judge(history)` returns the violations, and none if all is well. `ordered` names the keys that promise their
   order: those of an experiment without faults.

If it condemns an innocent one, tell it more; do not make it look away.
"""

from __future__ import annotations

from .events import (
    BROKER,
    CLOCK,
    DATABASE,
    Acknowledged,
    CancelAnswered,
    CancelAsked,
    Event,
    Executed,
    Fault,
    LeaseLost,
    Postponed,
    Quiet,
    Received,
    Recorded,
    Refused,
    Released,
    Reported,
    RunRow,
    Snapshot,
    Started,
    StateRow,
    Submitted,
    Subscribed,
    Told,
    Unwatched,
    Watched,
    dump,
    load,
)
from .judge import judge
from .violations import Kind, Violation

__all__ = [
    "BROKER",
    "CLOCK",
    "DATABASE",
    "Acknowledged",
    "CancelAnswered",
    "CancelAsked",
    "Event",
    "Executed",
    "Fault",
    "Kind",
    "LeaseLost",
    "Postponed",
    "Quiet",
    "Received",
    "Recorded",
    "Refused",
    "Released",
    "Reported",
    "RunRow",
    "Snapshot",
    "Started",
    "StateRow",
    "Submitted",
    "Subscribed",
    "Told",
    "Unwatched",
    "Violation",
    "Watched",
    "dump",
    "judge",
    "load",
]
