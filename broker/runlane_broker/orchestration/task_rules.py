"""Rules about task runs, and what follows from their states.

Reasons and names are those of the Prefect server API: its clients read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from runlane.protocol.states import FINAL, StateName, StateType

from ..clock import MICROS_PER_SECOND
from .decisions import (
    Abort,
    AskToStop,
    Dispatch,
    Effect,
    EndLease,
    FreeSlots,
    InsertCache,
    Proposed,
    Reject,
    TakeSlots,
    Wait,
)
from .details import StateDetails
from .facts import Lease, TagLimit
from .rules import ANY, ANY_OR_NONE, ENDED, Replace, Rule, Transition, Verdict, only

_S = StateType

#: Names of states that nothing but these rules gives.
CACHED: Final = "Cached"
RERUNNING: Final = "Rerunning"
NOT_READY: Final = "NotReady"

#: Characters of a cache key.
MAX_CACHE_KEY: Final = 2000


def _cancel_as_asked(t: Transition) -> Verdict:
    """A Prefect worker cannot be told to stop. When it asks to begin, or fails, it is: REJECT -> CANCELLED."""
    if t.facts.lease not in (Lease.PREFECT_SENT, Lease.PREFECT):
        return t
    return Replace(Proposed(_S.CANCELLED, message=t.proposed.message), "The run was being cancelled.")


CANCELLED_AS_ASKED: Final = Rule(
    "CancelledAsAsked", only(_S.CANCELLING), only(_S.PENDING, _S.RUNNING, _S.FAILED), _cancel_as_asked
)


def _cancel_at_once(t: Transition) -> Verdict:
    """What waits and is leased to nobody has nobody to ask to stop: REJECT -> CANCELLED (ours, not Prefect's)."""
    if t.facts.lease is not None:
        return t
    return Replace(
        Proposed(_S.CANCELLED, message=t.proposed.message), "Nobody holds the run: there is nothing to stop."
    )


CANCEL_AT_ONCE: Final = Rule(
    "CancelWaitingAtOnce", only(_S.SCHEDULED, _S.PENDING, _S.PAUSED), only(_S.CANCELLING), _cancel_at_once
)


def _cancel_once(_: Transition) -> Verdict:
    """Who asks again for a run to be cancelled finds it being cancelled: REJECT (ours, not Prefect's)."""
    return Reject("The run is being cancelled already.")


CANCEL_ONCE: Final = Rule("CancelOnce", only(_S.CANCELLING), only(_S.CANCELLING), _cancel_once)


def _retrieve_from_cache(t: Transition) -> Verdict:
    """What has been computed already, under the same cache key, is not computed again: REJECT -> COMPLETED."""
    details = t.proposed.details
    if t.facts.cached is None or not details.cache_key or details.refresh_cache:
        return t
    return Replace(replace(t.facts.cached, name=CACHED), "Retrieved state from cache")


CACHE_RETRIEVAL: Final = Rule("CacheRetrieval", ANY_OR_NONE, only(_S.RUNNING), _retrieve_from_cache)


def _protect_end(t: Transition) -> Verdict:
    """A run that has ended with a result stays as it is; another one may begin anew, with a run count of 0.

    One that has COMPLETED without a result is not CANCELLED, either (ours, not Prefect's).
    """
    if t.intended in (_S.CANCELLING, _S.PAUSED, _S.CRASHED):
        return Abort(f"Run is already {t.current.type}.")
    if t.current.type is _S.COMPLETED and (t.current.has_result or t.intended is _S.CANCELLED):
        return Reject("This run is already completed.")
    if t.intended in FINAL:
        return t
    flow = t.facts.flow
    retried = flow is not None and t.run.books.flow_run_run_count < flow.run_count
    name = StateName.RETRYING if retried and t.intended is _S.RUNNING else t.proposed.name
    books = replace(t.run.books, run_count=0, failures=0)
    return replace(t, run=replace(t.run, books=books), proposed=replace(t.proposed, name=name))


TERMINAL: Final = Rule("HandleTaskTerminalStateTransitions", ENDED, ANY, _protect_end)


def _need_running_flow(t: Transition) -> Verdict:
    """A task run starts only while its flow run is RUNNING; while that is PAUSED: REJECT -> PAUSED."""
    flow = t.facts.flow
    if flow is None or flow.state_type is _S.RUNNING:
        return t
    if flow.state_type is not _S.PAUSED:
        return Abort("The enclosing flow must be running to begin task execution.")
    details = StateDetails(pause_timeout=flow.pause_timeout, pause_reschedule=flow.pause_reschedule)
    return Replace(
        Proposed(_S.PAUSED, NOT_READY, details=details),
        f"The flow is paused, new tasks can execute after resuming flow run: {flow.id}.",
    )


RUNNING_FLOW: Final = Rule(
    "PreventRunningTasksFromStoppedFlows", ANY_OR_NONE, only(_S.RUNNING), _need_running_flow
)


def _take_slots(t: Transition) -> Verdict:
    """A run starts only with a slot of each tag that is limited: WAIT, or ABORT where a limit is 0."""
    global_limits = [limit for limit in t.facts.limits if limit.is_global]
    covered = {limit.tag for limit in global_limits}
    own_limits = [limit for limit in t.facts.limits if not limit.is_global and limit.tag not in covered]
    for limit in (*global_limits, *own_limits):
        if limit.slots == 0:
            deadlock = "is 0 and will deadlock if the task tries to run again."
            return Abort(f'The concurrency limit on tag "{limit.tag}" {deadlock}')
    if any(map(_is_full, global_limits)):
        tags = ", ".join(limit.tag for limit in global_limits)
        return Wait(f"Concurrency limit reached for tags: {tags}", _slot_wait(t, global_limits))
    for limit in filter(_is_full, own_limits):
        reason = f"Concurrency limit for the {limit.tag} tag has been reached"
        return Wait(reason, t.facts.slot_wait_seconds)
    tags = tuple(limit.tag for limit in (*global_limits, *own_limits))
    return replace(t, effects=(*t.effects, TakeSlots(tags))) if tags else t


def _is_full(limit: TagLimit) -> bool:
    return limit.taken >= limit.slots


def _slot_wait(t: Transition, limits: Sequence[TagLimit]) -> int:
    """Return how long to wait, in seconds: at random, so that those who wait don't come back all at once."""
    fullest = max(limits, key=lambda limit: limit.taken / limit.slots)
    average = min(fullest.average_seconds or t.facts.slot_wait_seconds, t.facts.slot_wait_seconds)
    return max(round(average * (0.5 + t.facts.random / 2)), 1)


CONCURRENCY_SLOTS: Final = Rule("SecureTaskConcurrencySlots", ANY_OR_NONE, only(_S.RUNNING), _take_slots)


def _copy_task_parameters(t: Transition) -> Verdict:
    """The name of the stored parameters goes along with the run."""
    if t.proposed.details.task_parameters_id is not None:
        return t
    details = replace(t.proposed.details, task_parameters_id=t.current.details.task_parameters_id)
    return replace(t, proposed=replace(t.proposed, details=details))


COPY_TASK_PARAMETERS: Final = Rule(
    "CopyTaskParametersID",
    only(_S.SCHEDULED, _S.PENDING),
    only(_S.PENDING, _S.RUNNING),
    _copy_task_parameters,
)


def _retry(t: Transition) -> Verdict:
    """A failure with retries left, unless it says that it is not retriable: REJECT -> SCHEDULED."""
    # What the broker has handed out may have been lost and started again: only failures count. Of a run that
    # its client executes by itself, the broker knows no more than how often it was RUNNING.
    failures = t.run.books.failures if t.facts.lease else max(t.run.books.run_count - 1, 0)
    if t.proposed.details.retriable is False or failures >= t.run.retries.limit:
        return t
    delay = t.run.retries.delay(failures, t.facts.random)
    details = StateDetails(
        scheduled_time=t.now + round(delay * MICROS_PER_SECOND),
        task_parameters_id=t.current.details.task_parameters_id,
        traceparent=t.current.details.traceparent,
    )
    state = Proposed(_S.SCHEDULED, StateName.AWAITING_RETRY, t.proposed.message, t.proposed.data, details)
    return Replace(state, "Retrying")


RETRY: Final = Rule("RetryFailedTasks", only(_S.RUNNING), only(_S.FAILED), _retry)


def _name_rerun(t: Transition) -> Verdict:
    """A start that is not the first is named: Retrying after AwaitingRetry, Rerunning otherwise."""
    if t.run.books.run_count == 0:
        return t
    name = StateName.RETRYING if t.current.name == StateName.AWAITING_RETRY else RERUNNING
    return replace(t, proposed=replace(t.proposed, name=name))


RENAME_RERUNS: Final = Rule("RenameReruns", ANY, only(_S.RUNNING), _name_rerun)


def _track_flow(t: Transition) -> Verdict:
    """A start remembers which run of the enclosing flow it belongs to."""
    if t.facts.flow is None:
        return t
    books = replace(t.run.books, flow_run_run_count=t.facts.flow.run_count)
    return replace(t, run=replace(t.run, books=books))


TRACK_FLOW: Final = Rule("UpdateFlowRunTrackerOnTasks", ANY_OR_NONE, only(_S.RUNNING), _track_flow)


def _insert_into_cache(t: Transition) -> Verdict:
    """A COMPLETED state with a cache key can be found under it from now on."""
    details = t.proposed.details
    if not details.cache_key:
        return t
    if len(details.cache_key) > MAX_CACHE_KEY:
        reason = f"Cache key exceeded maximum allowed length of {MAX_CACHE_KEY} characters."
        return Replace(t.proposed, reason)
    return replace(t, effects=(*t.effects, InsertCache(details.cache_key, details.cache_expiration)))


CACHE_INSERTION: Final = Rule("CacheInsertion", ANY_OR_NONE, only(_S.COMPLETED), _insert_into_cache)


def _only_parked(t: Transition) -> Verdict:
    """Only a run that is parked is queued again; its failures count on."""
    if t.current.type is _S.CRASHED and t.current.name == StateName.PARKED:
        return t
    return Abort(f"The run is {t.current.name}: only one that is {StateName.PARKED} is queued again.")


ONLY_PARKED: Final = Rule("OnlyParkedRequeued", ANY, only(_S.SCHEDULED), _only_parked)


# --- What a client says of a run that it executes ------------------------------------------------------------


def _keep_end(t: Transition) -> Verdict:
    """What has ended stays as it is, whatever is still said of it."""
    return Abort(f"Run is already {t.current.type}.")


KEEP_END: Final = Rule("KeepEnd", ENDED, ANY, _keep_end)


def _cancel_as_told(t: Transition) -> Verdict:
    """A failure is what was asked for of a run that was being cancelled: REJECT -> CANCELLED."""
    return Replace(
        Proposed(_S.CANCELLED, message=t.proposed.message, data=t.proposed.data), "The run was being cancelled."
    )


CANCEL_AS_TOLD: Final = Rule("CancelAsTold", only(_S.CANCELLING), only(_S.FAILED, _S.CRASHED), _cancel_as_told)


def end_reported_lease(t: Transition) -> tuple[Effect, ...]:
    """Whoever executes a run says itself that it has ended: then nobody holds it any more, nor any slot."""
    ends = t.proposed.type in FINAL
    return (FreeSlots(), EndLease()) if ends and t.facts.lease is not None else (FreeSlots(),) if ends else ()


# --- What follows from a state ------------------------------------------------------------------------------


def free_slots(t: Transition) -> tuple[Effect, ...]:
    """A run that neither runs nor is being stopped any more gives its concurrency slots back."""
    executing = (_S.RUNNING, _S.CANCELLING)
    left = t.run.state is not None and t.run.state.type in executing
    return (FreeSlots(),) if left and t.proposed.type not in executing else ()


def settle_lease(t: Transition) -> tuple[Effect, ...]:
    """A state that is asked for over HTTP may end the lease of whoever holds the run."""
    if t.facts.lease is None or _waits_with_its_worker(t):
        return ()
    if t.proposed.type is _S.CANCELLING:
        return (AskToStop(),)
    keeps = t.proposed.type in (_S.PENDING, _S.RUNNING)
    return () if keeps else (EndLease(),)


def dispatch(t: Transition) -> tuple[Effect, ...]:
    """A run of its own that is SCHEDULED is handed out by the broker; one that was handed out goes first."""
    if t.proposed.type is not _S.SCHEDULED or _waits_with_its_worker(t):
        return ()
    background = t.run.flow_run_id is None or t.proposed.details.deferred
    leased = t.facts.lease is not None
    retry = leased or t.proposed.name == StateName.AWAITING_RETRY
    return (Dispatch(retry),) if background or leased else ()


def dispatch_again(_: Transition) -> tuple[Effect, ...]:
    """A run that was parked goes first, as it would have gone without that."""
    return (Dispatch(retry_lane=True),)


def _waits_with_its_worker(t: Transition) -> bool:
    """Say whether whoever reports a failure will retry it by itself: all but the workers of Runlane do."""
    if t.proposed.type is not _S.SCHEDULED or t.facts.lease is Lease.RUNLANE:
        return False
    by_itself = t.facts.from_holder and t.proposed.name == StateName.AWAITING_RETRY
    return by_itself or t.intended is not _S.SCHEDULED
