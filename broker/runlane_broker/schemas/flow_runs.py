"""Flow runs over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field

from runlane.protocol.messages import Name

from .base import JsonObject, ObjectOrNull, Request, Response, check_objects, empty_object
from .flows import PathName
from .ids import Id
from .runs import FlowRunPolicy, FlowRunPolicyCreate, Page, Run
from .states import Labels, StateCreate, Tags


class FlowRunCreate(Request):
    """A run to be created; one without a state is PENDING. The same flow and idempotency key are the same run."""

    flow_id: Id
    name: Annotated[str, Meta(max_length=200)] | None = None
    state: StateCreate | None = None
    parameters: JsonObject = field(default_factory=empty_object)
    context: JsonObject = field(default_factory=empty_object)
    tags: Tags = ()
    labels: Labels | None = field(default_factory=dict[str, Any])
    idempotency_key: Name | None = None
    deployment_id: Id | None = None
    parent_task_run_id: Id | None = None
    flow_version: Name | None = None
    work_pool_name: PathName | None = None
    work_queue_name: PathName | None = None
    job_variables: ObjectOrNull = field(default_factory=empty_object)
    empirical_policy: FlowRunPolicyCreate | None = None
    infrastructure_document_id: None = None
    id: Id | None = None

    def check(self) -> None:
        """Raise `Invalid` for what the types do not say."""
        check_objects(self, "parameters", "context", nullable=("job_variables",))
        if self.empirical_policy is not None:
            self.empirical_policy.check()


class FlowRunUpdate(Request):
    """What can be changed of a run. What is absent, or null, stays."""

    name: Name | None = None
    tags: Tags | None = None
    parameters: ObjectOrNull | UnsetType = UNSET
    job_variables: ObjectOrNull | UnsetType = UNSET
    empirical_policy: FlowRunPolicyCreate | None = None
    flow_version: Name | None = None
    infrastructure_pid: Name | None = None

    def check(self) -> None:
        """Raise `Invalid` for what the types do not say."""
        check_objects(self, nullable=("parameters", "job_variables"))
        if self.empirical_policy is not None:
            self.empirical_policy.check()


class FlowRun(Run):
    """A run as it is shown. What is not kept here is there, and empty."""

    flow_id: str
    deployment_id: str | None
    work_pool_id: str | None
    work_pool_name: str | None
    work_queue_id: str | None
    work_queue_name: str | None
    flow_version: str | None
    parameters: JsonObject
    context: JsonObject
    job_variables: JsonObject
    idempotency_key: str | None
    empirical_policy: FlowRunPolicy
    parent_task_run_id: str | None
    infrastructure_pid: str | None
    auto_scheduled: bool = False
    deployment_version: None = None
    infrastructure_document_id: None = None
    created_by: None = None
    attempt: int | UnsetType = UNSET
    failures: int | UnsetType = UNSET
    losses: int | UnsetType = UNSET


class FlowRunsAfter(Response):
    """The runs after a cursor, and the cursor after them; null at the end."""

    results: list[FlowRun]
    next: str | None


class FlowRunPage(Page):
    """A page of runs."""

    results: list[FlowRun]
