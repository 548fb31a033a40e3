"""Filters: which flows, runs, deployments, work pools and work queues are meant.

A field of a group names what is looked at, and the fields of its type, the operators, what is asked of it. These
declarations are all there is: bodies are checked by them, `storage.filters` makes SQL of them, and the tables in
docs/http.md are made from them. What is absent or null says nothing, and neither does an operator's group in which
nothing is said. The operators of one field must all hold; so must the fields of a group, unless its `operator` is
`or_`.
"""

from __future__ import annotations

from typing import Annotated, Final, Generic, Literal, TypeAlias, TypeVar
from uuid import UUID

from msgspec import Meta, Struct

from runlane.protocol.messages import Time
from runlane.protocol.states import StateType

from .base import Request

T = TypeVar("T")

#: How many values a list may have. All lists of all filters together stay below what SQLite takes as parameters.
MAX_VALUES: Final = 500
#: How many beginnings may be given: SQLite's expressions must not be too deep.
MAX_STARTS: Final = 50

_NO_NUL: Final = r"^[^\x00]*$"
#: A value that is looked for.
Value: TypeAlias = Annotated[str, Meta(max_length=2000, pattern=_NO_NUL)]
#: Part of a text. `%` stands for anything and `_` for one character, unless a backslash is before it.
Pattern: TypeAlias = Annotated[str, Meta(max_length=200, pattern=_NO_NUL)]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Values: TypeAlias = Annotated[tuple[T, ...], Meta(max_length=MAX_VALUES)]


# Operators ---------------------------------------------------------------------------------------------------


class Operators(Request):
    """What can be asked of a field."""


class Combined(Operators):
    """Several questions of which all must hold, or one."""

    operator: Literal["and_", "or_"] | None = None


class AnyOf(Operators, Generic[T]):
    """It is one of these."""

    any_: Values[T] | None = None


class AnyOrNot(Operators, Generic[T]):
    """It is one of these, or none of those."""

    any_: Values[T] | None = None
    not_any_: Values[T] | None = None


class AnyOrNull(Combined, Generic[T]):
    """It is one of these, or there is one at all."""

    any_: Values[T] | None = None
    is_null_: bool | None = None


class AnyOrLike(Operators):
    """It is one of these, or looks like this."""

    any_: Values[Value] | None = None
    like_: Pattern | None = None


class AnyOrStart(Operators):
    """It is one of these, or starts with one of those."""

    any_: Values[Value] | None = None
    startswith_: Annotated[tuple[Pattern, ...], Meta(max_length=MAX_STARTS)] | None = None


class Like(Operators):
    """It looks like this."""

    like_: Pattern | None = None


class Is(Operators):
    """It is so or not."""

    eq_: bool | None = None


class Exists(Operators):
    """There are some or none."""

    exists_: bool | None = None


class IsNull(Combined):
    """There is none or one."""

    is_null_: bool | None = None


class Between(Operators):
    """It is not after the one and not before the other."""

    before_: Time | None = None
    after_: Time | None = None


class BetweenOrNull(Between):
    """It is not after the one and not before the other, or there is one at all."""

    is_null_: bool | None = None


class Bounds(Operators):
    """It is at least this and at most that, or there is one at all."""

    ge_: Number | None = None
    le_: Number | None = None
    is_null_: bool | None = None


class AllTags(Combined):
    """It has all of these tags, or none at all."""

    all_: Values[Value] | None = None
    is_null_: bool | None = None


class Tags(AllTags):
    """It has all of these tags, or one of those, or none at all."""

    any_: Values[Value] | None = None


class State(Combined):
    """The state that a run is in."""

    type: AnyOf[StateType] | None = None
    name: AnyOf[Value] | None = None


class StateOrNot(Combined):
    """The state that a run is in."""

    type: AnyOrNot[StateType] | None = None
    name: AnyOrNot[Value] | None = None


class OfFlowRun(AnyOrNull[UUID]):
    """The flow run that it belongs to. Where nothing is said there has to be one, as at the Prefect server."""


class AnyFlowRun(Combined):
    """The flow run is one of these."""

    any_: Values[UUID] | None = None


class Creator(Combined):
    """Who created it, which is not kept: so nobody did."""

    id_: Values[UUID] | None = None
    type_: Values[Value] | None = None
    is_null_: bool | None = None


# Groups ------------------------------------------------------------------------------------------------------


class FlowFilter(Combined):
    """Which flows."""

    id: AnyOrNot[UUID] | None = None
    deployment: Annotated[IsNull | None, Meta(description="whether it has a deployment")] = None
    name: AnyOrLike | None = None
    tags: AllTags | None = None


class FlowRunFilter(Combined):
    """Which flow runs."""

    id: AnyOrNot[UUID] | None = None
    name: AnyOrLike | None = None
    tags: Tags | None = None
    deployment_id: AnyOrNull[UUID] | None = None
    work_queue_name: AnyOrNull[Value] | None = None
    state: StateOrNot | None = None
    flow_version: AnyOf[Value] | None = None
    start_time: Annotated[
        BetweenOrNull | None,
        Meta(description="before its start the time at which it is expected, but for `is_null_`"),
    ] = None
    end_time: BetweenOrNull | None = None
    expected_start_time: Between | None = None
    next_scheduled_start_time: Annotated[Between | None, Meta(description="only while it is SCHEDULED")] = None
    parent_flow_run_id: Annotated[AnyFlowRun | None, Meta(description="the flow run of its parent task run")] = (
        None
    )
    parent_task_run_id: AnyOrNull[UUID] | None = None
    idempotency_key: AnyOrNot[Value] | None = None
    created_by: Annotated[Creator | None, Meta(description="not kept: always null")] = None


class TaskRunFilter(Combined):
    """Which task runs."""

    id: AnyOf[UUID] | None = None
    name: AnyOrLike | None = None
    task_key: Annotated[AnyOf[Value] | None, Meta(description="not at the Prefect server")] = None
    tags: AllTags | None = None
    state: State | None = None
    start_time: BetweenOrNull | None = None
    end_time: BetweenOrNull | None = None
    expected_start_time: Between | None = None
    subflow_runs: Annotated[Exists | None, Meta(description="flow runs whose parent it is")] = None
    flow_run_id: Annotated[OfFlowRun | None, Meta(description="`{}` asks for one, whichever")] = None


class DeploymentFilter(Combined):
    """Which deployments."""

    id: AnyOrNot[UUID] | None = None
    name: AnyOrLike | None = None
    flow_or_deployment_name: Annotated[Like | None, Meta(description="its own name or its flow's")] = None
    paused: Is | None = None
    tags: Tags | None = None
    work_queue_name: AnyOf[Value] | None = None
    concurrency_limit: Bounds | None = None


class WorkPoolFilter(Combined):
    """Which work pools."""

    id: AnyOf[UUID] | None = None
    name: AnyOf[Value] | None = None
    type: AnyOf[Value] | None = None


class WorkQueueFilter(Combined):
    """Which work queues."""

    id: AnyOf[UUID] | None = None
    name: AnyOrStart | None = None


class Filters(Struct, frozen=True, kw_only=True):
    """Filters of several kinds. A group that is not of what is listed is asked of what that belongs to."""

    flows: FlowFilter | None = None
    flow_runs: FlowRunFilter | None = None
    task_runs: TaskRunFilter | None = None
    deployments: DeploymentFilter | None = None
    work_pools: WorkPoolFilter | None = None
    work_queues: WorkQueueFilter | None = None


#: Whatever there is.
ALL: Final = Filters()
