"""Deployments over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from runlane.protocol.messages import Name, Time

from .base import JsonObject, Limit, ObjectOrNull, Request, Response, check_limit, check_objects, empty_object
from .flows import PathName
from .ids import Id
from .runs import FlowRunPolicyCreate, Page
from .states import Labels, StateCreate, Tags

_Text: TypeAlias = Annotated[str, Meta(max_length=10_000)]
_Slots: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
#: What there is none of here: absent, null or empty.
_None: TypeAlias = Annotated[list[Any], Meta(max_length=0)] | None


class DeploymentCreate(Request):
    """A deployment; the same flow and name are the same deployment, which is changed then.

    Schedules, pull steps and infrastructure documents are not kept: they have to be absent.
    """

    name: PathName
    flow_id: Id
    paused: bool = False
    version: Name | None = None
    description: _Text | None = None
    entrypoint: _Text | None = None
    path: _Text | None = None
    tags: Tags = ()
    labels: Labels | None = field(default_factory=dict[str, Any])
    parameters: JsonObject = field(default_factory=empty_object)
    parameter_openapi_schema: ObjectOrNull = field(default_factory=empty_object)
    job_variables: ObjectOrNull = field(default_factory=empty_object)
    enforce_parameter_schema: bool = True
    concurrency_limit: _Slots | None = None
    work_pool_name: PathName | None = None
    work_queue_name: PathName | None = None
    schedules: _None = None
    pull_steps: _None = None
    concurrency_options: None = None
    global_concurrency_limit_id: None = None
    storage_document_id: None = None
    infrastructure_document_id: None = None
    version_info: None = None

    def check(self) -> None:
        """Raise `Invalid` for what has to be an object and is none."""
        check_objects(self, "parameters", nullable=("parameter_openapi_schema", "job_variables"))


class DeploymentUpdate(Request):
    """What can be changed of a deployment; what is absent stays as it is."""

    paused: bool | UnsetType = UNSET
    version: Name | UnsetType | None = UNSET
    description: _Text | UnsetType | None = UNSET
    entrypoint: _Text | UnsetType | None = UNSET
    path: _Text | UnsetType | None = UNSET
    tags: Tags | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    parameters: JsonObject | UnsetType = UNSET
    parameter_openapi_schema: JsonObject | UnsetType = UNSET
    job_variables: JsonObject | UnsetType = UNSET
    enforce_parameter_schema: bool | UnsetType = UNSET
    concurrency_limit: _Slots | UnsetType | None = UNSET
    work_pool_name: PathName | UnsetType | None = UNSET
    work_queue_name: PathName | UnsetType | None = UNSET

    def check(self) -> None:
        """Raise `Invalid` for what has to be an object and is none."""
        check_objects(self, "parameters", "parameter_openapi_schema", "job_variables")


class Deployment(Response):
    """A deployment as it is shown. What is not kept here is there, and empty."""

    id: str
    created: Time
    updated: Time
    name: str
    flow_id: str
    version: str | None
    description: str | None
    entrypoint: str | None
    path: str | None
    tags: tuple[str, ...]
    labels: dict[str, Any]
    parameters: JsonObject
    parameter_openapi_schema: JsonObject
    job_variables: JsonObject
    enforce_parameter_schema: bool
    paused: bool
    status: str
    concurrency_limit: int | None
    work_pool_name: str | None
    work_queue_name: str | None
    work_queue_id: str | None
    last_polled: Time | None
    schedules: list[Any] = field(default_factory=list[Any])
    pull_steps: None = None
    concurrency_options: None = None
    global_concurrency_limit: None = None
    storage_document_id: None = None
    infrastructure_document_id: None = None
    version_id: None = None
    version_info: None = None
    created_by: None = None
    updated_by: None = None


class DeploymentPage(Page):
    """A page of deployments."""

    results: list[Deployment]


class DeploymentRunCreate(Request):
    """A run of a deployment: what is absent is the deployment's, and the state is SCHEDULED, for now."""

    name: Annotated[str, Meta(max_length=200)] | None = None
    state: StateCreate | None = None
    parameters: JsonObject = field(default_factory=empty_object)
    context: JsonObject = field(default_factory=empty_object)
    tags: Tags = ()
    labels: Labels | None = field(default_factory=dict[str, Any])
    idempotency_key: Name | None = None
    parent_task_run_id: Id | None = None
    work_queue_name: PathName | None = None
    job_variables: ObjectOrNull = field(default_factory=empty_object)
    empirical_policy: FlowRunPolicyCreate | None = None
    enforce_parameter_schema: bool | None = None
    infrastructure_document_id: None = None

    def check(self) -> None:
        """Raise `Invalid` for what the types do not say."""
        check_objects(self, "parameters", "context", nullable=("job_variables",))
        if self.empirical_policy is not None:
            self.empirical_policy.check()


class ScheduledRuns(Request):
    """Which scheduled runs of deployments."""

    deployment_ids: Annotated[list[Id], Meta(min_length=1, max_length=500)]
    scheduled_before: Time | None = None
    limit: Limit = None

    def check(self) -> None:
        """Raise `Invalid` for a limit out of range."""
        check_limit(self.limit)
