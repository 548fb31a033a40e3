"""States over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from runlane.protocol.messages import Message, Name, Time

from .base import Json, Parameters, Request, Response
from .ids import Id

StateTypeName: TypeAlias = Literal[
    "SCHEDULED",
    "PENDING",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "CRASHED",
    "PAUSED",
    "CANCELLING",
]
CacheKey: TypeAlias = str
Text: TypeAlias = Annotated[str, Meta(max_length=2000)]


class StateDetailsCreate(Request):
    """What a proposed state knows beside its type, name and message."""

    flow_run_id: Id | None = None
    task_run_id: Id | None = None
    child_flow_run_id: Id | None = None
    scheduled_time: Time | None = None
    cache_key: str | None = None
    cache_expiration: Time | None = None
    deferred: bool | None = False
    untrackable_result: bool = False
    pause_timeout: Time | None = None
    pause_reschedule: bool = False
    pause_key: Text | None = None
    run_input_keyset: dict[str, str] | None = None
    refresh_cache: bool | None = None
    retriable: bool | None = None
    transition_id: Id | None = None
    task_parameters_id: Id | None = None
    traceparent: Text | None = None
    deployment_concurrency_lease_id: Id | None = None


class StateCreate(Request):
    """A state that is asked for. Without a name it has that of its type."""

    type: StateTypeName
    name: Name | None = None
    message: Message | None = None
    data: Json | UnsetType = UNSET
    state_details: StateDetailsCreate | None = None


class SetState(Request):
    """A state to set. `force` leaves out the rules, but for those that keep the books."""

    state: StateCreate
    force: bool = False


class StateDetails(Response):
    """What a state knows beside its type, name and message."""

    flow_run_id: str | None
    task_run_id: str | None
    child_flow_run_id: str | None
    scheduled_time: Time | None
    cache_key: str | None
    cache_expiration: Time | None
    deferred: bool
    untrackable_result: bool
    pause_timeout: Time | None
    pause_reschedule: bool
    pause_key: str | None
    run_input_keyset: dict[str, str] | None
    refresh_cache: bool | None
    retriable: bool | None
    transition_id: str | None
    task_parameters_id: str | None
    traceparent: str | None
    deployment_concurrency_lease_id: str | None


class State(Response):
    """A state of a run."""

    id: str
    type: StateTypeName
    name: str
    timestamp: Time
    message: str | None
    data: Json | None
    state_details: StateDetails


class StateOfTaskRun(Parameters):
    """Whose states."""

    task_run_id: Id


class StateOfFlowRun(Parameters):
    """Whose states."""

    flow_run_id: Id


StatusName: TypeAlias = Literal["ACCEPT", "REJECT", "WAIT", "ABORT"]


class AcceptDetails(Response, tag_field="type", tag="accept_details"):
    """The state was set."""


class RejectDetails(Response, tag_field="type", tag="reject_details"):
    """Another state was set, or none."""

    reason: str | None


class WaitDetails(Response, tag_field="type", tag="wait_details"):
    """Nothing was set: ask again later."""

    delay_seconds: int
    reason: str | None


class AbortDetails(Response, tag_field="type", tag="abort_details"):
    """Nothing was set: give up."""

    reason: str | None


class OrchestrationResult(Response):
    """What became of a state that was asked for, and the state in which the run is now."""

    state: State | None
    status: StatusName
    details: AcceptDetails | RejectDetails | WaitDetails | AbortDetails


#: Labels and the like: text, numbers, truth.
Labels: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=200)], bool | int | float | Annotated[str, Meta(max_length=2000)]],
    Meta(max_length=64),
]
ShownLabels: TypeAlias = dict[str, Any]
Tags: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=32)]
