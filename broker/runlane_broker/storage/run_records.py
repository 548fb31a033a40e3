"""Runs and their states as they come out of the store, to be shown.

They are structs: a dataclass of forty fields takes as long to make as all that is done with it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from runlane.protocol.states import StateType

from ..orchestration.details import StateDetails


class StateRecord(Struct, frozen=True):
    """A state as it stands in the history. `data` is JSON, as it came."""

    id: str
    run_id: str
    type: StateType
    name: str
    message: str | None
    timestamp: int
    due: int | None
    attempt: int
    details: StateDetails
    data: bytes | None


class AnyRunRecord(Struct, frozen=True, kw_only=True):
    """What runs of both kinds have. Times in microseconds UTC, `total_run_time` in microseconds."""

    id: str
    name: str
    due: int
    attempt: int
    failures: int
    losses: int
    run_count: int
    retries: int
    retry_delay: tuple[float, ...]
    retry_jitter: float
    tags: tuple[str, ...]
    labels: dict[str, Any]
    idempotency_key: str | None
    created: int
    updated: int
    expected_start_time: int | None
    start_time: int | None
    end_time: int | None
    total_run_time: int
    state: StateRecord
    parameters: bytes


class RunRecord(AnyRunRecord, frozen=True, kw_only=True):
    """A task run as it is shown. `task_inputs` is JSON."""

    task_key: str
    dynamic_key: str
    priority: int
    expires: int | None
    timeout: float | None
    headers: dict[str, str]
    flow_run_id: str | None
    flow_run_run_count: int
    task_version: str | None
    cache_key: str | None
    cache_expiration: int | None
    task_inputs: str | None
    result: bytes | None
    error: bytes | None


class FlowRunRecord(AnyRunRecord, frozen=True, kw_only=True):
    """A flow run as it is shown, with the names of its pool and queue."""

    flow_id: str
    deployment_id: str | None
    parent_task_run_id: str | None
    work_queue_id: str | None
    work_queue_name: str | None
    work_pool_id: str | None
    work_pool_name: str | None
    flow_version: str | None
    infrastructure_pid: str | None
    retry_type: str | None
    context: bytes
    job_variables: bytes
