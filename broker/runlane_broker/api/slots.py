"""`concurrency_status` of work queues and work pools: who has their slots."""

from __future__ import annotations

from ..clock import MICROS_PER_SECOND, to_datetime
from ..core.core import Core
from ..errors import NotFound
from ..schemas.filters import AnyOf, Filters, WorkPoolFilter
from ..schemas.lists import size_of
from ..schemas.slots import PoolConcurrency, PoolSlots, QueueConcurrency, QueueOfPool, QueueSlots, SlotHolder
from ..schemas.sorts import WorkQueueSort
from ..storage.queue_records import HolderRecord, QueueRecord
from .routes import Route


class Slots:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def of_queue(self, id: str, body: QueueSlots) -> QueueConcurrency:
        """Say who has the slots of a queue."""
        queue = await self._core.store.queues.queue(id)
        if queue is None:
            raise NotFound("Work queue not found.")
        limit, page = size_of(body.limit), body.page or 1
        taken = await self._core.store.queues.active([queue])
        count = taken.get(queue.id, 0)
        return QueueConcurrency(
            active_slots=count,
            concurrency_limit=queue.concurrency_limit,
            flow_runs=await self._holders(queue, limit, (page - 1) * limit),
            count=count,
            limit=limit,
            pages=_pages(count, limit),
            page=page,
        )

    async def of_pool(self, name: str, body: PoolSlots) -> PoolConcurrency:
        """Say who has the slots of a pool, queue by queue."""
        pool = await self._core.store.queues.pool(name)
        if pool is None:
            raise NotFound(f'Work pool "{name}" not found.')
        lists = self._core.store.lists.work_queues
        found = Filters(work_pools=WorkPoolFilter(name=AnyOf(any_=(name,))))
        limit, page = size_of(body.limit), body.page or 1
        count = await lists.count(found)
        queues = await lists.list(found, WorkQueueSort.PRIORITY_ASC, limit, (page - 1) * limit)
        taken = await self._core.store.queues.active(queues)
        return PoolConcurrency(
            active_slots=await self._core.store.queues.active_of_pool(pool.id),
            concurrency_limit=pool.concurrency_limit,
            queues=[
                QueueOfPool(
                    queue_id=queue.id,
                    queue_name=queue.name,
                    active_slots=taken.get(queue.id, 0),
                    concurrency_limit=queue.concurrency_limit,
                    flow_runs=await self._holders(queue, body.flow_run_limit, 0),
                    flow_run_count=taken.get(queue.id, 0),
                )
                for queue in queues
            ],
            count=count,
            limit=limit,
            pages=_pages(count, limit),
            page=page,
        )

    async def _holders(self, queue: QueueRecord, limit: int, offset: int) -> list[SlotHolder]:
        now = self._core.clock.now()
        return [_shown(one, now) for one in await self._core.store.queues.holders(queue, limit, offset)]


def _shown(run: HolderRecord, now: int) -> SlotHolder:
    return SlotHolder(
        id=run.id,
        name=run.name,
        state_type=run.state_type,
        state_name=run.state_name,
        start_time=None if run.start_time is None else to_datetime(run.start_time),
        state_timestamp=to_datetime(run.state_timestamp),
        time_in_current_state=max(now - run.state_timestamp, 0) / MICROS_PER_SECOND,
    )


def _pages(count: int, limit: int) -> int:
    return -(-count // limit) if limit else 0


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    slots = Slots(core)
    return [
        Route(
            method="POST",
            path="/api/work_queues/{id:uuid}/concurrency_status",
            handler=slots.of_queue,
            summary="Say which runs have the slots of a work queue",
            tag="work_queues",
            answers={200: QueueConcurrency},
            refusals={404: "There is no such queue"},
            body=QueueSlots,
        ),
        Route(
            method="POST",
            path="/api/work_pools/{name}/concurrency_status",
            handler=slots.of_pool,
            summary="Say which runs have the slots of a work pool, by queue",
            tag="work_pools",
            answers={200: PoolConcurrency},
            refusals={404: "There is no such pool"},
            body=PoolSlots,
        ),
    ]
