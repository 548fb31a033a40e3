"""The states of a run: types, the names that Runlane itself gives, and which of them are final.

The types are those of the Prefect server API; a state's *name* may be any string and says more than its type
(`AwaitingRetry` is a `SCHEDULED`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class StateType(StrEnum):
    """What kind of state a run is in. Each member's comment says what moves a run *out* of it."""

    SCHEDULED = "SCHEDULED"  # a lease (-> PENDING), a cancel
    PENDING = "PENDING"  # the holder starts it (-> RUNNING), releases it or dies (-> SCHEDULED)
    RUNNING = "RUNNING"  # the holder finishes it, releases it or dies
    PAUSED = "PAUSED"  # a resume over HTTP
    CANCELLING = "CANCELLING"  # the holder's answer, or the end of its lease
    COMPLETED = "COMPLETED"  # nothing
    FAILED = "FAILED"  # nothing
    CRASHED = "CRASHED"  # an operator's requeue
    CANCELLED = "CANCELLED"  # nothing


#: A run in one of these has ended; its watchers have been told.
FINAL: Final[frozenset[StateType]] = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
)


class StateName(StrEnum):
    """Names that the broker gives to states whose type alone says too little."""

    SCHEDULED = "Scheduled"
    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CRASHED = "Crashed"
    CANCELLED = "Cancelled"
    CANCELLING = "Cancelling"
    AWAITING_RETRY = "AwaitingRetry"  # SCHEDULED: the task failed and has retries left
    REQUEUED = "Requeued"  # SCHEDULED: given back, or its worker was lost
    RETRYING = "Retrying"  # RUNNING after AwaitingRetry
    PARKED = "Parked"  # CRASHED: lost too often, waits for an operator
    EXPIRED = "Expired"  # CANCELLED: its start-by time had passed
    TIMED_OUT = "TimedOut"  # FAILED: its execution took longer than its timeout
    RESULT_TOO_LARGE = "ResultTooLarge"  # FAILED: the result could not be sent


def default_name(type_: StateType) -> str:
    """Return the name that a state of this type has when nobody gives it another: `RUNNING` -> `Running`."""
    return type_.value.capitalize()
