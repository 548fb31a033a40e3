"""What the auditor asks the writer: what stands there of a few runs and sessions, at one point between commits."""

from __future__ import annotations

from dataclasses import dataclass

from runlane.protocol.states import StateType

from ..facts import Facts, RunFacts
from ..queries import audit as q
from ..records import SessionRecord
from ..transaction import Transaction
from .base import Operation


@dataclass(frozen=True, slots=True)
class LookAt(Operation[Facts]):
    """Return what stands there of these sessions and runs, as of everything that was submitted before."""

    session_ids: tuple[str, ...]
    run_ids: tuple[str, ...]

    @property
    def weight(self) -> int:
        """How many rows."""
        return len(self.session_ids) + len(self.run_ids)

    def execute(self, tx: Transaction) -> Facts:
        """Read, each by its primary key."""
        facts = Facts()
        for session_id in self.session_ids:
            row = tx.row(q.audit_session, {"id": session_id})
            if row is not None:
                facts.sessions[session_id] = SessionRecord(*row)
        for run_id in self.run_ids:
            row = tx.row(q.audit_task_run, {"id": run_id}) or tx.row(q.audit_flow_run, {"id": run_id})
            if row is not None:
                id_, state, session_id, attempt, due, *of_task = row
                key, withheld = of_task or (None, None)
                facts.runs[id_] = RunFacts(
                    id_, StateType(state), session_id, attempt, due, key, withheld is not None
                )
        return facts


@dataclass(frozen=True, slots=True)
class FreeIdleSlots(Operation[tuple[str, ...]]):
    """Give the slots of runs back that neither run nor are being stopped; return those that had one."""

    run_ids: tuple[str, ...]

    def execute(self, tx: Transaction) -> tuple[str, ...]:
        """Delete them."""
        tx.flush()
        return tuple(run_id for run_id in self.run_ids if tx.run(q.free_idle_slots, {"id": run_id}))
