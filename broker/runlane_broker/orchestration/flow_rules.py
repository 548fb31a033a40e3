"""Rules about flow runs. Reasons and names are those of the Prefect server API: its clients read them."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from runlane.protocol.states import FINAL, StateName, StateType

from ..clock import MICROS_PER_SECOND
from .decisions import Abort, Proposed, Reject, SetRetryType, holds_result
from .details import StateDetails
from .rules import ANY, ENDED, Replace, Rule, Transition, Verdict, only
from .states import IN_PROCESS

_S = StateType

#: The name of a SCHEDULED state on the way out of a pause.
RESUMING: Final = "Resuming"


def _refuse_duplicate(t: Transition) -> Verdict:
    """The same `transition_id` twice is a request that was sent again: REJECT."""
    asked, made = t.proposed.details.transition_id, t.current.details.transition_id
    return Reject("This run has already made this state transition.") if asked and asked == made else t


PREVENT_DUPLICATE: Final = Rule("PreventDuplicateTransitions", ANY, ANY, _refuse_duplicate)


def _keep_result(t: Transition) -> Verdict:
    """A result is not overwritten by a COMPLETED state without one."""
    if not t.current.has_result or holds_result(t.proposed.data):
        return t
    return Reject("Cannot overwrite a COMPLETED state that carries persisted result data with one that does not.")


PREVENT_RESULT_LOSS: Final = Rule("PreventResultDataLoss", only(_S.COMPLETED), only(_S.COMPLETED), _keep_result)


def _protect_end(t: Transition) -> Verdict:
    """A run that has COMPLETED with a result stays so; another one may begin anew, if something can start it."""
    if t.intended in (_S.CANCELLING, _S.PAUSED, _S.CRASHED):
        return Abort(f"Run is already in terminal state {t.current.type}.")
    if t.intended in FINAL:
        return t
    if t.current.type is _S.COMPLETED and t.current.has_result:
        return Reject("Run is already COMPLETED.")
    if t.intended is not _S.SCHEDULED:
        return replace(t, effects=(*t.effects, SetRetryType(None)))
    if t.run.deployment_id is None:
        return Abort("Cannot reschedule a run without an associated deployment.")
    return replace(t, effects=(*t.effects, SetRetryType("reschedule")))


TERMINAL: Final = Rule("HandleFlowTerminalStateTransitions", ENDED, ANY, _protect_end)


def _start_once(t: Transition) -> Verdict:
    """Out of a work queue a run starts while it is SCHEDULED: who has polled it before it ended comes too late."""
    if not t.facts.in_queue:
        return t
    return Abort(f"This run is in a {t.current.type} state and cannot transition to a PENDING state.")


START_ONCE: Final = Rule("StartOutOfQueueOnce", ENDED, only(_S.PENDING), _start_once)


def _only_to_cancelled(t: Transition) -> Verdict:
    """A run that is being cancelled ends CANCELLED."""
    return Reject("Cannot transition flows that are cancelling to a state other than Cancelled.")


CANCELLING_TO_CANCELLED: Final = Rule(
    "EnforceCancellingToCancelledTransition",
    only(_S.CANCELLING),
    ANY - {_S.CANCELLED},
    _only_to_cancelled,
)


def _cancel_at_once(t: Transition) -> Verdict:
    """Where nothing runs there is nothing to stop: REJECT -> CANCELLED."""
    if t.current.type is _S.PAUSED:
        if not t.current.details.pause_reschedule:
            return t
        return Replace(Proposed(_S.CANCELLED), "Suspended flow run has no infrastructure to terminate.")
    if t.run.infrastructure_pid and t.current.name != RESUMING:
        return t
    return Replace(Proposed(_S.CANCELLED), "Scheduled flow run has no infrastructure to terminate.")


BYPASS_CANCELLING: Final = Rule(
    "BypassCancellingFlowRunsWithNoInfra",
    only(_S.SCHEDULED, _S.PAUSED),
    only(_S.CANCELLING),
    _cancel_at_once,
)


def _retry(t: Transition) -> Verdict:
    """A failure with retries left: REJECT -> SCHEDULED, for the process that runs the flow, or its work queue."""
    # What the broker has handed out may have been lost and started again: only failures count.
    failures = t.run.books.failures if t.facts.lease else max(t.run.books.run_count - 1, 0)
    if failures >= t.run.retries.limit:
        return replace(t, effects=(*t.effects, SetRetryType(None)))
    delay = t.run.retries.delay(failures, t.facts.random)
    details = StateDetails(
        scheduled_time=t.now + round(delay * MICROS_PER_SECOND),
        deployment_concurrency_lease_id=t.current.details.deployment_concurrency_lease_id,
    )
    state = Proposed(_S.SCHEDULED, StateName.AWAITING_RETRY, t.proposed.message, t.proposed.data, details)
    return Replace(state, "Retrying", (SetRetryType("reschedule" if t.facts.lease else IN_PROCESS),))


RETRY: Final = Rule("RetryFailedFlows", only(_S.RUNNING), only(_S.FAILED), _retry)
