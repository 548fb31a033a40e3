"""Task keys whose runs wait while no worker serves them: its key is misspelt, or the worker is missing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from ..clock import Clock
from ..dispatch import Dispatcher
from ..storage.store import Store

logger = logging.getLogger("runlane.dispatch")

#: Seconds that a key may go without a worker before that is worth a word: workers are started, and come back.
PATIENCE_SECONDS: Final = 10.0
#: Seconds until it is said again.
REPEAT_SECONDS: Final = 3600.0
#: Keys that are kept in mind; whoever submits makes them up.
MAX_KEYS: Final = 1000


@dataclass(slots=True)
class UnservedKey:
    """A key, since when runs wait for it without a worker, and how many do."""

    task_key: str
    since: float  # monotonic, and the next too
    warn_at: float
    waiting: int = 0  # when it was last looked up


class Unserved:
    """Takes note of keys for which runs are queued that nobody asks for.

    Keys whose runs have all waited since before this broker started are not known of.
    """

    def __init__(self, clock: Clock, store: Store, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._store = store
        self._dispatcher = dispatcher
        self._keys: dict[str, UnservedKey] = {}

    def __repr__(self) -> str:
        return f"<Unserved {len(self._keys)} keys>"

    def note(self, task_key: str) -> None:
        """Note that a run waits for a worker to come."""
        if task_key not in self._keys and len(self._keys) < MAX_KEYS:
            now = self._clock.monotonic()
            self._keys[task_key] = UnservedKey(task_key, now, now + PATIENCE_SECONDS)

    async def missing(self) -> list[UnservedKey]:
        """Return the keys that have been without a worker for too long, the longest first.

        Raises `StoreUnavailable`.
        """
        for key in [key for key in self._keys if self._dispatcher.has_demand(key)]:
            del self._keys[key]
        latest = self._clock.monotonic() - PATIENCE_SECONDS
        late = [known for known in self._keys.values() if known.since <= latest]
        waiting = await self._store.count_queued_of([known.task_key for known in late]) if late else {}
        for known in late:
            known.waiting = waiting.get(known.task_key, 0)
            if not known.waiting:  # cancelled, or deleted
                self._keys.pop(known.task_key, None)
        return [known for known in late if known.waiting]

    async def look(self) -> list[str]:
        """Warn of such keys, rarely of each; return those that were warned of."""
        now = self._clock.monotonic()
        due = [known for known in await self.missing() if now >= known.warn_at]
        for known in due:
            known.warn_at = now + REPEAT_SECONDS
            logger.warning("no worker has asked for %s: %d runs wait", known.task_key, known.waiting)
        return [known.task_key for known in due]
