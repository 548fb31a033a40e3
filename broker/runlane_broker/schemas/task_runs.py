"""Task runs over HTTP. Names and shapes follow the Prefect server API; what is ours is optional and additional."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from runlane.protocol.messages import Headers, Name, Priority, TaskKey, Time

from ..errors import Invalid
from .base import Json, JsonObject, Request, Response, empty_object
from .ids import Id
from .runs import Page, Policy, PolicyCreate, Run
from .states import Labels, StateCreate, Tags

MAX_CACHE_KEY: Final = 2000
#: Runs of one bulk request.
MAX_BULK: Final = 1000


class TaskRunInput(Request, tag_field="input_type", tag="task_run"):
    """Another task run's result."""

    id: Id


class FlowRunInput(Request, tag_field="input_type", tag="flow_run"):
    """A flow run's result."""

    id: Id


class ParameterInput(Request, tag_field="input_type", tag="parameter"):
    """A parameter of the flow."""

    name: Name


class ConstantInput(Request, tag_field="input_type", tag="constant"):
    """A constant, by its type."""

    type: Name


TaskInputs: TypeAlias = Annotated[
    dict[
        Annotated[str, Meta(max_length=200)],
        Annotated[list[TaskRunInput | FlowRunInput | ParameterInput | ConstantInput], Meta(max_length=10_000)],
    ],
    Meta(max_length=1000),
]


class TaskRunCreate(Request):
    """A run to be created. As in Prefect's API, one without a state is PENDING, and nobody dispatches it."""

    task_key: TaskKey
    dynamic_key: Name | None = None
    name: Annotated[str, Meta(max_length=200)] | None = None
    state: StateCreate | None = None
    flow_run_id: Id | None = None
    cache_key: Annotated[str, Meta(extra_json_schema={"maxLength": MAX_CACHE_KEY})] | None = None
    cache_expiration: Time | None = None
    task_version: Name | None = None
    tags: Tags = ()
    labels: Labels = field(default_factory=dict[str, Any])
    task_inputs: TaskInputs = field(default_factory=dict[str, Any])
    empirical_policy: PolicyCreate | None = None
    id: Id | None = None
    parameters: JsonObject = field(default_factory=empty_object)
    idempotency_key: Name | None = None
    priority: Priority = 0
    expires: Time | None = None
    timeout: Annotated[float, Meta(gt=0, le=315_360_000)] | None = None
    headers: Headers = field(default_factory=dict[str, str])

    def check(self) -> None:
        """Raise `Invalid` for what the types do not say."""
        if self.cache_key is not None and len(self.cache_key) > MAX_CACHE_KEY:
            raise Invalid(f"Cache key exceeded maximum allowed length of {MAX_CACHE_KEY} characters.", "cache_key")
        if self.empirical_policy is not None:
            self.empirical_policy.check()


class TaskRunsCreate(Request):
    """Runs to be created together: all, or where the request is wrong, none."""

    task_runs: Annotated[list[TaskRunCreate], Meta(min_length=1, max_length=MAX_BULK)]

    def check(self) -> None:
        """Raise `Invalid`, naming the run."""
        for i, run in enumerate(self.task_runs):
            try:
                run.check()
            except Invalid as exc:
                raise Invalid(exc.message, f"task_runs[{i}].{exc.field}", exc.kind) from exc


class CreatedRun(Response):
    """What became of one run of many: its id, or the code of its refusal."""

    id: str
    created: bool
    error: str | UnsetType = UNSET


class TaskRunUpdate(Request):
    """What can be changed of a run."""

    name: Name | None = None


class TaskRun(Run):
    """A run as it is shown. What Prefect's runs do not have stands last, and is absent where it says nothing."""

    flow_run_id: str | None
    task_key: str
    dynamic_key: str
    cache_key: str | None
    cache_expiration: Time | None
    task_version: str | None
    empirical_policy: Policy
    task_inputs: dict[str, Any]
    flow_run_run_count: int
    parameters: JsonObject | UnsetType = UNSET
    result: Json | UnsetType = UNSET
    error: Json | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    failures: int | UnsetType = UNSET
    losses: int | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET
    expires: Time | UnsetType = UNSET
    timeout: float | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET


class TaskRunsAfter(Response):
    """The runs after a cursor, and the cursor after them; null at the end."""

    results: list[TaskRun]
    next: str | None


class TaskRunPage(Page):
    """A page of runs."""

    results: list[TaskRun]
