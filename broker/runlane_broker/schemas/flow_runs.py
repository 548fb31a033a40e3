"""Flow runs over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, UnsetType, field

from runlane.protocol.messages import Id, Name

from .base import JsonObject, Request, Response
from .deployments import check_objects
from .flows import PathName
from .runs import FlowRunPolicy, FlowRunPolicyCreate, Page, Run
from .states import Labels, StateCreate, Tags


def _object() -> Raw:
    return Raw(b"{}")


class FlowRunCreate(Request):
    """A run to be created; one without a state is PENDING. The same flow and idempotency key are the same run."""

    flow_id: Id
    name: Annotated[str, Meta(max_length=200)] | None = None
    state: StateCreate | None = None
    parameters: JsonObject = field(default_factory=_object)
    context: JsonObject = field(default_factory=_object)
    tags: Tags = ()
    labels: Labels | None = field(default_factory=dict[str, Any])
    idempotency_key: Name | None = None
    deployment_id: Id | None = None
    parent_task_run_id: Id | None = None
    flow_version: Name | None = None
    work_pool_name: PathName | None = None
    work_queue_name: PathName | None = None
    job_variables: JsonObject | None = field(default_factory=_object)
    empirical_policy: FlowRunPolicyCreate | None = None
    infrastructure_document_id: None = None
    id: Id | None = None

    def check(self) -> None:
        """Raise `Invalid` for what the types do not say."""
        check_objects(self, "parameters", "context", "job_variables")
        if self.empirical_policy is not None:
            self.empirical_policy.check()


class FlowRunUpdate(Request):
    """What can be changed of a run."""

    name: Name | None = None


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
