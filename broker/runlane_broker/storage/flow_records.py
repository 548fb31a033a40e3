"""Flows and deployments as they go into the store and come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

_tags = msgspec.json.Decoder(tuple[str, ...]).decode
_labels = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """A flow. Times in microseconds UTC."""

    id: str
    name: str
    tags: tuple[str, ...]
    labels: dict[str, Any]
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class DeploymentValues:
    """What can be said of a deployment beside its flow and its name. The fields of bytes are JSON objects."""

    version: str | None
    description: str | None
    entrypoint: str | None
    path: str | None
    tags: tuple[str, ...]
    labels: dict[str, Any]
    parameters: bytes
    parameter_openapi_schema: bytes
    job_variables: bytes
    enforce_parameter_schema: bool
    paused: bool
    concurrency_limit: int | None
    work_queue_name: str | None
    work_queue_id: str | None


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A deployment, with the names of its flow and pool and what is known of its queue."""

    id: str
    flow_id: str
    flow_name: str
    name: str
    values: DeploymentValues
    created: int
    updated: int
    work_pool_name: str | None
    last_polled: int | None
    queue_status: str | None


def flow_record(row: Any) -> FlowRecord:
    """Return a row of `queries.flows.read_flows` as a record."""
    return FlowRecord(row.id, row.name, _tags(row.tags), _labels(row.labels), row.created, row.updated)


def deployment_record(row: Any) -> DeploymentRecord:
    """Return a row of `queries.flows.read_deployments` as a record."""
    values = DeploymentValues(
        version=row.version,
        description=row.description,
        entrypoint=row.entrypoint,
        path=row.path,
        tags=_tags(row.tags),
        labels=_labels(row.labels),
        parameters=row.parameters,
        parameter_openapi_schema=row.parameter_openapi_schema,
        job_variables=row.job_variables,
        enforce_parameter_schema=bool(row.enforce_parameter_schema),
        paused=bool(row.paused),
        concurrency_limit=row.concurrency_limit,
        work_queue_name=row.work_queue_name,
        work_queue_id=row.work_queue_id,
    )
    return DeploymentRecord(
        id=row.id,
        flow_id=row.flow_id,
        flow_name=row.flow_name,
        name=row.name,
        values=values,
        created=row.created,
        updated=row.updated,
        work_pool_name=row.work_pool_name,
        last_polled=row.last_polled,
        queue_status=row.queue_status,
    )
