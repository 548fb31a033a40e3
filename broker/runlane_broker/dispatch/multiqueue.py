"""One key set's view over the queues of its keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from .pools import Pool
from .queue import TaskQueue
from .runs import QueuedRun


class MultiQueue:
    """Takes runs from the non-empty queues of a key set in turn, at a cost that does not grow with the keys.

    All sessions with the same key set share one: a key that becomes non-empty must be noted in every
    MultiQueue that has it, which costs O(distinct key sets) and not O(sessions); and sessions that serve the
    same keys go on where the other stopped, so that a key's turn does not depend on who asks.

    What takes turns are *lines*: a task key is one, and so is a pool, whatever queues of it are in the key set:
    among those its priorities decide. `queues` holds a queue for each of `keys` for as long as this lives, and
    `pools` the pool of each that is in one. The ring holds every line that has something to give once, and some
    that have nothing any more: those are dropped when their turn comes, which each `activate` has paid for.
    """

    __slots__ = ("_line_of", "_listed", "_pools", "_queues", "_ring", "keys")

    def __init__(
        self, keys: frozenset[str], queues: Mapping[str, TaskQueue], pools: Mapping[str, Pool] | None = None
    ) -> None:
        self.keys = keys
        self._queues = queues
        #: The lines that are pools, with the keys of each that are in the key set; and the line of each such key.
        self._pools: dict[str, tuple[Pool, tuple[str, ...]]] = {}
        self._line_of: dict[str, str] = {}
        for key in sorted(keys):
            pool = (pools or {}).get(key)
            if pool is not None:
                self._pools[pool.id] = (pool, (*self._pools.get(pool.id, (pool, ()))[1], key))
                self._line_of[key] = pool.id
        lines = sorted({self._line_of.get(key, key) for key in keys})
        self._ring = deque(line for line in lines if self._first(line) is not None)
        self._listed = set(self._ring)

    def __repr__(self) -> str:
        return f"<MultiQueue keys={len(self.keys)} listed={len(self._ring)}>"

    def __bool__(self) -> bool:
        return self.ready

    @property
    def ready(self) -> bool:
        """Whether there is a run to get."""
        ring = self._ring
        while ring and self._first(ring[0]) is None:
            self._listed.discard(ring.popleft())
        return bool(ring)

    def activate(self, key: str) -> None:
        """Note that a key has something to give again. Its line takes its turn after those that wait."""
        line = self._line_of.get(key, key)
        if line not in self._listed:
            self._listed.add(line)
            self._ring.append(line)

    def get_nowait(self) -> QueuedRun | None:
        """Take the best run of the line whose turn it is: each of k lines has one within k calls."""
        ring = self._ring
        while ring:
            queue = self._first(ring[0])
            if queue is not None:
                ring.rotate(-1)
                return queue.get_nowait()
            self._listed.discard(ring.popleft())
        return None

    def _first(self, line: str) -> TaskQueue | None:
        """Return the queue from which a line would give a run now."""
        if self._pools and (entry := self._pools.get(line)) is not None:
            pool, keys = entry
            return pool.first(keys, self._queues)
        return self._queues[line] or None
