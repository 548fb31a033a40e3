"""Task keys whose runs wait while no worker serves them: its key is misspelt, or the worker is missing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from ..clock import Clock
from ..dispatch import Dispatcher

logger = logging.getLogger("runlane.dispatch")

#: Seconds that a key may go without a worker before that is worth a word: workers are started, and come back.
PATIENCE_SECONDS: Final = 10.0
#: Seconds until it is said again.
REPEAT_SECONDS: Final = 3600.0
#: Keys that are kept in mind; whoever submits makes them up.
MAX_KEYS: Final = 1000


@dataclass(slots=True)
class UnservedKey:
    """A key, since when it is without a worker, and how many runs have become due for it meanwhile."""

    task_key: str
    since: float  # monotonic, and the next too
    warn_at: float
    waiting: int = 0


class Unserved:
    """Takes note of what is queued for nobody. What has waited since before this broker started is not counted."""

    def __init__(self, clock: Clock, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._keys: dict[str, UnservedKey] = {}

    def __repr__(self) -> str:
        return f"<Unserved {len(self._keys)} keys>"

    def note(self, task_key: str) -> None:
        """Note that a run waits for a worker to come."""
        known = self._keys.get(task_key)
        if known is None:
            if len(self._keys) >= MAX_KEYS:
                return
            now = self._clock.monotonic()
            known = self._keys[task_key] = UnservedKey(task_key, now, now + PATIENCE_SECONDS)
        known.waiting += 1

    def missing(self) -> list[UnservedKey]:
        """Return the keys that have been without a worker for too long, the longest first."""
        for key in [key for key in self._keys if self._dispatcher.has_demand(key)]:
            del self._keys[key]
        latest = self._clock.monotonic() - PATIENCE_SECONDS
        return [known for known in self._keys.values() if known.since <= latest]

    def look(self) -> list[str]:
        """Warn of such keys, rarely of each; return those that were warned of."""
        now = self._clock.monotonic()
        due = [known for known in self.missing() if now >= known.warn_at]
        for known in due:
            known.warn_at = now + REPEAT_SECONDS
            logger.warning("no worker has asked for %s: %d runs wait", known.task_key, known.waiting)
        return [known.task_key for known in due]
