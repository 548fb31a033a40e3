"""`/api/task_runs`: create and read."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from runlane.protocol.errors import ErrorCode, FrameRefused
from runlane.protocol.ids import uuid7
from runlane.protocol.limits import MAX_HEADERS_BYTES
from runlane.protocol.payloads import check_payload
from runlane.protocol.states import StateType

from ..clock import to_micros
from ..core.core import Core
from ..core.submit import conflict_code, payload_hash
from ..errors import Invalid, NotFound, Refused
from ..schemas.runs import PolicyCreate
from ..schemas.states import StateCreate, StateDetailsCreate
from ..schemas.task_runs import TaskRun, TaskRunCreate
from ..storage.records import Created, Creation, NewRunRecord
from .rendering import render_task_run
from .routes import Answer, Route


class TaskRuns:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, body: TaskRunCreate) -> Answer:
        """Create a run, or return the one that is there already."""
        self._core.submissions.check_load()
        record = _record(body, self._core.clock.now())
        created = await self._submit(record)
        code = conflict_code(created.how)
        if code is not None:
            raise Refused(code, "There is another run with this id or idempotency key.")
        return Answer(200 if created.how is Creation.EXISTED else 201, await self.read(created.id))

    async def read(self, id: str) -> TaskRun:
        """Return a run."""
        run = await self._core.store.run_by_id(id)
        if run is None:
            raise NotFound("Task not found")
        return render_task_run(run, self._core.clock.now())

    async def _submit(self, record: NewRunRecord) -> Created:
        future: asyncio.Future[Created] = asyncio.get_running_loop().create_future()

        def done(outcomes: Any) -> None:
            if future.done():
                return
            if isinstance(outcomes, Exception):
                future.set_exception(outcomes)
            else:
                future.set_result(outcomes[0])

        self._core.submissions.submit([record], done)
        return await future


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    runs = TaskRuns(core)
    return [
        Route(
            method="POST",
            path="/api/task_runs/",
            handler=runs.create,
            summary="Create a task run",
            tag="task_runs",
            answers={201: TaskRun, 200: TaskRun},
            refusals={409: "The id or idempotency key is that of another run"},
            body=TaskRunCreate,
        ),
        Route(
            method="GET",
            path="/api/task_runs/{id:uuid}",
            handler=runs.read,
            summary="Read a task run",
            tag="task_runs",
            answers={200: TaskRun},
            refusals={404: "There is no such run"},
        ),
    ]


def _record(body: TaskRunCreate, now: int) -> NewRunRecord:
    """Return the run as it is stored. Raises `Invalid`."""
    parameters = bytes(body.parameters)
    if parameters[:1] != b"{":
        raise Invalid("Expected `object`", "parameters")
    try:
        check_payload(body.parameters, "parameters")
    except FrameRefused as exc:
        raise Invalid(exc.message, exc.field, exc.code) from exc
    if body.headers and (size := len(msgspec.json.encode(body.headers))) > MAX_HEADERS_BYTES:
        message = f"headers has {size} bytes; at most {MAX_HEADERS_BYTES}"
        raise Invalid(message, "headers", ErrorCode.TOO_LARGE)
    state = body.state or StateCreate(type="PENDING")
    scheduled = (state.state_details or StateDetailsCreate()).scheduled_time
    policy = body.empirical_policy or PolicyCreate()
    run_id = body.id or uuid7()
    return NewRunRecord(
        id=run_id,
        task_key=body.task_key,
        name=body.name or body.task_key,
        dynamic_key=body.dynamic_key or run_id,
        parameters=parameters,
        payload_hash=payload_hash(body.task_key, parameters),
        priority=body.priority,
        due=now if scheduled is None else to_micros(scheduled),
        expires=None if body.expires is None else to_micros(body.expires),
        retries=policy.limit,
        retry_delay=policy.delays,
        retry_jitter=policy.retry_jitter_factor or 0.0,
        timeout=body.timeout,
        tags=body.tags,
        headers=body.headers,
        idempotency_key=body.idempotency_key,
        surface=Surface(proposed_state(state)),
    )
