"""Runs as the HTTP edge shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from runlane.protocol.payloads import ABSENT
from runlane.protocol.states import StateType

from ..clock import MICROS_PER_SECOND, to_datetime
from ..orchestration.bookkeeping import estimated_run_time, estimated_start_time_delta
from ..schemas.task_runs import Additions, EmpiricalPolicy, State, StateDetails, TaskRun
from ..storage.records import RunRecord, StateRecord


def render_task_run(run: RunRecord, now: int) -> dict[str, Any]:
    """Return a run as JSON-able data; the estimates are as of `now` (microseconds UTC)."""
    body = TaskRun(
        id=run.id,
        created=to_datetime(run.created),
        updated=to_datetime(run.updated),
        name=run.name,
        task_key=run.task_key,
        dynamic_key=run.dynamic_key,
        tags=run.tags,
        empirical_policy=EmpiricalPolicy(
            retries=run.retries,
            retry_delay=run.retry_delay[0] if len(run.retry_delay) == 1 else run.retry_delay,
            retry_jitter_factor=run.retry_jitter,
        ),
        state_id=run.state.id,
        state_type=run.state.type.value,
        state_name=run.state.name,
        state=render_state(run.state),
        run_count=run.run_count,
        expected_start_time=_time(run.expected_start_time),
        next_scheduled_start_time=_time(run.due if run.state.type is StateType.SCHEDULED else None),
        start_time=_time(run.start_time),
        end_time=_time(run.end_time),
        total_run_time=run.total_run_time / MICROS_PER_SECOND,
        estimated_run_time=_run_time(run, now) / MICROS_PER_SECOND,
        estimated_start_time_delta=_start_time_delta(run, now) / MICROS_PER_SECOND,
    )
    return {**_fields(body), **_set_fields(_additions(run))}


def render_state(state: StateRecord) -> State:
    """Return a state as it is shown."""
    details = StateDetails(task_run_id=state.task_run_id, scheduled_time=_time(state.due))
    return State(
        id=state.id,
        type=state.type.value,
        name=state.name,
        timestamp=to_datetime(state.timestamp),
        message=state.message,
        state_details=details,
    )


def _additions(run: RunRecord) -> Additions:
    return Additions(
        parameters=ABSENT if run.parameters == b"{}" else msgspec.Raw(run.parameters),
        result=ABSENT if run.result is None else msgspec.Raw(run.result),
        error=ABSENT if run.error is None else msgspec.Raw(run.error),
        priority=run.priority,
        attempt=run.attempt,
        failures=run.failures,
        losses=run.losses,
        idempotency_key=run.idempotency_key,
        expires=None if run.expires is None else to_datetime(run.expires),
        timeout=run.timeout,
        headers=run.headers,
    )


def _fields(body: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(body, name) for name in body.__struct_fields__}


def _set_fields(body: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that say something: those that differ from their default."""
    defaults = type(body)()
    return {name: value for name, value in _fields(body).items() if value != getattr(defaults, name)}


def _time(micros: int | None) -> Any:
    return None if micros is None else to_datetime(micros)


def _run_time(run: RunRecord, now: int) -> int:
    return estimated_run_time(run.total_run_time, run.state.type, run.state.timestamp, now)


def _start_time_delta(run: RunRecord, now: int) -> int:
    return estimated_start_time_delta(run.expected_start_time, run.start_time, run.state.type, now)
