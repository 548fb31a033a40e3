"""Policies: which rules have a say, and in which order. The first that objects decides."""

from __future__ import annotations

from typing import Final

from . import common_rules as common
from . import flow_rules as flow
from . import task_rules as task
from .decisions import Proposed
from .rules import Consequence, Policy
from .runs import Run, RunKind

#: What follows for task runs, whichever policy has let the state through.
TASK_CONSEQUENCES: Final[tuple[Consequence, ...]] = (task.free_slots, task.settle_lease, task.dispatch)

#: And for flow runs, which a session may hold, too.
FLOW_CONSEQUENCES: Final[tuple[Consequence, ...]] = (task.settle_lease,)

CORE_TASK: Final = Policy(
    "CoreTaskPolicy",
    (
        task.CANCELLED_AS_ASKED,
        task.CANCEL_AT_ONCE,
        task.CANCEL_ONCE,
        task.CACHE_RETRIEVAL,
        task.TERMINAL,
        task.RUNNING_FLOW,
        task.CONCURRENCY_SLOTS,  # after the cache: what is there already needs no slot
        common.COPY_SCHEDULED_TIME,
        common.WAIT_FOR_SCHEDULED_TIME,
        task.RETRY,
        task.RENAME_RERUNS,
        task.TRACK_FLOW,
        task.CACHE_INSERTION,
    ),
    TASK_CONSEQUENCES,
)

BACKGROUND_TASK: Final = Policy(
    "BackgroundTaskPolicy",
    (
        task.CANCELLED_AS_ASKED,
        task.CANCEL_AT_ONCE,
        task.CANCEL_ONCE,
        common.PREVENT_PENDING,
        task.CACHE_RETRIEVAL,
        task.TERMINAL,
        common.COPY_SCHEDULED_TIME,
        task.COPY_TASK_PARAMETERS,
        common.WAIT_FOR_SCHEDULED_TIME,
        task.RETRY,
        task.RENAME_RERUNS,
        task.TRACK_FLOW,
        task.CACHE_INSERTION,
    ),
    TASK_CONSEQUENCES,
)

MINIMAL_TASK: Final = Policy("MinimalTaskPolicy", (task.CANCEL_AT_ONCE,), TASK_CONSEQUENCES)

#: What clients report of the runs that they execute and retry by themselves: it has happened already.
REPORTED_TASK: Final = Policy(
    "ReportedTaskPolicy", (task.KEEP_END, task.CANCEL_AS_TOLD), (task.end_reported_lease,)
)

CORE_FLOW: Final = Policy(
    "CoreFlowPolicy",
    (
        flow.PREVENT_DUPLICATE,
        flow.START_ONCE,
        flow.TERMINAL,
        flow.PREVENT_RESULT_LOSS,
        flow.CANCELLING_TO_CANCELLED,
        flow.BYPASS_CANCELLING,
        common.PREVENT_PENDING,
        common.ONLY_SCHEDULED_LATE,
        common.COPY_SCHEDULED_TIME,
        common.WAIT_FOR_SCHEDULED_TIME,
        flow.RETRY,
    ),
    FLOW_CONSEQUENCES,
)

MINIMAL_FLOW: Final = Policy(
    "MinimalFlowPolicy", (flow.PREVENT_RESULT_LOSS, flow.BYPASS_CANCELLING), FLOW_CONSEQUENCES
)

#: For both kinds of runs: whoever marks a run late has found it SCHEDULED, but may come too late himself.
MARK_LATE: Final = Policy("MarkLateRunsPolicy", (common.ONLY_SCHEDULED_LATE,))

#: For a parked task run that somebody wants to be tried again.
REQUEUE_PARKED: Final = Policy("RequeueParkedPolicy", (task.ONLY_PARKED,), (task.dispatch_again,))

POLICIES: Final = (
    CORE_TASK, BACKGROUND_TASK, MINIMAL_TASK, REPORTED_TASK, CORE_FLOW, MINIMAL_FLOW, MARK_LATE, REQUEUE_PARKED,
)  # fmt: skip


def choose_policy(run: Run, proposed: Proposed, *, force: bool) -> Policy:
    """Return the policy for a state that somebody asks for. A deferred task run's rules cannot be forced."""
    if run.kind is RunKind.FLOW:
        return MINIMAL_FLOW if force else CORE_FLOW
    if proposed.details.deferred:
        return BACKGROUND_TASK
    if force:
        return MINIMAL_TASK
    return BACKGROUND_TASK if run.flow_run_id is None else CORE_TASK
