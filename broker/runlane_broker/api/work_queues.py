"""`/api/work_queues`: queues by their ids, and those of the default pool by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec import UNSET

from ..clock import MICROS_PER_SECOND, to_datetime, to_micros
from ..core.core import Core
from ..errors import Invalid, NotFound
from ..schemas.filters import AnyOrNot, Filters, FlowRunFilter
from ..schemas.flow_runs import FlowRun
from ..schemas.queues import (
    GetRuns,
    HealthCheckPolicy,
    QueueFilterBody,
    WorkQueue,
    WorkQueueCreate,
    WorkQueueList,
    WorkQueueStatus,
    WorkQueueUpdate,
)
from ..storage.operations.handing_out import LATEST, Asked
from ..storage.operations.queues import NO_FILTER, QueueKey
from ..storage.queue_records import POLLED_RECENTLY, QueueFilter, QueueRecord, filter_text
from .rendering import render_flow_run
from .routes import Route

_TAG: Final = "work_queues"
#: Sent by who merely looks: that is no poll.
UI_HEADER: Final = "x-prefect-ui"
_NOT_FOUND: Final = "work queue not found"


class WorkQueues:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, body: WorkQueueCreate) -> WorkQueue:
        """Create a queue of the default pool."""
        return await show_queue(self._core, await self._core.queues.create(None, body.name, new_columns(body)))

    async def read(self, id: str) -> WorkQueue:
        """Return a queue."""
        return await show_queue(self._core, await self._core.store.queues.queue(id))

    async def read_by_name(self, name: str) -> WorkQueue:
        """Return the default pool's queue with a name."""
        return await show_queue(self._core, await self._core.store.queues.queue_named(name))

    async def list(self, body: WorkQueueList) -> list[WorkQueue]:
        """Return queues of all pools."""
        found = Filters(work_queues=body.work_queues)
        records = await self._core.store.lists.work_queues.list(found, None, body.size, body.offset or 0)
        return await show_queues(self._core, records)

    async def update(self, id: str, body: WorkQueueUpdate) -> None:
        """Change a queue."""
        await self._core.queues.update(QueueKey(id), changed_columns(body))

    async def delete(self, id: str) -> None:
        """Delete a queue."""
        await self._core.queues.delete(QueueKey(id))

    async def status(self, id: str) -> WorkQueueStatus:
        """Say how a queue is."""
        health = await self._core.store.queues.health(id)
        if health is None:
            raise NotFound(f"Work queue with id {id} not found")
        polled = health.last_polled
        recently = polled is not None and self._core.clock.now() - polled <= POLLED_RECENTLY
        return WorkQueueStatus(
            healthy=recently and health.late_runs == 0,
            late_runs_count=health.late_runs,
            last_polled=None if polled is None else to_datetime(polled),
            health_check_policy=HealthCheckPolicy(
                maximum_late_runs=0,
                maximum_seconds_since_last_polled=POLLED_RECENTLY // MICROS_PER_SECOND,
            ),
        )

    async def get_runs(self, id: str, body: GetRuns, headers: Mapping[str, str | None]) -> list[FlowRun]:
        """Return the runs that a queue has for who asks."""
        queue = await self._core.store.queues.queue(id)
        if queue is None:
            raise NotFound(f"Work queue with id {id} not found.")
        before = LATEST if body.scheduled_before is None else to_micros(body.scheduled_before)
        asked = Asked(body.size, before, claim_seconds=body.claim_seconds, is_poll=is_poll(headers))
        runs = await flow_runs(self._core, await self._core.queues.hand_out(queue, asked))
        return list(runs.values())


def is_poll(headers: Mapping[str, str | None]) -> bool:
    """Say whether who asks serves the queue, and does not merely look at it."""
    return (headers[UI_HEADER] or "").lower() != "true"


async def flow_runs(core: Core, ids: Sequence[str]) -> dict[str, FlowRun]:
    """Return runs by id, in this order."""
    if not ids:
        return {}
    which = Filters(flow_runs=FlowRunFilter(id=AnyOrNot(any_=tuple(map(UUID, ids)))))
    now = core.clock.now()
    found = {run.id: run for run in await core.store.flow_runs.list(which, None, len(ids), 0)}
    return {run_id: render_flow_run(found[run_id], now) for run_id in ids if run_id in found}


async def show_queue(core: Core, queue: QueueRecord | None) -> WorkQueue:
    """Return a queue as it is shown. Raises `NotFound`."""
    if queue is None:
        raise NotFound(_NOT_FOUND)
    return (await show_queues(core, [queue]))[0]


async def show_queues(core: Core, queues: Sequence[QueueRecord]) -> list[WorkQueue]:
    """Return queues as they are shown."""
    limited = [queue for queue in queues if queue.concurrency_limit is not None]
    active = await core.store.queues.active(limited) if limited else {}
    return [_render(queue, active.get(queue.id, 0)) for queue in queues]


def _render(queue: QueueRecord, active: int) -> WorkQueue:
    filter_ = queue.filter
    return WorkQueue(
        id=queue.id,
        created=to_datetime(queue.created),
        updated=to_datetime(queue.updated),
        name=queue.name,
        description=queue.description,
        is_paused=queue.is_paused,
        concurrency_limit=queue.concurrency_limit,
        priority=queue.priority,
        work_pool_id=queue.pool_id,
        work_pool_name=queue.pool_name,
        filter=None
        if filter_ is None
        else QueueFilterBody(tags=filter_.tags, deployment_ids=filter_.deployment_ids),
        last_polled=None if queue.last_polled is None else to_datetime(queue.last_polled),
        status=queue.status.value,
        active_slots=None if queue.concurrency_limit is None else active,
        late_after=UNSET if queue.late_after is None else queue.late_after / MICROS_PER_SECOND,
    )


def new_columns(body: WorkQueueCreate) -> dict[str, Any]:
    """Return a new queue's columns."""
    return {
        "description": body.description or "",
        "is_paused": body.is_paused,
        "concurrency_limit": body.concurrency_limit,
        "priority": body.priority,
        "filter": _filter(body.filter),
        "late_after": _micros(body.late_after),
    }


#: What a queue has to have: null changes nothing.
_REQUIRED: Final = frozenset({"name", "description", "is_paused", "priority"})


def changed_columns(body: WorkQueueUpdate) -> dict[str, Any]:
    """Return the columns that a body changes."""
    said = {name: getattr(body, name) for name in body.__struct_fields__}
    changes = {
        name: value
        for name, value in said.items()
        if value is not UNSET and not (value is None and name in _REQUIRED)
    }
    convert = {"last_polled": _time, "filter": _filter, "late_after": _micros}
    return {name: convert[name](value) if name in convert else value for name, value in changes.items()}


def _time(value: Any) -> int | None:
    return None if value is None else to_micros(value)


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * MICROS_PER_SECOND)


def _filter(body: QueueFilterBody | None) -> str | None:
    return None if body is None else filter_text(QueueFilter(tags=body.tags, deployment_ids=body.deployment_ids))


def refuse_filter(body: WorkQueueCreate | WorkQueueUpdate) -> None:
    """Raise `Invalid`: a queue has the runs that were put into it, or those that a filter finds, not both."""
    if isinstance(body.filter, QueueFilterBody):
        raise Invalid(NO_FILTER, "filter")


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    queues = WorkQueues(core)
    gone = {404: "There is no such queue"}
    taken = {409: "The name is taken"}
    return [
        Route(
            method="POST",
            path="/api/work_queues/",
            handler=queues.create,
            summary="Create a work queue in the default pool",
            tag=_TAG,
            answers={201: WorkQueue},
            refusals=taken,
            body=WorkQueueCreate,
        ),
        Route(
            method="POST",
            path="/api/work_queues/filter",
            handler=queues.list,
            summary="List work queues by name",
            tag=_TAG,
            answers={200: list[WorkQueue]},
            body=WorkQueueList,
        ),
        Route(
            method="GET",
            path="/api/work_queues/name/{name}",
            handler=queues.read_by_name,
            summary="Read a work queue of the default pool by its name",
            tag=_TAG,
            answers={200: WorkQueue},
            refusals=gone,
        ),
        Route(
            method="GET",
            path="/api/work_queues/{id:uuid}",
            handler=queues.read,
            summary="Read a work queue",
            tag=_TAG,
            answers={200: WorkQueue},
            refusals=gone,
        ),
        Route(
            method="PATCH",
            path="/api/work_queues/{id:uuid}",
            handler=queues.update,
            summary="Change a work queue",
            tag=_TAG,
            answers={204: None},
            refusals={**gone, **taken},
            body=WorkQueueUpdate,
        ),
        Route(
            method="DELETE",
            path="/api/work_queues/{id:uuid}",
            handler=queues.delete,
            summary="Delete a work queue",
            tag=_TAG,
            answers={204: None},
            refusals={**gone, 409: "It is its pool's default queue"},
        ),
        Route(
            method="GET",
            path="/api/work_queues/{id:uuid}/status",
            handler=queues.status,
            summary="Say how a work queue is",
            tag=_TAG,
            answers={200: WorkQueueStatus},
            refusals=gone,
        ),
        Route(
            method="POST",
            path="/api/work_queues/{id:uuid}/get_runs",
            handler=queues.get_runs,
            summary="Poll a work queue for runs",
            tag=_TAG,
            answers={200: list[FlowRun]},
            refusals=gone,
            body=GetRuns,
            headers=(UI_HEADER,),
        ),
    ]
