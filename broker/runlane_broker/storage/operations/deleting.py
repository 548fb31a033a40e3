"""Deleting runs, alone or with all that is their flow's."""

from __future__ import annotations

from dataclasses import dataclass

from runlane.protocol.states import FINAL, StateType

from ...orchestration.states import has_slot
from ..queries import flows as qf
from ..queries import transitions as qt
from ..records import Change, FinalRun, Lease
from ..tables import TASK_RUN, RunKind
from ..transaction import Row, Transaction
from .base import Operation
from .lease_rows import LeaseRow, live_flow_leases, read_flow_lease

#: What the watchers of a run that was deleted are told.
DELETED_NAME = "Deleted"
DELETED_MESSAGE = "The run was deleted."


@dataclass(frozen=True, slots=True)
class DeleteRun(Operation["tuple[Change, ...] | None"]):
    """Delete a run with all that is its own; a flow run's task runs go, too. None: there is no such run.

    What is put off is written before: it refers to rows that might go.
    """

    kind: RunKind
    run_id: str

    def execute(self, tx: Transaction) -> tuple[Change, ...] | None:
        """Delete the rows; the outcome says who has to hear of it."""
        tx.flush()
        if self.kind is TASK_RUN:
            rows = tx.rows(qt.delete_task_run, {"id": self.run_id})
            return tuple(map(_gone, rows)) or None
        flow_run = read_flow_lease(tx, self.run_id)
        if flow_run is None:
            return None
        tx.run(qt.OF_FLOW_RUNS.delete, {"id": self.run_id})
        tasks = tx.rows(qt.delete_task_runs_of_flow_run, {"id": self.run_id})
        return _gone_flow_run(flow_run), *map(_gone, tasks)


@dataclass(frozen=True, slots=True)
class DeleteFlow(Operation["tuple[Change, ...] | None"]):
    """Delete a flow with its deployments, its runs and their task runs. None: there is no such flow."""

    flow_id: str

    def execute(self, tx: Transaction) -> tuple[Change, ...] | None:
        """Delete the rows; the outcome says who has to hear of it."""
        tx.flush()
        flow_runs = live_flow_leases(tx, self.flow_id)
        rows = tx.rows(qt.delete_task_runs_of_flow, {"id": self.flow_id})
        if tx.run(qf.delete_flow, {"id": self.flow_id}) == 0:
            return None
        return *map(_gone_flow_run, flow_runs), *map(_gone, rows)


def _gone_flow_run(run: LeaseRow) -> Change:
    final = FinalRun(run.id, run.task_key, StateType.CANCELLED, DELETED_NAME, DELETED_MESSAGE)
    return Change(
        run.id,
        run.task_key,
        unqueued=run.state_type == StateType.SCHEDULED,
        final=None if StateType(run.state_type) in FINAL else final,
        ended=None if run.session_id is None else Lease(run.session_id, run.attempt),
        frees_slot=has_slot(StateType(run.state_type), run.retry_type),
    )


def _gone(row: Row) -> Change:
    run_id, task_key, state_type, withheld, session_id, attempt = row
    ended = StateType(state_type) in FINAL
    final = FinalRun(run_id, task_key, StateType.CANCELLED, DELETED_NAME, DELETED_MESSAGE)
    return Change(
        run_id,
        task_key,
        unqueued=state_type == StateType.SCHEDULED and withheld is None,
        final=None if ended else final,
        ended=None if session_id is None else Lease(session_id, attempt),
    )
