"""`/api/work_pools`: pools, and their queues by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET
from starlette.exceptions import HTTPException

from ..clock import to_datetime, to_micros
from ..core.core import Core
from ..errors import NotFound
from ..schemas.base import is_given
from ..schemas.filters import AnyOf, Filters, WorkPoolFilter
from ..schemas.queues import (
    GetScheduledFlowRuns,
    ScheduledFlowRun,
    WorkPool,
    WorkPoolCount,
    WorkPoolCreate,
    WorkPoolList,
    WorkPoolUpdate,
    WorkQueue,
    WorkQueueCreate,
    WorkQueueList,
    WorkQueueUpdate,
)
from ..schemas.sorts import WorkQueueSort
from ..storage.operations.handing_out import EARLIEST, LATEST, Asked
from ..storage.operations.queues import CreatePool, QueueKey
from ..storage.queue_records import PoolRecord
from .routes import Route
from .work_queues import (
    UI_HEADER,
    changed_columns,
    flow_runs,
    is_poll,
    new_columns,
    refuse_filter,
    show_queue,
    show_queues,
)

_TAG: Final = "work_pools"
_RESERVED: Final = "Work pools starting with 'Prefect' are reserved for internal use."


class WorkPools:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, body: WorkPoolCreate) -> WorkPool:
        """Create a pool with its default queue."""
        if body.name.lower().startswith("prefect"):
            raise HTTPException(403, _RESERVED)
        pool = CreatePool(
            body.name,
            body.type,
            body.description,
            bytes(body.base_job_template),
            body.is_paused,
            body.concurrency_limit,
        )
        await self._core.queues.create_pool(pool)
        return await self.read(body.name)

    async def read(self, name: str) -> WorkPool:
        """Return a pool."""
        return _render(await self._pool(name))

    async def list(self, body: WorkPoolList) -> list[WorkPool]:
        """Return pools."""
        found = Filters(work_pools=body.work_pools)
        pools = await self._core.store.lists.work_pools.list(found, None, body.size, body.offset or 0)
        return [_render(pool) for pool in pools]

    async def count(self, body: WorkPoolCount) -> int:
        """Count pools."""
        return await self._core.store.lists.work_pools.count(Filters(work_pools=body.work_pools))

    async def update(self, name: str, body: WorkPoolUpdate) -> None:
        """Change a pool."""
        await self._core.queues.update_pool(name, _changed(body))

    async def delete(self, name: str) -> None:
        """Delete a pool with its queues."""
        await self._core.queues.delete_pool(name)

    async def get_scheduled_flow_runs(
        self, name: str, body: GetScheduledFlowRuns, headers: Mapping[str, str | None]
    ) -> list[ScheduledFlowRun]:
        """Return the runs that a pool has for who asks."""
        asked = Asked(
            body.size,
            LATEST if body.scheduled_before is None else to_micros(body.scheduled_before),
            EARLIEST if body.scheduled_after is None else to_micros(body.scheduled_after),
            body.claim_seconds,
            is_poll(headers),
        )
        handed = await self._core.queues.hand_out_of_pool(name, body.work_queue_names, asked)
        runs = await flow_runs(self._core, [one.run_id for one in handed])
        return [
            ScheduledFlowRun(work_pool_id=one.pool_id, work_queue_id=one.queue_id, flow_run=runs[one.run_id])
            for one in handed
            if one.run_id in runs
        ]

    async def create_queue(self, name: str, body: WorkQueueCreate) -> WorkQueue:
        """Create a queue of a pool."""
        refuse_filter(body)
        return await show_queue(self._core, await self._core.queues.create(name, body.name, new_columns(body)))

    async def read_queue(self, name: str, queue: str) -> WorkQueue:
        """Return a pool's queue."""
        found = await self._core.store.queues.queue_by_name(name, queue)
        if found is None:
            raise NotFound(f"Work pool queue '{name}/{queue}' not found.")
        return await show_queue(self._core, found)

    async def list_queues(self, name: str, body: WorkQueueList) -> list[WorkQueue]:
        """Return a pool's queues, the first in line first."""
        await self._pool(name)
        found = Filters(work_pools=WorkPoolFilter(name=AnyOf(any_=(name,))), work_queues=body.work_queues)
        queues = await self._core.store.lists.work_queues.list(
            found, WorkQueueSort.PRIORITY_ASC, body.size, body.offset or 0
        )
        return await show_queues(self._core, queues)

    async def update_queue(self, name: str, queue: str, body: WorkQueueUpdate) -> None:
        """Change a pool's queue."""
        refuse_filter(body)
        await self._core.queues.update(QueueKey(pool=name, name=queue), changed_columns(body))

    async def delete_queue(self, name: str, queue: str) -> None:
        """Delete a pool's queue."""
        await self._core.queues.delete(QueueKey(pool=name, name=queue))

    async def _pool(self, name: str) -> PoolRecord:
        pool = await self._core.store.queues.pool(name)
        if pool is None:
            raise NotFound(f'Work pool "{name}" not found.')
        return pool


def _render(pool: PoolRecord) -> WorkPool:
    return WorkPool(
        id=pool.id,
        created=to_datetime(pool.created),
        updated=to_datetime(pool.updated),
        name=pool.name,
        type=pool.type,
        description=pool.description,
        base_job_template=msgspec.Raw(pool.base_job_template),
        is_paused=pool.is_paused,
        concurrency_limit=pool.concurrency_limit,
        default_queue_id=pool.default_queue_id,
        status=pool.status.value,
    )


def _changed(body: WorkPoolUpdate) -> dict[str, Any]:
    """Return the columns that a body changes; null in place of what has to be there changes nothing."""
    changes: dict[str, Any] = {}
    if body.description is not UNSET:
        changes["description"] = body.description
    if body.concurrency_limit is not UNSET:
        changes["concurrency_limit"] = body.concurrency_limit
    if isinstance(body.is_paused, bool):
        changes["is_paused"] = body.is_paused
    if is_given(body.base_job_template):
        changes["base_job_template"] = bytes(body.base_job_template)
    return changes


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    pools = WorkPools(core)
    return [*_pool_routes(pools), *_queue_routes(pools)]


def _pool_routes(pools: WorkPools) -> list[Route]:
    gone = {404: "There is no such pool"}
    return [
        Route(
            method="POST",
            path="/api/work_pools/",
            handler=pools.create,
            summary="Create a work pool with its default queue",
            tag=_TAG,
            answers={201: WorkPool},
            refusals={403: "The name begins with Prefect", 409: "The name is taken"},
            body=WorkPoolCreate,
        ),
        Route(
            method="POST",
            path="/api/work_pools/filter",
            handler=pools.list,
            summary="List work pools by name",
            tag=_TAG,
            answers={200: list[WorkPool]},
            body=WorkPoolList,
        ),
        Route(
            method="POST",
            path="/api/work_pools/count",
            handler=pools.count,
            summary="Count work pools",
            tag=_TAG,
            answers={200: int},
            body=WorkPoolCount,
        ),
        Route(
            method="GET",
            path="/api/work_pools/{name}",
            handler=pools.read,
            summary="Read a work pool",
            tag=_TAG,
            answers={200: WorkPool},
            refusals=gone,
        ),
        Route(
            method="PATCH",
            path="/api/work_pools/{name}",
            handler=pools.update,
            summary="Change a work pool",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
            body=WorkPoolUpdate,
        ),
        Route(
            method="DELETE",
            path="/api/work_pools/{name}",
            handler=pools.delete,
            summary="Delete a work pool with its queues",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
        ),
        Route(
            method="POST",
            path="/api/work_pools/{name}/get_scheduled_flow_runs",
            handler=pools.get_scheduled_flow_runs,
            summary="Poll a work pool for runs",
            tag=_TAG,
            answers={200: list[ScheduledFlowRun]},
            refusals={404: "There is no such pool, or queue of it"},
            body=GetScheduledFlowRuns,
            headers=(UI_HEADER,),
        ),
    ]


def _queue_routes(pools: WorkPools) -> list[Route]:
    gone = {404: "There is no such pool, or queue of it"}
    taken = {409: "The name is taken"}
    return [
        Route(
            method="POST",
            path="/api/work_pools/{name}/queues",
            handler=pools.create_queue,
            summary="Create a work queue in a pool",
            tag=_TAG,
            answers={201: WorkQueue},
            refusals={404: "There is no such pool", **taken},
            body=WorkQueueCreate,
        ),
        Route(
            method="POST",
            path="/api/work_pools/{name}/queues/filter",
            handler=pools.list_queues,
            summary="List a pool's work queues by priority",
            tag=_TAG,
            answers={200: list[WorkQueue]},
            refusals={404: "There is no such pool"},
            body=WorkQueueList,
        ),
        Route(
            method="GET",
            path="/api/work_pools/{name}/queues/{queue}",
            handler=pools.read_queue,
            summary="Read a pool's work queue",
            tag=_TAG,
            answers={200: WorkQueue},
            refusals=gone,
        ),
        Route(
            method="PATCH",
            path="/api/work_pools/{name}/queues/{queue}",
            handler=pools.update_queue,
            summary="Change a pool's work queue",
            tag=_TAG,
            answers={204: None},
            refusals={**gone, **taken},
            body=WorkQueueUpdate,
        ),
        Route(
            method="DELETE",
            path="/api/work_pools/{name}/queues/{queue}",
            handler=pools.delete_queue,
            summary="Delete a pool's work queue",
            tag=_TAG,
            answers={204: None},
            refusals={**gone, 409: "It is the pool's default queue"},
        ),
    ]
