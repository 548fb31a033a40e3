"""Cancelling runs, and queuing parked ones again: many in one transaction, each with its own outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from runlane.protocol.states import FINAL, StateName, StateType

from ...orchestration.decide import decide
from ...orchestration.decisions import Proposed
from ...orchestration.details import NO_DETAILS, StateDetails
from ...orchestration.facts import Facts
from ...orchestration.policies import REQUEUE_PARKED
from ..queries import cancelling as q
from ..queries import taking as qk
from ..records import Change, FinalRun, Status, TransitionOutcome
from ..run_records import StateRecord
from ..states import state_details
from ..tables import TASK_RUN, RunKind
from ..transaction import Transaction, add_state
from .base import Operation
from .transitions import RunRow, SetState, read_row, settle

#: Runs of one transaction, where there are many: what else waits to be written has its turn after a few
#: milliseconds.
BATCH: Final = 100

CANCEL: Final = Proposed(StateType.CANCELLING, message="The run was cancelled.")
REQUEUE: Final = Proposed(StateType.SCHEDULED, StateName.REQUEUED, "The run was parked, and is queued again.")


@dataclass(frozen=True, slots=True)
class CancelRuns(Operation["tuple[TransitionOutcome | None, ...]"]):
    """Cancel runs of one kind; the outcome of each, in order, None where there is no such run.

    What nobody holds is CANCELLED and can never start; what somebody does is CANCELLING until he says that it has
    ended. A run that has ended, or is being cancelled already, stays as it is (ABORT).
    """

    run_ids: tuple[str, ...]
    kind: RunKind = TASK_RUN

    @property
    def weight(self) -> int:
        """How many runs."""
        return len(self.run_ids)

    def execute(self, tx: Transaction) -> tuple[TransitionOutcome | None, ...]:
        """Cancel each, wherever it is."""
        return tuple(self._cancel_queued(tx, run_id) or _cancel(tx, self.kind, run_id) for run_id in self.run_ids)

    def _cancel_queued(self, tx: Transaction, run_id: str) -> TransitionOutcome | None:
        return _cancel_queued(tx, run_id) if self.kind is TASK_RUN else None


def _cancel_queued(tx: Transaction, run_id: str) -> TransitionOutcome | None:
    """Cancel a run that only waits, which most do where there are many: one statement, nothing read before."""
    timestamp = tx.tick()
    state_id = tx.new_id(timestamp)
    row = tx.row(q.cancel_queued, {"id": run_id, "state_id": state_id, "timestamp": timestamp})
    if row is None:
        return None
    task_key, attempt = row
    type_, name, message = StateType.CANCELLED, StateName.CANCELLED.value, CANCEL.message
    add_state(tx, run_id, type_, name, timestamp=timestamp, state_id=state_id, attempt=attempt, message=message)
    return TransitionOutcome(
        Status.REJECT,
        StateRecord(state_id, run_id, type_, name, message, timestamp, None, attempt, NO_DETAILS, None),
        wrote=True,
        change=Change(run_id, task_key, unqueued=True, final=FinalRun(run_id, task_key, type_, name, message)),
    )


def _cancel(tx: Transaction, kind: RunKind, run_id: str) -> TransitionOutcome | None:
    row = read_row(tx, kind, run_id)
    if row is None:
        return None
    state = row.state()
    if state.type in FINAL or state.type is StateType.CANCELLING:
        return TransitionOutcome(Status.ABORT, state, wrote=False, reason=f"The run is {state.name} already.")
    return SetState(kind, run_id, CANCEL).execute(tx)


@dataclass(frozen=True, slots=True)
class RequeueRuns(Operation["tuple[TransitionOutcome | None, ...]"]):
    """Queue parked runs of one kind again; the outcome of each, in order, None where there is no such run.

    They are due as before. What they have lost is forgotten, what has failed is not. A run that is not parked
    stays as it is (ABORT).
    """

    run_ids: tuple[str, ...]
    kind: RunKind = TASK_RUN

    @property
    def weight(self) -> int:
        """How many runs."""
        return len(self.run_ids)

    def execute(self, tx: Transaction) -> tuple[TransitionOutcome | None, ...]:
        """Queue each again."""
        return tuple(_requeue(tx, self.kind, run_id) for run_id in self.run_ids)


def _requeue(tx: Transaction, kind: RunKind, run_id: str) -> TransitionOutcome | None:
    """Decide on what stands in the database, until that is what the decision is written over."""
    while (row := read_row(tx, kind, run_id)) is not None:
        asked = replace(REQUEUE, details=_as_it_waited(tx, kind, row))
        decision = decide(row.run(kind), asked, Facts(), REQUEUE_PARKED, tx.now, tx.tick())
        outcome = settle(tx, kind, row, decision, REQUEUE_PARKED)
        if outcome is not None:
            if outcome.wrote:
                tx.run(q.forget_losses if kind is TASK_RUN else q.forget_losses_of_flow_run, {"id": run_id})
            return outcome
    return None


def _as_it_waited(tx: Transaction, kind: RunKind, row: RunRow) -> StateDetails:
    """Return what the run's last SCHEDULED state said: it is due as before, and its worker may go by the rest."""
    found = tx.row(qk.read_scheduled_details, {"id": row.id, "limit": 1}) if kind is TASK_RUN else None
    details = NO_DETAILS if found is None else state_details(found[0], row.due)
    return replace(details, scheduled_time=row.due, transition_id=None)
