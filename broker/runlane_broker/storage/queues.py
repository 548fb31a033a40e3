"""Reading work pools and work queues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable

from .queries import queues as q
from .queue_records import (
    DEFAULT_POOL,
    HolderRecord,
    PoolRecord,
    QueueFilter,
    QueueHealth,
    QueueRecord,
    count_taken,
    pool_record,
    queue_record,
)
from .tables import work_pool, work_queue

#: Runs that are read at once while a filter looks for its own.
_PAGE: Final = 500


class QueueReader:
    """What is known of work pools and work queues. All raise `StoreUnavailable`."""

    def __init__(self, reading: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._reading = reading

    async def pool(self, name: str) -> PoolRecord | None:
        """Return a pool by its name."""
        rows = await self._rows(q.read_pools().where(work_pool.c.name == name))
        return pool_record(rows[0]) if rows else None

    async def queue(self, queue_id: str) -> QueueRecord | None:
        """Return a queue."""
        rows = await self._rows(q.read_queues().where(work_queue.c.id == queue_id))
        return queue_record(rows[0]) if rows else None

    async def queue_by_name(self, pool: str, name: str) -> QueueRecord | None:
        """Return a pool's queue by its name."""
        rows = await self._rows(q.read_queues().where(work_pool.c.name == pool, work_queue.c.name == name))
        return queue_record(rows[0]) if rows else None

    async def queue_named(self, name: str) -> QueueRecord | None:
        """Return the default pool's queue with a name; where there is no default pool, the first of any."""
        if await self._rows(q.has_default_pool()):
            return await self.queue_by_name(DEFAULT_POOL, name)
        rows = await self._rows(q.first_named(name))
        return queue_record(rows[0]) if rows else None

    async def active(self, queues: Sequence[QueueRecord]) -> dict[str, int]:
        """Return how many slots of each of these queues are taken, where there are any.

        A filter's are taken by its runs that are PENDING or RUNNING, whichever queue they are in.
        """
        own = [queue.id for queue in queues if queue.filter is None]
        taken: dict[str, int] = dict((await self._rows(q.count_active(own))) if own else ())
        filters = {queue.id: queue.filter for queue in queues if queue.filter is not None}
        started = await self._rows(q.read_started()) if filters else ()
        return taken | {id_: count_taken(filter_, started) for id_, filter_ in filters.items()}

    async def active_of_pool(self, pool_id: str) -> int:
        """Return how many slots of a pool are taken."""
        ids = await self._rows(select(work_queue.c.id).where(work_queue.c.work_pool_id == pool_id))
        taken = await self._rows(q.count_active([row.id for row in ids]))
        return sum(count for _, count in taken)

    async def holders(self, queue: QueueRecord, limit: int, offset: int) -> list[HolderRecord]:
        """Return part of the runs that have a queue's slots; who has been in its state for longest is first."""
        if queue.filter is None:
            query = q.read_holders(queue.id, limit, offset)
        else:
            started = [
                (row.state_timestamp, row.id)
                for row in await self._rows(q.read_started())
                if queue.filter.takes(row.tags, row.deployment_id)
            ]
            query = q.read_holders_of([id_ for _, id_ in sorted(started)[offset : offset + limit]])
        return [HolderRecord(*row) for row in await self._rows(query)]

    async def health(self, queue_id: str) -> QueueHealth | None:
        """Return how a queue is."""
        queue = await self.queue(queue_id)
        if queue is None:
            return None
        rows = await self._rows(q.count_late(queue_id))
        return QueueHealth(rows[0][0], queue.last_polled)

    async def shortest_late_after(self) -> int | None:
        """Return the shortest patience that a queue has of its own, in microseconds."""
        return (await self._rows(select(func.min(work_queue.c.late_after))))[0][0]

    async def filtered(self, filter_: QueueFilter, limit: int, before: int, slots: int | None) -> list[str]:
        """Return the ids of the first runs that a filter takes: `limit` of them, or as many as `slots` leave.

        Runs without a deployment are none of a filter's. Slots are taken by its runs that are PENDING or RUNNING.
        """
        async with self._reading() as connection:
            if slots is not None:
                started = (await connection.execute(q.read_started())).all()
                limit = min(limit, slots - count_taken(filter_, started))
            taken: list[str] = []
            after = (-(2**62), "")
            while len(taken) < limit:
                page = (await connection.execute(q.read_scheduled(after, before, _PAGE))).all()
                taken += [row.id for row in page if filter_.takes(row.tags, row.deployment_id)]
                if len(page) < _PAGE:
                    break
                after = (page[-1].due, page[-1].id)
        return taken[: max(limit, 0)]

    async def _rows(self, query: Executable) -> Sequence[Any]:
        async with self._reading() as connection:
            return (await connection.execute(query)).all()
