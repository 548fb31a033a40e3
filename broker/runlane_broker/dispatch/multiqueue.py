"""One key set's view over the queues of its keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from .queue import TaskQueue
from .runs import QueuedRun


class MultiQueue:
    """Takes runs from the non-empty queues of a key set in turn, at a cost that does not grow with the keys.

    All sessions with the same key set share one: a key that becomes non-empty must be noted in every
    MultiQueue that has it, which costs O(distinct key sets) and not O(sessions); and sessions that serve the
    same keys go on where the other stopped, so that a key's turn does not depend on who asks.

    `queues` holds a queue for each of `keys` for as long as this lives. The ring holds every non-empty key
    once, and some that have become empty since: those are dropped when their turn comes, which each
    `activate` has paid for.
    """

    __slots__ = ("_listed", "_queues", "_ring", "keys")

    def __init__(self, keys: frozenset[str], queues: Mapping[str, TaskQueue]) -> None:
        self.keys = keys
        self._queues = queues
        self._ring = deque(key for key in sorted(keys) if queues[key])
        self._listed = set(self._ring)

    def __repr__(self) -> str:
        return f"<MultiQueue keys={len(self.keys)} listed={len(self._ring)}>"

    def __bool__(self) -> bool:
        return self.ready

    @property
    def ready(self) -> bool:
        """Whether there is a run to get."""
        ring = self._ring
        while ring and not self._queues[ring[0]]:
            self._listed.discard(ring.popleft())
        return bool(ring)

    def activate(self, key: str) -> None:
        """Note that a key has become non-empty. It takes its turn after those that wait."""
        if key not in self._listed:
            self._listed.add(key)
            self._ring.append(key)

    def get_nowait(self) -> QueuedRun | None:
        """Take the best run of the key whose turn it is: each of k non-empty keys has one within k calls."""
        if not self.ready:
            return None
        run = self._queues[self._ring[0]].get_nowait()
        self._ring.rotate(-1)
        return run
