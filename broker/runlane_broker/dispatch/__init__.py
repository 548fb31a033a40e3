"""Which session gets which run: pure, synchronous and deterministic, without waiting, I/O or clock.

`TaskQueue` is the window over the dispatchable runs of one task key, `MultiQueue` the view of one key set
over its windows, `Pool` what the windows of a work pool share, and `Dispatcher` puts runs and free slots
together. A caller reserves (`assign`, `hand_off`), commits the leases, and answers each reservation
(`confirm`, `abort`); it reads what `refills_wanted` asks for.
"""

from __future__ import annotations

from .dispatcher import Dispatcher
from .multiqueue import MultiQueue
from .places import Place, PlaceKind, Reservation
from .pools import PoolSettings, QueueSettings
from .queue import DEFAULT_WINDOW_SIZE, RefillTicket, TaskQueue
from .runs import RETRY_LANE, SCHEDULED_LANE, QueuedRun

__all__ = [
    "DEFAULT_WINDOW_SIZE",
    "RETRY_LANE",
    "SCHEDULED_LANE",
    "Dispatcher",
    "MultiQueue",
    "Place",
    "PlaceKind",
    "PoolSettings",
    "QueueSettings",
    "QueuedRun",
    "RefillTicket",
    "Reservation",
    "TaskQueue",
]
