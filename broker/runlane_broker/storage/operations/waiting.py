"""Runs that wait for others to end: `withheld` until then."""

from __future__ import annotations

from dataclasses import dataclass

from ..queries import waiting as qw
from ..records import WAITS_FOR_RUNS, QueuedRecord
from ..transaction import Transaction
from .base import Operation


@dataclass(frozen=True, slots=True)
class ReleaseWaiting(Operation[tuple[QueuedRecord, ...]]):
    """A run has ended, or is gone: what waited for nothing else can be handed out. Returns that."""

    upstream_id: str

    def execute(self, tx: Transaction) -> tuple[QueuedRecord, ...]:
        """Delete who waits, and release each that waits no longer."""
        return release(tx, self.upstream_id)


@dataclass(frozen=True, slots=True)
class RecoverWaiting(Operation[tuple[str, ...]]):
    """Release what waits for runs that ended while no broker looked. Returns what others still wait for."""

    def execute(self, tx: Transaction) -> tuple[str, ...]:
        """Look at every run that is waited for."""
        for (upstream_id,) in tx.rows(qw.read_over, {}):
            release(tx, upstream_id)
        return tuple(upstream_id for (upstream_id,) in tx.rows(qw.read_upstream, {}))


def release(tx: Transaction, upstream_id: str) -> tuple[QueuedRecord, ...]:
    """Let nothing wait for a run any more; return what can be handed out by that."""
    tx.flush()
    waited = tx.rows(qw.delete_waits_for, {"upstream_id": upstream_id})
    found = (tx.row(qw.release_run, {"id": run_id, "waits": WAITS_FOR_RUNS}) for (run_id,) in waited)
    return tuple(QueuedRecord(*row) for row in found if row is not None)


def wait_for(tx: Transaction, run_id: str, upstream_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Withhold a new run until these have ended; return those that have not, of those that are there."""
    awaited = tuple(
        upstream_id
        for upstream_id in upstream_ids
        if upstream_id != run_id and tx.row(qw.read_unfinished, {"id": upstream_id}) is not None
    )
    for upstream_id in awaited:
        tx.run(qw.insert_wait, {"upstream_id": upstream_id, "task_run_id": run_id})
    if awaited:
        tx.run(qw.withhold_run, {"id": run_id, "waits": WAITS_FOR_RUNS})
    return awaited
