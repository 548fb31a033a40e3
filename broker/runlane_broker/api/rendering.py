"""What the HTTP edge shows: JSON, and runs as their schemas have them."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from runlane.protocol.states import StateType

from ..clock import MICROS_PER_SECOND, to_datetime
from ..orchestration.bookkeeping import estimated_run_time, estimated_start_time_delta
from ..orchestration.details import TIMES
from ..schemas.flow_runs import FlowRun
from ..schemas.runs import FlowRunPolicy, Policy
from ..schemas.states import (
    AbortDetails,
    AcceptDetails,
    OrchestrationResult,
    RejectDetails,
    State,
    StateDetails,
    WaitDetails,
)
from ..schemas.task_runs import TaskRun
from ..storage.records import Status, TransitionOutcome
from ..storage.run_records import AnyRunRecord, FlowRunRecord, RunRecord, StateRecord
from ..storage.tables import FLOW_RUN, TASK_RUN, RunKind

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
_DETAILS: Final = StateDetails.__struct_fields__
_details_of = attrgetter(*_DETAILS)


def json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(_encode(body), status, headers, "application/json")


def render_task_run(run: RunRecord, now: int) -> TaskRun:
    """Return a task run as it is shown; the estimates are as of `now` (microseconds UTC)."""
    return TaskRun(
        **_common(run, now, TASK_RUN),
        flow_run_id=run.flow_run_id,
        task_key=run.task_key,
        dynamic_key=run.dynamic_key,
        cache_key=run.cache_key,
        cache_expiration=_time(run.cache_expiration),
        task_version=run.task_version,
        empirical_policy=Policy(**_policy(run)),
        task_inputs={} if run.task_inputs is None else msgspec.json.decode(run.task_inputs),
        flow_run_run_count=run.flow_run_run_count,
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


def render_flow_run(run: FlowRunRecord, now: int) -> FlowRun:
    """Return a flow run as it is shown; the estimates are as of `now` (microseconds UTC)."""
    return FlowRun(
        **_common(run, now, FLOW_RUN),
        flow_id=run.flow_id,
        deployment_id=run.deployment_id,
        work_pool_id=run.work_pool_id,
        work_pool_name=run.work_pool_name,
        work_queue_id=run.work_queue_id,
        work_queue_name=run.work_queue_name,
        flow_version=run.flow_version,
        parameters=msgspec.Raw(run.parameters),
        context=msgspec.Raw(run.context),
        job_variables=msgspec.Raw(run.job_variables),
        idempotency_key=run.idempotency_key,
        empirical_policy=FlowRunPolicy(**_policy(run), pause_keys=[], resuming=False, retry_type=run.retry_type),
        parent_task_run_id=run.parent_task_run_id,
        infrastructure_pid=run.infrastructure_pid,
        attempt=run.attempt or UNSET,
        failures=run.failures or UNSET,
        losses=run.losses or UNSET,
    )


def render_state(state: StateRecord, kind: RunKind) -> State:
    """Return a state as it is shown; `kind` is that of its run."""
    return State(
        id=state.id,
        type=state.type.value,
        name=state.name,
        timestamp=to_datetime(state.timestamp),
        message=state.message,
        data=None if state.data is None else msgspec.Raw(state.data),
        state_details=_details(state, kind),
    )


def render_outcome(outcome: TransitionOutcome, kind: RunKind) -> OrchestrationResult:
    """Return the answer to a proposed state."""
    return OrchestrationResult(
        state=render_state(outcome.state, kind),
        status=outcome.status.value,
        details=_why(outcome),
    )


def _why(outcome: TransitionOutcome) -> AcceptDetails | RejectDetails | WaitDetails | AbortDetails:
    match outcome.status:
        case Status.ACCEPT:
            return AcceptDetails()
        case Status.REJECT:
            return RejectDetails(reason=outcome.reason)
        case Status.WAIT:
            return WaitDetails(delay_seconds=outcome.delay_seconds or 0, reason=outcome.reason)
        case Status.ABORT:
            return AbortDetails(reason=outcome.reason)


def _details(state: StateRecord, kind: RunKind) -> StateDetails:
    """Return the details, and whose state it is."""
    shown = dict(zip(_DETAILS, _details_of(state.details), strict=True))
    for name in TIMES:
        shown[name] = _time(shown[name])
    shown[f"{kind.name}_id"] = state.run_id
    return StateDetails(**shown)


def _common(run: AnyRunRecord, now: int, kind: RunKind) -> dict[str, Any]:
    """Return what runs of both kinds have, by field."""
    return {
        "id": run.id,
        "created": to_datetime(run.created),
        "updated": to_datetime(run.updated),
        "name": run.name,
        "tags": run.tags,
        "labels": run.labels,
        "state_id": run.state.id,
        "state_type": run.state.type.value,
        "state_name": run.state.name,
        "state": render_state(run.state, kind),
        "run_count": run.run_count,
        "expected_start_time": _time(run.expected_start_time),
        "next_scheduled_start_time": _time(run.due if run.state.type is StateType.SCHEDULED else None),
        "start_time": _time(run.start_time),
        "end_time": _time(run.end_time),
        "total_run_time": run.total_run_time / MICROS_PER_SECOND,
        "estimated_run_time": _run_time(run, now) / MICROS_PER_SECOND,
        "estimated_start_time_delta": _start_time_delta(run, now) / MICROS_PER_SECOND,
    }


def _policy(run: AnyRunRecord) -> dict[str, Any]:
    first = run.retry_delay[0] if run.retry_delay else 0.0
    return {
        "retries": run.retries,
        "retry_delay": first if len(run.retry_delay) <= 1 else run.retry_delay,
        "retry_jitter_factor": run.retry_jitter or None,
        "max_retries": run.retries,
        "retry_delay_seconds": first,
    }


def _payload(data: bytes | None) -> msgspec.Raw | UnsetType:
    return UNSET if data is None else msgspec.Raw(data)


def _said(value: T | None) -> T | UnsetType:
    """Leave out what says nothing."""
    return UNSET if value is None else value


def _time(micros: int | None) -> Any:
    return None if micros is None else to_datetime(micros)


def _run_time(run: AnyRunRecord, now: int) -> int:
    return estimated_run_time(run.total_run_time, run.state.type, run.state.timestamp, now)


def _start_time_delta(run: AnyRunRecord, now: int) -> int:
    return estimated_start_time_delta(run.expected_start_time, run.start_time, run.state.type, now)
