"""Reading work pools and work queues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable

from .queries import queues as q
from .queue_records import DEFAULT_POOL, PoolRecord, QueueHealth, QueueRecord, pool_record, queue_record
from .tables import work_pool, work_queue


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

    async def active(self, queue_ids: Sequence[str]) -> dict[str, int]:
        """Return how many runs of each of these queues are under way, where there are any."""
        rows = await self._rows(q.count_active(list(queue_ids)))
        return dict(rows)

    async def health(self, queue_id: str) -> QueueHealth | None:
        """Return how a queue is."""
        queue = await self.queue(queue_id)
        if queue is None:
            return None
        rows = await self._rows(q.count_late(queue_id))
        return QueueHealth(rows[0][0], queue.last_polled)

    async def pools(self, names: Sequence[str] | None, limit: int, offset: int) -> list[PoolRecord]:
        """Return pools by name."""
        query = q.read_pools().order_by(work_pool.c.name).limit(limit).offset(offset)
        if names is not None:
            query = query.where(work_pool.c.name.in_(names))
        return [pool_record(row) for row in await self._rows(query)]

    async def shortest_late_after(self) -> int | None:
        """Return the shortest patience that a queue has of its own, in microseconds."""
        return (await self._rows(select(func.min(work_queue.c.late_after))))[0][0]

    async def count_pools(self) -> int:
        """Count the pools."""
        return (await self._rows(select(func.count()).select_from(work_pool)))[0][0]

    async def queues(self, names: Sequence[str] | None, limit: int, offset: int) -> list[QueueRecord]:
        """Return queues of all pools, by name."""
        query = q.read_queues().order_by(work_queue.c.name, work_pool.c.name).limit(limit).offset(offset)
        if names is not None:
            query = query.where(work_queue.c.name.in_(names))
        return [queue_record(row) for row in await self._rows(query)]

    async def queues_of(
        self, pool: str, names: Sequence[str] | None, limit: int, offset: int
    ) -> list[QueueRecord]:
        """Return a pool's queues, the first in line first."""
        query = q.read_queues().where(work_pool.c.name == pool).order_by(work_queue.c.priority)
        if names is not None:
            query = query.where(work_queue.c.name.in_(names))
        return [queue_record(row) for row in await self._rows(query.limit(limit).offset(offset))]

    async def _rows(self, query: Executable) -> Sequence[Any]:
        async with self._reading() as connection:
            return (await connection.execute(query)).all()
