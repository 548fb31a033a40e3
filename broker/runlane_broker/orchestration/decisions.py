"""Propose, decide: what becomes of a state that somebody asks for.

A decision is a value; whoever asked carries it out. The rules see a run as a few numbers (`RunView`), the time
and a random number are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from runlane.protocol.states import StateName, StateType, default_name

from .states import may_follow

#: Microseconds, UTC.
Micros: TypeAlias = int


@dataclass(frozen=True, slots=True)
class Retries:
    """How a run is retried. `delays` are seconds: the n-th failure waits `delays[n]`, the last one for ever on.

    A delay is stretched by a random factor between 1 and 1 + `jitter`.
    """

    limit: int
    delays: tuple[float, ...]
    jitter: float

    def delay(self, failures: int, random: float) -> float:
        """Return the seconds to wait after `failures` earlier failures; `random` is in [0, 1)."""
        if not self.delays:
            return 0.0
        base = self.delays[min(failures, len(self.delays) - 1)]
        return base * (1 + self.jitter * random)


@dataclass(frozen=True, slots=True)
class RunView:
    """What the rules need to know of a run."""

    state_type: StateType
    failures: int
    losses: int
    retries: Retries


@dataclass(frozen=True, slots=True)
class Proposed:
    """A state that somebody asks for. An empty name means the type's own."""

    type: StateType
    name: str = ""
    message: str | None = None

    @property
    def label(self) -> str:
        """The state's name."""
        return self.name or default_name(self.type)


@dataclass(frozen=True, slots=True)
class Accept:
    """The proposed state is written."""

    state: Proposed


@dataclass(frozen=True, slots=True)
class Reject:
    """Another state is written in place of the proposed one; `due` is when it may run, if it may."""

    state: Proposed
    reason: str
    due: Micros | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """Nothing is written."""

    reason: str


Decision: TypeAlias = Accept | Reject | Abort


def decide_report(
    run: RunView,
    proposed: Proposed,
    now: Micros,
    random: float,
    *,
    retriable: bool | None = None,
    retry_after: float | None = None,
) -> Decision:
    """Decide on the end that a worker reports for a run it holds.

    A failure with retries left becomes AwaitingRetry. Out of CANCELLING, COMPLETED stands (the truth wins) and
    any failure is what was asked for: CANCELLED.
    """
    if not may_follow(run.state_type, proposed.type):
        return Abort(f"This run is already {run.state_type}.")
    if proposed.type is not StateType.FAILED:
        return Accept(proposed)
    if run.state_type is StateType.CANCELLING:
        return Reject(Proposed(StateType.CANCELLED, message=proposed.message), "The run was being cancelled.")
    if retriable is False or run.failures >= run.retries.limit:
        return Accept(proposed)
    delay = run.retries.delay(run.failures, random) if retry_after is None else retry_after
    state = Proposed(StateType.SCHEDULED, StateName.AWAITING_RETRY, proposed.message)
    return Reject(state, "Retrying", due=now + round(delay * 1_000_000))


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
