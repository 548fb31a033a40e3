"""What the HTTP edge shows: JSON, and runs as their schemas have them."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from runlane.protocol.states import StateType

from ..clock import MICROS_PER_SECOND, to_datetime
from ..orchestration.bookkeeping import estimated_run_time, estimated_start_time_delta
from ..schemas.runs import Policy
from ..schemas.states import State, StateDetails
from ..schemas.task_runs import TaskRun
from ..storage.records import RunRecord, StateRecord

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


def json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(_encode(body), status, headers, "application/json")


def render_task_run(run: RunRecord, now: int) -> TaskRun:
    """Return a run as it is shown; the estimates are as of `now` (microseconds UTC)."""
    return TaskRun(
        id=run.id,
        created=to_datetime(run.created),
        updated=to_datetime(run.updated),
        name=run.name,
        task_key=run.task_key,
        dynamic_key=run.dynamic_key,
        tags=run.tags,
        empirical_policy=_policy(run),
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
        labels={},
        flow_run_id=None,
        cache_key=None,
        cache_expiration=None,
        task_version=None,
        task_inputs={},
        flow_run_run_count=0,
        parameters=UNSET if run.parameters == b"{}" else msgspec.Raw(run.parameters),
        result=_payload(run.result),
        error=_payload(run.error),
        priority=run.priority or UNSET,
        attempt=run.attempt or UNSET,
        failures=run.failures or UNSET,
        losses=run.losses or UNSET,
        idempotency_key=_said(run.idempotency_key),
        expires=_said(_time(run.expires)),
        timeout=_said(run.timeout),
        headers=run.headers or UNSET,
    )


def render_state(state: StateRecord) -> State:
    """Return a state as it is shown."""
    return State(
        id=state.id,
        type=state.type.value,
        name=state.name,
        timestamp=to_datetime(state.timestamp),
        message=state.message,
        data=None,
        state_details=_details(state),
    )


def _policy(run: RunRecord) -> Policy:
    first = run.retry_delay[0] if run.retry_delay else 0.0
    return Policy(
        retries=run.retries,
        retry_delay=first if len(run.retry_delay) <= 1 else run.retry_delay,
        retry_jitter_factor=run.retry_jitter or None,
        max_retries=run.retries,
        retry_delay_seconds=first,
    )


def _details(state: StateRecord) -> StateDetails:
    return StateDetails(
        flow_run_id=None,
        task_run_id=state.task_run_id,
        child_flow_run_id=None,
        scheduled_time=_time(state.due),
        cache_key=None,
        cache_expiration=None,
        deferred=False,
        untrackable_result=False,
        pause_timeout=None,
        pause_reschedule=False,
        pause_key=None,
        run_input_keyset=None,
        refresh_cache=None,
        retriable=None,
        transition_id=None,
        task_parameters_id=None,
        traceparent=None,
        deployment_concurrency_lease_id=None,
    )


def _payload(data: bytes | None) -> msgspec.Raw | UnsetType:
    return UNSET if data is None else msgspec.Raw(data)


def _said(value: T | None) -> T | UnsetType:
    """Leave out what says nothing."""
    return UNSET if value is None else value


def _time(micros: int | None) -> Any:
    return None if micros is None else to_datetime(micros)


def _run_time(run: RunRecord, now: int) -> int:
    return estimated_run_time(run.total_run_time, run.state.type, run.state.timestamp, now)


def _start_time_delta(run: RunRecord, now: int) -> int:
    return estimated_start_time_delta(run.expected_start_time, run.start_time, run.state.type, now)
