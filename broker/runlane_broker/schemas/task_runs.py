"""Task runs over HTTP. Names and shapes follow the Prefect server API; what is ours is optional and additional."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Raw, UnsetType, field

from runlane.protocol.messages import Headers, Id, Message, Name, Priority, Seconds, TaskKey, Time

from .base import Json, JsonObject, Parameters, Request, Response

#: Seconds, or a list of them.
Delay: TypeAlias = Seconds | Annotated[tuple[Seconds, ...], Meta(max_length=1000)]


class StateDetailsCreate(Request):
    """Of a proposed state's details, what the broker acts on."""

    scheduled_time: Time | None = None


class StateCreate(Request):
    """The state that a run is created in."""

    type: Literal["SCHEDULED", "PENDING"]
    name: Name | None = None
    message: Message | None = None
    state_details: StateDetailsCreate | None = None


class EmpiricalPolicyCreate(Request):
    """How a run is retried."""

    retries: Annotated[int, Meta(ge=0, le=1000)] | None = None
    retry_delay: Delay | None = None
    retry_jitter_factor: Annotated[float, Meta(ge=0, le=10)] | None = None


class TaskRunCreate(Request):
    """A run to be created. As in Prefect's API, one without a state is PENDING, and nobody dispatches it."""

    task_key: TaskKey
    dynamic_key: Name | None = None
    name: Name | None = None
    state: StateCreate | None = None
    tags: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    empirical_policy: EmpiricalPolicyCreate | None = None
    id: Id | None = None
    parameters: JsonObject = field(default_factory=lambda: Raw(b"{}"))
    idempotency_key: Name | None = None
    priority: Priority = 0
    expires: Time | None = None
    timeout: Annotated[float, Meta(gt=0, le=315_360_000)] | None = None
    headers: Headers = field(default_factory=dict[str, str])


class StateDetails(Response):
    """What a state knows beside its type and name."""

    task_run_id: str
    flow_run_id: str | None = None
    scheduled_time: datetime | None = None


class State(Response):
    """A state of a run."""

    id: str
    type: str
    name: str
    timestamp: datetime
    message: str | None
    state_details: StateDetails
    data: None = None


class StatesOf(Parameters):
    """Whose states."""

    task_run_id: Id


class EmpiricalPolicy(Response):
    """How a run is retried."""

    retries: int
    retry_delay: float | tuple[float, ...] | None
    retry_jitter_factor: float


class TaskRun(Response):
    """A run as it is shown. What Prefect's runs do not have stands last, and is absent where it says nothing."""

    id: str
    created: datetime
    updated: datetime
    name: str
    task_key: str
    dynamic_key: str
    tags: tuple[str, ...]
    empirical_policy: EmpiricalPolicy
    state_id: str
    state_type: str
    state_name: str
    state: State
    run_count: int
    expected_start_time: datetime | None
    next_scheduled_start_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    total_run_time: float
    estimated_run_time: float
    estimated_start_time_delta: float
    flow_run_id: None = None
    cache_key: None = None
    cache_expiration: None = None
    task_version: None = None
    flow_run_run_count: int = 0
    labels: dict[str, str] = field(default_factory=dict[str, str])
    task_inputs: dict[str, str] = field(default_factory=dict[str, str])
    parameters: JsonObject | UnsetType = UNSET
    result: Json | UnsetType = UNSET
    error: Json | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    failures: int | UnsetType = UNSET
    losses: int | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET
    expires: datetime | UnsetType = UNSET
    timeout: float | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
