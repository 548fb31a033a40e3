"""The ends of a lease: what becomes of a run when its holder reports its end, gives it back, or is lost.

This is the hot path: the table in `states` and two functions. The states that somebody asks for over HTTP go
through `decide` and its policies.
"""

from __future__ import annotations

from dataclasses import dataclass

from runlane.protocol.states import StateName, StateType

from ..clock import MICROS_PER_SECOND, Micros
from .decisions import Proposed
from .runs import Retries
from .states import may_follow


@dataclass(frozen=True, slots=True)
class RunView:
    """What has to be known of a run."""

    state_type: StateType
    failures: int
    losses: int
    retries: Retries


@dataclass(frozen=True, slots=True)
class End:
    """The state that ends a lease. `due` is when the run may start again, if it may."""

    state: Proposed
    due: Micros | None = None


def decide_report(
    run: RunView,
    proposed: Proposed,
    now: Micros,
    random: float,
    *,
    retriable: bool | None = None,
    retry_after: float | None = None,
) -> End | None:
    """Decide on the end that a worker reports for a run it holds; None: the run is not there to be ended.

    A failure with retries left becomes AwaitingRetry. Out of CANCELLING, COMPLETED stands (the truth wins) and
    any failure is what was asked for: CANCELLED.
    """
    if not may_follow(run.state_type, proposed.type):
        return None
    if proposed.type is not StateType.FAILED:
        return End(proposed)
    if run.state_type is StateType.CANCELLING:
        return End(Proposed(StateType.CANCELLED, message=proposed.message))
    if retriable is False or run.failures >= run.retries.limit:
        return End(proposed)
    delay = run.retries.delay(run.failures, random) if retry_after is None else retry_after
    state = Proposed(StateType.SCHEDULED, StateName.AWAITING_RETRY, proposed.message)
    return End(state, due=now + round(delay * MICROS_PER_SECOND))


def decide_end_of_lease(run: RunView, reason: str, *, lost: bool, max_losses: int) -> Proposed:
    """Say what becomes of a run whose session died (`lost`) or gave it back.

    It is queued again; a run that lost its session too often is parked for an operator, and one that was being
    cancelled is cancelled.
    """
    if run.state_type is StateType.CANCELLING:
        return Proposed(StateType.CANCELLED, message=reason)
    if lost and run.losses + 1 >= max_losses:
        return Proposed(StateType.CRASHED, StateName.PARKED, f"{reason} ({run.losses + 1} times)")
    return Proposed(StateType.SCHEDULED, StateName.REQUEUED, reason)
