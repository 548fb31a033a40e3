"""Work pools: windows that share a limit, and are served strictly by priority."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .queue import TaskQueue


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """A work queue as it stands in the database. The lowest `priority` goes first. `limit` None: there is none."""

    key: str
    priority: int
    paused: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A work pool as it stands in the database, with all its queues."""

    id: str
    queues: tuple[QueueSettings, ...]
    paused: bool = False
    limit: int | None = None


class Gate:
    """How many more runs may be reserved, as far as memory knows. The database has the last word.

    At first that is the limit, whatever runs already: a lease that the database refuses shuts the gate, and a
    slot that becomes free opens it again, for one run. So memory may expect too much, which costs a refusal, but
    never too little.
    """

    __slots__ = ("_limit", "_paused", "_room")

    def __init__(self, limit: int | None = None, *, paused: bool = False) -> None:
        self._limit = limit
        self._paused = paused
        self._room = limit

    def __repr__(self) -> str:
        room = "any" if self._room is None else self._room
        return f"<Gate {'paused' if self._paused else 'open' if self.is_open else 'shut'} room={room}>"

    @property
    def is_open(self) -> bool:
        """Whether a run may be reserved."""
        return not self._paused and (self._room is None or self._room > 0)

    def set(self, limit: int | None, *, paused: bool) -> None:
        """Note what the database says now. The same again changes nothing, unless the gate was shut."""
        if self._limit != limit or self._paused != paused or self._room == 0:
            self._limit, self._paused, self._room = limit, paused, limit

    def reset(self) -> None:
        """Expect as much as there may be."""
        self._room = self._limit

    def take(self) -> None:
        """Note that a run was reserved."""
        if self._room is not None:
            self._room -= 1

    def give_back(self) -> None:
        """Note that a slot has become free."""
        if self._limit is None:
            self._room = None
        else:
            self._room = min((self._room or 0) + 1, self._limit)

    def shut(self) -> None:
        """Note that the database has refused a lease: there is no slot."""
        self._room = 0


class Pool:
    """The work queues of a pool, as far as they are served."""

    __slots__ = ("_gates", "_priorities", "gate", "id", "keys")

    def __init__(self, settings: PoolSettings) -> None:
        self.id = settings.id
        self.gate = Gate(settings.limit, paused=settings.paused)
        self._gates: dict[str, Gate] = {}
        self._priorities: dict[str, int] = {}
        #: The keys that somebody serves.
        self.keys: set[str] = set()
        self.set(settings)

    def __repr__(self) -> str:
        return f"<Pool {self.id} queues={len(self._gates)} {self.gate!r}>"

    def set(self, settings: PoolSettings) -> Collection[str]:
        """Note what the database says now, of the pool and of all its queues; return the keys of those gone."""
        self.gate.set(settings.limit, paused=settings.paused)
        gone = self._gates.keys() - {queue.key for queue in settings.queues}
        for key in gone:
            del self._gates[key]  # its runs are in no queue now, and take no slot of the pool any more
            self.gate.reset()
        for queue in settings.queues:
            self._priorities[queue.key] = queue.priority
            gate = self._gates.get(queue.key)
            if gate is None:
                self._gates[queue.key] = Gate(queue.limit, paused=queue.paused)
            else:
                gate.set(queue.limit, paused=queue.paused)
        return gone

    def take(self, key: str) -> None:
        """Note that a run of a queue was reserved."""
        for gate in self.gates(key):
            gate.take()

    def give_back(self, key: str) -> None:
        """Note that a run of a queue takes its slot no more."""
        for gate in self.gates(key):
            gate.give_back()

    def gates(self, key: str) -> tuple[Gate, ...]:
        """Return what a run of a queue has to pass."""
        gate = self._gates.get(key)
        return (self.gate,) if gate is None else (gate, self.gate)

    def first(self, keys: tuple[str, ...], queues: Mapping[str, TaskQueue]) -> TaskQueue | None:
        """Return the first of some queues, by priority, that has a run which may be reserved."""
        if not self.gate.is_open:
            return None
        ready = [key for key in keys if queues[key] and self._is_open(key)]
        return queues[min(ready, key=self._priorities.__getitem__)] if ready else None

    def _is_open(self, key: str) -> bool:
        gate = self._gates.get(key)
        return gate is not None and gate.is_open


class ServedPools:
    """The pools of which some session serves a queue, by their ids and by the keys of those queues."""

    __slots__ = ("_pools", "by_key")

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self.by_key: dict[str, Pool] = {}

    def __repr__(self) -> str:
        return f"<ServedPools pools={len(self._pools)} queues={len(self.by_key)}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all."""
        return tuple(self._pools)

    def get(self, pool_id: str) -> Pool | None:
        """Return a pool by its id."""
        return self._pools.get(pool_id)

    def of(self, key: str) -> Pool | None:
        """Return the pool of a key; None for a task key."""
        return self.by_key.get(key)

    def serve(self, settings: PoolSettings, keys: frozenset[str]) -> Pool:
        """Note that somebody serves those of `keys` that are queues of this pool."""
        pool = self._pools.get(settings.id)
        if pool is None:
            pool = self._pools[settings.id] = Pool(settings)
        else:
            pool.set(settings)
        for queue in settings.queues:
            if queue.key in keys:
                pool.keys.add(queue.key)
                self.by_key[queue.key] = pool
        return pool

    def leave(self, key: str) -> None:
        """Note that nobody serves a key any more; a pool without such keys is forgotten."""
        pool = self.by_key.pop(key, None)
        if pool is None:
            return
        pool.keys.discard(key)
        if not pool.keys:
            del self._pools[pool.id]
