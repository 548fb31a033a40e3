"""Work pools and work queues over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from runlane.protocol.messages import Name, Time

from .base import JsonObject, ObjectOrNull, Paged, Parameters, Request, Response, check_objects, empty_object
from .filters import WorkPoolFilter, WorkQueueFilter
from .flow_runs import FlowRun
from .flows import PathName
from .ids import Id

_Text: TypeAlias = Annotated[str, Meta(max_length=10_000)]
_Slots: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Priority: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
#: Seconds until a run of the queue that has not started is late; null: as the broker is told for all.
_LateAfter: TypeAlias = Annotated[float, Meta(ge=0, le=315_360_000)]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86_400)]


class WorkPoolCreate(Request):
    """A pool. Where its results and code are stored is not kept."""

    name: PathName
    type: Name = "prefect-agent"
    description: _Text | None = None
    base_job_template: JsonObject = field(default_factory=empty_object)
    is_paused: bool = False
    concurrency_limit: _Slots | None = None
    storage_configuration: ObjectOrNull | UnsetType = UNSET

    def check(self) -> None:
        """Raise `Invalid` for a template that is no object."""
        check_objects(self, "base_job_template", nullable=("storage_configuration",))


class WorkPoolUpdate(Request):
    """What can be changed of a pool; what is absent stays as it is."""

    description: _Text | UnsetType | None = UNSET
    base_job_template: ObjectOrNull | UnsetType = UNSET
    is_paused: bool | UnsetType | None = UNSET
    concurrency_limit: _Slots | UnsetType | None = UNSET
    storage_configuration: ObjectOrNull | UnsetType = UNSET

    def check(self) -> None:
        """Raise `Invalid` for a template that is no object."""
        check_objects(self, nullable=("base_job_template", "storage_configuration"))


class WorkPool(Response):
    """A pool as it is shown."""

    id: str
    created: datetime
    updated: datetime
    name: str
    type: str
    description: str | None
    base_job_template: JsonObject
    is_paused: bool
    concurrency_limit: int | None
    default_queue_id: str | None
    status: str


class WorkPoolList(Paged):
    """Which pools."""

    work_pools: WorkPoolFilter | None = None


class WorkPoolCount(Parameters):
    """Which pools."""

    work_pools: WorkPoolFilter | None = None


class QueueFilterBody(Request):
    """How the old queues choose runs: those that have all the tags, of these deployments."""

    tags: Annotated[tuple[Name, ...], Meta(max_length=100)] | None = None
    deployment_ids: Annotated[tuple[Id, ...], Meta(max_length=500)] | None = None


class WorkQueueCreate(Request):
    """A queue. Without a priority it gets the first that is free; a taken one moves others down."""

    name: PathName
    description: _Text | None = ""
    is_paused: bool = False
    concurrency_limit: _Slots | None = None
    priority: _Priority | None = None
    filter: QueueFilterBody | None = None
    late_after: _LateAfter | None = None


class WorkQueueUpdate(Request):
    """What can be changed of a queue; what is absent stays as it is."""

    name: PathName | UnsetType | None = UNSET
    description: _Text | UnsetType | None = UNSET
    is_paused: bool | UnsetType | None = UNSET
    concurrency_limit: _Slots | UnsetType | None = UNSET
    priority: _Priority | UnsetType | None = UNSET
    last_polled: Time | UnsetType | None = UNSET
    filter: QueueFilterBody | UnsetType | None = UNSET
    late_after: _LateAfter | UnsetType | None = UNSET


class WorkQueue(Response):
    """A queue as it is shown. `active_slots` is null where there is no limit; `late_after` is in seconds."""

    id: str
    created: datetime
    updated: datetime
    name: str
    description: str
    is_paused: bool
    concurrency_limit: int | None
    priority: int
    work_pool_id: str
    work_pool_name: str
    filter: QueueFilterBody | None
    last_polled: datetime | None
    status: str
    active_slots: int | None
    late_after: float | UnsetType = UNSET


class WorkQueueList(Paged):
    """Which queues."""

    work_queues: WorkQueueFilter | None = None


class HealthCheckPolicy(Response):
    """When a queue is healthy."""

    maximum_late_runs: int
    maximum_seconds_since_last_polled: int


class WorkQueueStatus(Response):
    """How a queue is."""

    healthy: bool
    late_runs_count: int
    last_polled: datetime | None
    health_check_policy: HealthCheckPolicy


class GetRuns(Paged):
    """Which runs of a queue. `claim_seconds`: for so long nobody else is to be given what is returned."""

    scheduled_before: Time | None = None
    agent_id: Id | None = None
    claim_seconds: _Seconds | None = None


class GetScheduledFlowRuns(Paged):
    """Which runs of a pool. `claim_seconds` as for a queue."""

    work_queue_names: Annotated[tuple[Name, ...], Meta(max_length=500)] | None = None
    scheduled_before: Time | None = None
    scheduled_after: Time | None = None
    claim_seconds: _Seconds | None = None


class ScheduledFlowRun(Response):
    """A run that may start, and whose it is."""

    work_pool_id: str
    work_queue_id: str
    flow_run: FlowRun
