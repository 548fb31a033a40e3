"""`/api/task_runs`: create and read."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runlane.protocol.errors import ErrorCode, FrameRefused
from runlane.protocol.ids import is_id, uuid7
from runlane.protocol.limits import MAX_HEADERS_BYTES
from runlane.protocol.payloads import check_payload
from runlane.protocol.states import StateType

from ..clock import to_micros
from ..core.core import Core
from ..core.submit import conflict_code, payload_hash
from ..errors import Refused
from ..schemas.task_runs import EmpiricalPolicyCreate, StateCreate, StateDetailsCreate, TaskRunCreate
from ..storage.records import Created, Creation, NewRunRecord
from .http import InvalidBody, json, read_body
from .rendering import render_task_run

_CREATE: Final = msgspec.json.Decoder(TaskRunCreate)


class TaskRuns:
    """The routes, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, request: Request) -> Response:
        """`POST /api/task_runs/`: 201, or 200 for a run that is there already; 409, 413, 422, 503."""
        body = await read_body(request, _CREATE)
        self._core.submissions.check_load()
        record = _record(body, self._core.clock.now())
        created = await self._submit(record)
        code = conflict_code(created.how)
        if code is not None:
            raise Refused(code, "There is another run with this id or idempotency key.")
        return await self._show(created.id, 200 if created.how is Creation.EXISTED else 201)

    async def read(self, request: Request) -> Response:
        """`GET /api/task_runs/{id}`: 200 or 404."""
        run_id = request.path_params["id"].lower()
        if not is_id(run_id):
            raise HTTPException(404, "Not Found")
        return await self._show(run_id, 200)

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

    async def _show(self, run_id: str, status: int) -> Response:
        run = await self._core.store.run_by_id(run_id)
        if run is None:
            raise HTTPException(404, "Task not found")
        return json(render_task_run(run, self._core.clock.now()), status)


def _record(body: TaskRunCreate, now: int) -> NewRunRecord:
    """Return the run as it is stored. Raises `InvalidBody`."""
    parameters = bytes(body.parameters)
    if parameters[:1] != b"{":
        raise InvalidBody("Expected `object`", "parameters", "value_error")
    try:
        check_payload(body.parameters, "parameters")
    except FrameRefused as exc:
        raise InvalidBody(exc.message, exc.field, exc.code) from exc
    if body.headers and (size := len(msgspec.json.encode(body.headers))) > MAX_HEADERS_BYTES:
        message = f"headers has {size} bytes; at most {MAX_HEADERS_BYTES}"
        raise InvalidBody(message, "headers", ErrorCode.TOO_LARGE)
    state = body.state or StateCreate(type="PENDING")
    scheduled = (state.state_details or StateDetailsCreate()).scheduled_time
    policy = body.empirical_policy or EmpiricalPolicyCreate()
    delay = policy.retry_delay or 0.0
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
        retries=policy.retries or 0,
        retry_delay=delay if isinstance(delay, tuple) else (delay,),
        retry_jitter=policy.retry_jitter_factor or 0.0,
        timeout=body.timeout,
        tags=body.tags,
        headers=body.headers,
        idempotency_key=body.idempotency_key,
        state_type=StateType(state.type),
        state_name=state.name or state.type.capitalize(),
        state_message=state.message,
    )
