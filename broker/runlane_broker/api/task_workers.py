"""`/api/task_workers`: who is connected."""

from __future__ import annotations

from ..clock import to_datetime
from ..core.core import Core
from ..core.workers import WorkerRecord
from ..schemas.task_workers import TaskWorker, TaskWorkersFilter, UnservedKey
from .routes import Route


class TaskWorkers:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def filter(self, body: TaskWorkersFilter) -> list[TaskWorker]:
        """Return the connected workers that serve some keys."""
        wanted = body.task_worker_filter
        return [_render(worker) for worker in self._core.workers.serving(wanted.task_keys if wanted else ())]

    async def missing(self) -> list[UnservedKey]:
        """Return the keys whose runs wait without a worker."""
        now = self._core.clock.monotonic()
        return [
            UnservedKey(task_key=key.task_key, seconds=now - key.since, waiting=key.waiting)
            for key in await self._core.unserved.missing()
        ]


def _render(worker: WorkerRecord) -> TaskWorker:
    return TaskWorker(
        identifier=worker.client_id,
        task_keys=list(worker.task_keys),
        queues=list(worker.queues),
        timestamp=to_datetime(worker.last_seen),
        since=to_datetime(worker.since),
        in_flight=worker.in_flight,
        free_slots=worker.free_slots,
    )


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    workers = TaskWorkers(core)
    return [
        Route(
            method="POST",
            path="/api/task_workers/filter",
            handler=workers.filter,
            summary="List the workers that are connected now",
            tag="task_workers",
            answers={200: list[TaskWorker]},
            body=TaskWorkersFilter,
        ),
        Route(
            method="GET",
            path="/api/task_workers/missing",
            handler=workers.missing,
            summary="List the task keys whose runs wait without a worker",
            tag="task_workers",
            answers={200: list[UnservedKey]},
        ),
    ]
