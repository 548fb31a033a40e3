"""`/api/task_runs` and `/api/task_run_states`."""

from __future__ import annotations

from typing import Final

import msgspec

from runlane.protocol.errors import ErrorCode
from runlane.protocol.ids import uuid7
from runlane.protocol.limits import MAX_HEADERS_BYTES
from runlane.protocol.messages import Headers
from runlane.protocol.states import StateType

from ..clock import Micros, to_micros
from ..core.core import Core
from ..core.submit import conflict_code, payload_hash
from ..errors import Conflict, Invalid, Refused
from ..schemas.lists import RunFilters, TaskRunCursor, TaskRunHistory, TaskRunList, TaskRunPages
from ..schemas.runs import PolicyCreate
from ..schemas.states import StateCreate, StateOfTaskRun
from ..schemas.task_runs import (
    CreatedRun,
    TaskRun,
    TaskRunCreate,
    TaskRunPage,
    TaskRunsAfter,
    TaskRunsCreate,
    TaskRunUpdate,
)
from ..storage.records import Created, Creation, NewRunRecord, Surface
from ..storage.tables import TASK_RUN
from .proposals import checked_object, proposed_state
from .rendering import render_task_run
from .routes import Answer, Route
from .runs import Kind, Runs, run_routes

#: Bytes of a body that creates many runs.
MAX_BULK_BYTES: Final = 16 * 1024 * 1024

KIND: Final = Kind(
    runs=TASK_RUN,
    path="/api/task_runs",
    states_path="/api/task_run_states",
    noun="task run",
    render=render_task_run,
    shown=TaskRun,
    update=TaskRunUpdate,
    changes=lambda body: {} if body.name is None else {"name": body.name},
    filters=RunFilters,
    listed=TaskRunList,
    paged=TaskRunPages,
    page=TaskRunPage,
    followed=TaskRunCursor,
    follows=TaskRunsAfter,
    history=TaskRunHistory,
    states_of=StateOfTaskRun,
)


class TaskRuns(Runs):
    """The use cases that only task runs have."""

    async def create(self, body: TaskRunCreate) -> Answer:
        """Create a run, or return the one that is there already."""
        self._core.submissions.check_load()
        record = _record(body, self._core.clock.now())
        (created,) = await self._core.transitions.create_task_runs([record], shows=True)
        _check(created)
        if created.shown is not None:  # read where it was written: to ask the database again takes longer
            return Answer(201, render_task_run(created.shown, self._core.clock.now()))
        return Answer(200 if created.how is Creation.EXISTED else 201, await self.read(created.id))

    async def create_many(self, body: TaskRunsCreate) -> list[CreatedRun]:
        """Create runs in one transaction, each with its own outcome."""
        self._core.submissions.check_load()
        now = self._core.clock.now()
        records = [_record(run, now, f"task_runs[{i}].") for i, run in enumerate(body.task_runs)]
        return [_created(one) for one in await self._core.transitions.create_task_runs(records)]


def _check(created: Created) -> None:
    """Raise what stands for a refusal."""
    code = conflict_code(created.how)
    if code is not None:
        raise Refused(code, "There is another run with this id or idempotency key.")
    if created.how is Creation.PARENT_MISSING:
        raise Conflict("There is no such flow run.")


def _created(one: Created) -> CreatedRun:
    if one.how is Creation.PARENT_MISSING:
        return CreatedRun(id=one.id, created=False, error="not_found")
    code = conflict_code(one.how)
    error = msgspec.UNSET if code is None else str(code)
    return CreatedRun(id=one.id, created=one.how in (Creation.CREATED, Creation.LEASED), error=error)


def _record(body: TaskRunCreate, now: Micros, place: str = "") -> NewRunRecord:
    """Return the run as it is stored. Raises `Invalid`, naming a field below `place`."""
    parameters = checked_object(body.parameters, f"{place}parameters")
    _check_headers(body.headers, f"{place}headers")
    initial = proposed_state(body.state or StateCreate(type="PENDING"), f"{place}state")
    policy = body.empirical_policy or PolicyCreate()
    run_id = body.id or uuid7()
    scheduled = initial.details.scheduled_time if initial.type is StateType.SCHEDULED else None
    return NewRunRecord(
        id=run_id,
        task_key=body.task_key,
        name=body.name or body.task_key,
        dynamic_key=body.dynamic_key or run_id,
        parameters=parameters,
        payload_hash=payload_hash(body.task_key, parameters),
        priority=body.priority,
        due=now if scheduled is None else scheduled,
        expires=None if body.expires is None else to_micros(body.expires),
        retries=policy.limit,
        retry_delay=policy.delays,
        retry_jitter=policy.retry_jitter_factor or 0.0,
        timeout=body.timeout,
        tags=body.tags,
        headers=body.headers,
        idempotency_key=body.idempotency_key,
        surface=Surface(
            initial=initial,
            flow_run_id=body.flow_run_id,
            task_version=body.task_version,
            cache_key=body.cache_key,
            cache_expiration=None if body.cache_expiration is None else to_micros(body.cache_expiration),
            labels=body.labels,
            task_inputs=msgspec.to_builtins(body.task_inputs),
        ),
    )


def _check_headers(headers: Headers, field: str) -> None:
    if headers and (size := len(msgspec.json.encode(headers))) > MAX_HEADERS_BYTES:
        raise Invalid(f"headers has {size} bytes; at most {MAX_HEADERS_BYTES}", field, ErrorCode.TOO_LARGE)


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    runs = TaskRuns(core, KIND)
    return [
        Route(
            method="POST",
            path="/api/task_runs/",
            handler=runs.create,
            summary="Create a task run",
            tag="task_runs",
            answers={201: TaskRun, 200: TaskRun},
            refusals={409: "The id or idempotency key is that of another run, or there is no such flow run"},
            body=TaskRunCreate,
        ),
        Route(
            method="POST",
            path="/api/task_runs/bulk",
            handler=runs.create_many,
            summary="Create task runs together",
            tag="task_runs",
            answers={200: list[CreatedRun]},
            body=TaskRunsCreate,
            max_bytes=MAX_BULK_BYTES,
        ),
        *run_routes(runs, KIND),
    ]
