"""Deleting runs that ended long ago, children first, a few at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..queries import retention as q
from ..transaction import Transaction
from .base import Operation

#: Runs that are deleted in one transaction. A run takes 50 to 65 µs of CPU, in any number: 25 of them hold the
#: writer for 1.4 ms, 50 for 2.6, 200 for 10, and no statement takes 1 ms.
BATCH: Final = 25


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many rows went. `left`: runs that could not go yet, or not with all that is theirs."""

    task_runs: int = 0
    flow_runs: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class _DeleteOld(Operation[Deleted]):
    """Runs that may be old enough; whether they still are is looked at again. Times in microseconds UTC."""

    ids: tuple[str, ...]
    successes_before: int
    failures_before: int

    @property
    def weight(self) -> int:
        """How many runs."""
        return len(self.ids)

    def _times(self, run_id: str) -> dict[str, object]:
        return {
            "id": run_id,
            "successes_before": self.successes_before,
            "failures_before": self.failures_before,
        }


@dataclass(frozen=True, slots=True)
class DeleteOldTaskRuns(_DeleteOld):
    """Delete task runs with their history, payload, cached results and slots."""

    def execute(self, tx: Transaction) -> Deleted:
        """Delete those that have ended long enough ago."""
        tx.flush()
        old = [run_id for run_id in self.ids if tx.row(q.read_old_task_run, self._times(run_id)) is not None]
        for run_id in old:
            _delete_task_run(tx, run_id)
        return Deleted(task_runs=len(old))


@dataclass(frozen=True, slots=True)
class DeleteOldFlowRuns(_DeleteOld):
    """Delete flow runs with their task runs, history and payload. One whose task run still lives is left alone."""

    def execute(self, tx: Transaction) -> Deleted:
        """Delete those that have ended long enough ago, as far as a batch goes."""
        tx.flush()
        room, flow_runs, left = BATCH, 0, 0
        for run_id in self.ids:
            if tx.row(q.read_old_flow_run, self._times(run_id)) is None:
                continue
            if tx.row(q.read_live_child, {"id": run_id, "limit": 1}) is not None:
                left += 1
                continue
            children = tx.rows(q.read_children, {"id": run_id, "limit": room}) if room else []
            for (child,) in children:
                _delete_task_run(tx, child)
            room -= len(children)
            if room == 0:
                left += 1
                continue
            params = {"id": run_id}
            tx.run(q.delete_flow_run_states, params)
            tx.run(q.delete_flow_run_payload, params)
            tx.run(q.delete_flow_run, params)
            flow_runs += 1
        return Deleted(BATCH - room, flow_runs, left)


def _delete_task_run(tx: Transaction, run_id: str) -> None:
    params = {"id": run_id}
    tx.run(q.delete_task_run_states, params)
    tx.run(q.delete_task_run_payload, params)
    tx.run(q.delete_task_run, params)
