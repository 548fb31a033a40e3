"""Questions about many things at once: which of them, in which order, how many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from runlane.protocol.messages import Time

from ..clock import MICROS_PER_SECOND, Micros, to_micros
from ..errors import Invalid
from .base import MAX_LIMIT, Limit, Offset, Parameters, Response, check_limit
from .filters import (
    DeploymentFilter,
    Filters,
    FlowFilter,
    FlowRunFilter,
    TaskRunFilter,
    WorkPoolFilter,
    WorkQueueFilter,
)
from .sorts import DeploymentSort, FlowRunSort, FlowSort, TaskRunSort

#: Where a page begins to count.
PageNumber: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)] | None
Cursor: TypeAlias = Annotated[str, Meta(max_length=500)] | None
#: A time that is UTC where it does not say otherwise, as Prefect's history has it.
HistoryTime: TypeAlias = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
_MIN_INTERVAL: Final = timedelta(seconds=1)
_MAX_INTERVAL: Final = timedelta(days=3650)
#: The end of the last interval has to be a time that can be shown.
_LATEST: Final = to_micros(datetime.max.replace(tzinfo=UTC))


class RunFilters(Parameters):
    """Which runs: those that all the filters take, each by its own fields or those of what it belongs to."""

    flows: FlowFilter | None = None
    flow_runs: FlowRunFilter | None = None
    task_runs: TaskRunFilter | None = None
    deployments: DeploymentFilter | None = None

    def filters(self) -> Filters:
        """The filters together."""
        return Filters(
            flows=self.flows, flow_runs=self.flow_runs, task_runs=self.task_runs, deployments=self.deployments
        )


class FlowRunFilters(RunFilters):
    """Which flow runs, flows or deployments. `work_queues` and `work_pool_queues` mean the same."""

    work_pools: WorkPoolFilter | None = None
    work_pool_queues: WorkQueueFilter | None = None
    work_queues: WorkQueueFilter | None = None

    def filters(self) -> Filters:
        """The filters together."""
        return Filters(
            flows=self.flows,
            flow_runs=self.flow_runs,
            task_runs=self.task_runs,
            deployments=self.deployments,
            work_pools=self.work_pools,
            work_queues=self.work_pool_queues or self.work_queues,
        )


# (Parts of lists are said once for each kind: structs cannot inherit from two that have fields.)


class SomeTaskRuns(RunFilters):
    """Task runs, but not more than so many."""

    limit: Limit = None

    def check(self) -> None:
        """Raise `Invalid` for a limit out of range."""
        check_limit(self.limit)


class SomeOfFlows(FlowRunFilters):
    """Flow runs, flows or deployments, but not more than so many."""

    limit: Limit = None

    def check(self) -> None:
        """Raise `Invalid` for a limit out of range."""
        check_limit(self.limit)


class TaskRunList(SomeTaskRuns):
    """Part of the task runs, by how many to leave out."""

    sort: TaskRunSort | None = None
    offset: Offset = None


class TaskRunPages(SomeTaskRuns):
    """One page of the task runs."""

    sort: TaskRunSort | None = None
    page: PageNumber = None


class TaskRunCursor(SomeTaskRuns):
    """The task runs that follow those of the last answer, whose `next` is the `cursor`."""

    sort: TaskRunSort | None = None
    cursor: Cursor = None


class FlowRunList(SomeOfFlows):
    """Part of the flow runs, by how many to leave out."""

    sort: FlowRunSort | None = None
    offset: Offset = None


class FlowRunPages(SomeOfFlows):
    """One page of the flow runs."""

    sort: FlowRunSort | None = None
    page: PageNumber = None


class FlowRunCursor(SomeOfFlows):
    """The flow runs that follow those of the last answer, whose `next` is the `cursor`."""

    sort: FlowRunSort | None = None
    cursor: Cursor = None


class FlowList(SomeOfFlows):
    """Part of the flows."""

    sort: FlowSort | None = None
    offset: Offset = None


class FlowPages(SomeOfFlows):
    """One page of the flows."""

    sort: FlowSort | None = None
    page: PageNumber = None


class DeploymentPages(SomeOfFlows):
    """One page of the deployments."""

    sort: DeploymentSort | None = None
    page: PageNumber = None


class DeploymentList(SomeOfFlows):
    """Part of the deployments."""

    sort: DeploymentSort | None = None
    offset: Offset = None


def size_of(limit: int | None) -> int:
    """Return how many a list may have."""
    return MAX_LIMIT if limit is None else limit


# History -----------------------------------------------------------------------------------------------------


class TaskRunHistory(RunFilters, kw_only=True):
    """Which stretch of time, cut into which intervals (seconds, or an ISO 8601 duration)."""

    history_start: HistoryTime
    history_end: HistoryTime
    history_interval_seconds: float | timedelta

    def check(self) -> None:
        """Raise `Invalid` for a stretch that ends before it begins, or an interval out of range."""
        _stretch(self.history_start, self.history_end, self.history_interval_seconds)

    def stretch(self) -> tuple[Micros, Micros, Micros]:
        """Return start, end and interval in microseconds."""
        return _stretch(self.history_start, self.history_end, self.history_interval_seconds)


class FlowRunHistory(FlowRunFilters, kw_only=True):
    """Which stretch of time, cut into which intervals (seconds, or an ISO 8601 duration)."""

    history_start: HistoryTime
    history_end: HistoryTime
    history_interval_seconds: float | timedelta

    def check(self) -> None:
        """Raise `Invalid` for a stretch that ends before it begins, or an interval out of range."""
        _stretch(self.history_start, self.history_end, self.history_interval_seconds)

    def stretch(self) -> tuple[Micros, Micros, Micros]:
        """Return start, end and interval in microseconds."""
        return _stretch(self.history_start, self.history_end, self.history_interval_seconds)


def _stretch(start: datetime, end: datetime, interval: float | timedelta) -> tuple[Micros, Micros, Micros]:
    seconds = interval.total_seconds() if isinstance(interval, timedelta) else interval
    if seconds < _MIN_INTERVAL.total_seconds():
        raise Invalid("History interval must not be less than 1 second.", "history_interval_seconds")
    if seconds > _MAX_INTERVAL.total_seconds():
        message = f"History interval must not be more than {_MAX_INTERVAL.days} days."
        raise Invalid(message, "history_interval_seconds")
    first, last = _utc(start), _utc(end)
    if first > last:
        raise Invalid("history_end is before history_start", "history_end")
    if last + seconds * MICROS_PER_SECOND > _LATEST:
        raise Invalid("history_end is too late", "history_end")
    return first, last, round(seconds * MICROS_PER_SECOND)


def _utc(when: datetime) -> Micros:
    return to_micros(when if when.tzinfo is not None else when.replace(tzinfo=UTC))


# Answers -----------------------------------------------------------------------------------------------------


class HistoryState(Response):
    """The runs of an interval that are in one state now. Sums are seconds, of what is positive."""

    state_type: str
    state_name: str
    count_runs: int
    sum_estimated_run_time: float
    sum_estimated_lateness: float


class HistoryBar(Response):
    """The runs that were expected to start in an interval; the end is no longer part of it."""

    interval_start: Time
    interval_end: Time
    states: list[HistoryState]
