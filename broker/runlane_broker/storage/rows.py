"""Rows of runs and states as records."""

from __future__ import annotations

from typing import Any

import msgspec

from .run_records import FlowRunRecord, RunRecord, StateRecord
from .states import state_record

_tags = msgspec.json.Decoder(tuple[str, ...]).decode
_headers = msgspec.json.Decoder(dict[str, str]).decode
_labels = msgspec.json.Decoder(dict[str, Any]).decode
_delays = msgspec.json.Decoder(tuple[float, ...]).decode


def task_run_record(row: Any, state: StateRecord | None = None) -> RunRecord:
    """Return a row of `queries.showing.read_runs(TASK_RUN)` as a record; its state, too, unless that is given."""
    return RunRecord(
        **_common(row, state or _state_of(row)),
        task_key=row.task_key,
        dynamic_key=row.dynamic_key,
        priority=row.priority,
        expires=row.expires,
        timeout=row.timeout,
        headers=_headers(row.headers),
        flow_run_id=row.flow_run_id,
        flow_run_run_count=row.flow_run_run_count or 0,
        task_version=row.task_version,
        cache_key=row.cache_key,
        cache_expiration=row.cache_expiration,
        task_inputs=row.task_inputs,
        result=row.result,
        error=row.error,
    )


def flow_run_record(row: Any) -> FlowRunRecord:
    """Return a row of `queries.showing.read_runs(FLOW_RUN)` as a record."""
    return FlowRunRecord(
        **_common(row, _state_of(row)),
        flow_id=row.flow_id,
        deployment_id=row.deployment_id,
        parent_task_run_id=row.parent_task_run_id,
        work_queue_id=row.work_queue_id,
        work_queue_name=row.work_queue_name,
        work_pool_id=row.work_pool_id,
        work_pool_name=row.work_pool_name,
        flow_version=row.flow_version,
        infrastructure_pid=row.infrastructure_pid,
        retry_type=row.retry_type,
        context=row.context,
        job_variables=row.job_variables,
    )


def shown_state(row: Any) -> StateRecord:
    """Return a row of `queries.showing.read_states` as a record."""
    return state_record(
        row.id,
        row.run_id,
        row.type,
        row.name,
        row.message,
        row.timestamp,
        row.due,
        row.attempt,
        row.details,
        row.data,
    )


def _state_of(row: Any) -> StateRecord:
    return state_record(
        row.state_id,
        row.id,
        row.state_type,
        row.state_name,
        row.state_message,
        row.state_timestamp,
        row.state_due,
        row.attempt,
        row.state_details,
        row.state_data,
    )


def _common(row: Any, state: StateRecord) -> dict[str, Any]:
    """Return what runs of both kinds have, by field."""
    return {
        "id": row.id,
        "name": row.name,
        "due": row.due,
        "attempt": row.attempt,
        "failures": row.failures,
        "losses": row.losses,
        "run_count": row.run_count,
        "retries": row.retries,
        "retry_delay": _delays(row.retry_delay),
        "retry_jitter": row.retry_jitter,
        "tags": _tags(row.tags),
        "labels": {} if row.labels is None else _labels(row.labels),
        "idempotency_key": row.idempotency_key,
        "created": row.created,
        "updated": row.updated,
        "expected_start_time": row.expected_start_time,
        "start_time": row.start_time,
        "end_time": row.end_time,
        "total_run_time": row.total_run_time,
        "state": state,
        "parameters": row.parameters,
    }
