"""Rules that hold for task runs and flow runs alike."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from runlane.protocol.states import StateName, StateType

from ..clock import MICROS_PER_SECOND, Micros
from .decisions import Abort, Proposed, Reject, Wait
from .facts import Lease
from .rules import ANY_OR_NONE, Rule, Transition, Verdict, only
from .runs import Run, RunKind

_S = StateType

#: The name of a SCHEDULED state that was not left in time.
LATE: Final = "Late"


def _prevent_pending(t: Transition) -> Verdict:
    """A run that is under way does not become PENDING a second time: two workers would execute it."""
    sent = t.facts.lease is Lease.PREFECT_SENT
    renamed = t.proposed.label not in (t.current.name, StateName.PENDING)
    if t.current.type is _S.PENDING and (sent or renamed):
        details = replace(
            t.proposed.details,
            scheduled_time=t.current.details.scheduled_time,
            deployment_concurrency_lease_id=t.current.details.deployment_concurrency_lease_id,
        )
        return replace(t, proposed=replace(t.proposed, details=details))
    return Abort(f"This run is in a {t.current.type} state and cannot transition to a PENDING state.")


#: A lease makes a run PENDING. Its Prefect worker says the same again before it begins; the first time it may.
PREVENT_PENDING: Final = Rule(
    "PreventPendingTransitions",
    only(_S.PENDING, _S.RUNNING, _S.CANCELLING, _S.CANCELLED),
    only(_S.PENDING),
    _prevent_pending,
)


def _copy_scheduled_time(t: Transition) -> Verdict:
    """A PENDING state remembers when it was scheduled."""
    if t.proposed.details.scheduled_time is not None:
        return t
    details = replace(t.proposed.details, scheduled_time=t.current.details.scheduled_time)
    return replace(t, proposed=replace(t.proposed, details=details))


COPY_SCHEDULED_TIME: Final = Rule("CopyScheduledTime", only(_S.SCHEDULED), only(_S.PENDING), _copy_scheduled_time)


def _wait_for_scheduled_time(t: Transition) -> Verdict:
    """Nothing starts before it is due: WAIT."""
    seconds = whole_seconds((t.current.details.scheduled_time or t.now) - t.now)
    return Wait("Scheduled time is in the future", seconds) if seconds > 0 else t


WAIT_FOR_SCHEDULED_TIME: Final = Rule(
    "WaitForScheduledTime", only(_S.SCHEDULED, _S.PENDING), only(_S.RUNNING), _wait_for_scheduled_time
)


def whole_seconds(micros: Micros) -> int:
    """Return a duration rounded to seconds; half a second is cut off."""
    seconds, rest = divmod(micros, MICROS_PER_SECOND)
    return seconds + (2 * rest > MICROS_PER_SECOND)


def _only_scheduled_late(t: Transition) -> Verdict:
    """Only a run that is still SCHEDULED can be late, and only once."""
    if t.proposed.label != LATE or t.run.state is None:
        return t
    flow = t.run.kind is RunKind.FLOW
    if t.current.type is not _S.SCHEDULED:
        return Reject(f"Only scheduled {'flows' if flow else 'task runs'} can be marked late.")
    if t.current.name == LATE:
        return Reject(f"This {'flow' if flow else 'task'} run is already marked late.")
    return t


ONLY_SCHEDULED_LATE: Final = Rule(
    "EnsureOnlyScheduledMarkedLate", ANY_OR_NONE, only(_S.SCHEDULED), _only_scheduled_late
)


def propose_late(run: Run) -> Proposed:
    """Return the state that says that a run has not started in time; it stays due when it was."""
    assert run.state is not None, "a run that is only being created is not late"
    due = run.books.next_scheduled_start_time
    details = replace(run.state.details, scheduled_time=due, transition_id=None)
    return Proposed(_S.SCHEDULED, LATE, details=details)
