"""Work pools and work queues: what can be done with them, and who is told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ..dispatch import Dispatcher
from ..errors import Invalid, NotFound
from ..storage.operations.base import Operation
from ..storage.operations.handing_out import Asked, HandOut, HandOutOfPool, HandOutOfQueue
from ..storage.operations.queues import (
    CreatePool,
    CreateQueue,
    DeletePool,
    DeleteQueue,
    EnsureQueue,
    ForgetPolls,
    QueueKey,
    RecordPolls,
    UpdatePool,
    UpdateQueue,
)
from ..storage.operations.serving import ChangeQueues, ReadPools
from ..storage.queue_records import (
    HandedOut,
    QueueChange,
    QueueFilter,
    QueueRecord,
    ServedPool,
    queue_key,
    split_queue_key,
)
from ..storage.store import Store
from .dispatching import Dispatching
from .writing import write

T = TypeVar("T")

logger = logging.getLogger("runlane.queues")


class Queues:
    """What can be done with pools and queues. All raise `StoreUnavailable`, and what their operations say."""

    def __init__(self, store: Store, dispatcher: Dispatcher, dispatching: Dispatching) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        #: How often the status of a queue has changed, by the status it has got.
        self.changes: Counter[str] = Counter()

    async def create_pool(self, pool: CreatePool) -> None:
        """Make a pool with its default queue."""
        await self._change(pool)

    async def update_pool(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change columns of a pool."""
        await self._change(UpdatePool(name, changes))

    async def delete_pool(self, name: str) -> None:
        """Delete a pool with its queues."""
        await self._change(DeletePool(name))

    async def create(self, pool: str | None, name: str, values: Mapping[str, Any]) -> QueueRecord:
        """Make a queue; without a pool it goes to the default pool."""
        return await self._read(await self._change(CreateQueue(pool, name, values)))

    async def ensure(self, name: str) -> QueueRecord:
        """Return a queue of the default pool, which is made if need be."""
        return await self._read(await self._change(EnsureQueue(name)))

    async def update(self, key: QueueKey, changes: Mapping[str, Any]) -> None:
        """Change columns of a queue."""
        self.tell([await self._change(UpdateQueue(key, changes))])

    async def delete(self, key: QueueKey) -> None:
        """Delete a queue that is not a default one."""
        await self._change(DeleteQueue(key))

    async def hand_out(self, queue: QueueRecord, asked: Asked) -> list[str]:
        """Return the ids of the runs that a queue has for who asks, in order.

        Raises `Invalid` for a claim on the runs of a filter, which are not the queue's own.
        """
        if queue.filter is not None:
            return await self._find(queue, queue.filter, asked)
        handed = await write(self._store, HandOutOfQueue(queue.id, asked), self._handed_out)
        return [run.run_id for run in handed.runs]

    async def _find(self, queue: QueueRecord, filter_: QueueFilter, asked: Asked) -> list[str]:
        if asked.claim_seconds is not None:
            raise Invalid("Runs that a filter finds cannot be claimed", "claim_seconds")
        if asked.is_poll:
            self.tell(await self._store.run(RecordPolls((queue.id,))))
        pool = await self._store.queues.pool(queue.pool_name)
        if queue.is_paused or pool is None or pool.is_paused:
            return []
        slots = queue.concurrency_limit
        return await self._store.queues.filtered(filter_, asked.limit, asked.before, slots)

    async def hand_out_of_pool(
        self, pool: str, names: tuple[str, ...] | None, asked: Asked
    ) -> tuple[HandedOut, ...]:
        """Return the runs that a pool has for who asks."""
        handed = await write(self._store, HandOutOfPool(pool, names, asked), self._handed_out)
        return handed.runs

    async def forget_polls(self) -> int:
        """Let queues that nobody has polled for a minute be NOT_READY; return how many.

        Who serves a queue over a session need not poll it.
        """
        served = tuple(split_queue_key(key)[1] for key in self._dispatcher.served_queues)
        if served:
            self.tell(await self._store.run(RecordPolls(served)))
        changes = await self._store.run(ForgetPolls())
        self.tell(changes)
        return len(changes)

    async def _change(self, operation: Operation[T]) -> T:
        """Change pools or queues; sessions that serve them are pushed what that means from the commit on."""
        change = ChangeQueues(operation, tuple(self._dispatcher.served_pools))
        outcome, _ = await write(self._store, change, self._changed)
        return outcome

    def _changed(self, outcome: tuple[object, tuple[ServedPool, ...]]) -> None:
        pools = outcome[1]
        self._dispatching.set_pools(pools)
        # A session that was opened while the change was on its way has read its pools before that.
        unread = set(self._dispatcher.served_pools) - {pool.id for pool in pools}
        if unread:
            self._dispatching.persist(ReadPools(tuple(unread)), self._read_late)

    def _read_late(self, outcome: Any) -> None:
        if not isinstance(outcome, Exception):
            self._dispatching.set_pools(outcome)

    def _handed_out(self, handed: HandOut) -> None:
        self.tell(handed.changes)
        if handed.claimed_until is not None:
            for run in handed.runs:
                key = queue_key(run.pool_id, run.queue_id)
                self._dispatching.claimed(key, run.run_id, handed.claimed_until)

    async def _read(self, queue_id: str) -> QueueRecord:
        queue = await self._store.queues.queue(queue_id)
        if queue is None:  # deleted since
            raise NotFound("work queue not found")
        return queue

    def tell(self, changes: Iterable[QueueChange]) -> None:
        """Say once that a status has changed."""
        for change in changes:
            if change.before is not change.after:
                self.changes[change.after] += 1
                logger.info(
                    "work queue %s (%s) is %s, was %s", change.name, change.queue_id, change.after, change.before
                )
