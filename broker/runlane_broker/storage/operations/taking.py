"""Runs for workers who read them as they are shown and acknowledge each: Prefect's.

Such a worker cannot list what it holds. When it is back within the time in which only the same process can be, it
holds what it has acknowledged, and all it has said something of.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import queries as q
from ..queries import taking as qk
from ..records import Resumption
from ..transaction import Transaction
from .base import Operation
from .lease_rows import session_leases
from .leasing import Freeing
from .sessions import held_record


@dataclass(frozen=True, slots=True)
class TakeUpSession(Operation["Resumption | None"]):
    """A worker without a resume token is back: its session goes on at the next epoch. None: it has ended.

    `acknowledged`: the runs that it has acknowledged to this broker. What it has neither acknowledged, to whatever
    broker, nor reported is queued again.
    """

    session_id: str
    epoch: int
    broker_id: str
    acknowledged: frozenset[str]

    def execute(self, tx: Transaction) -> Resumption | None:
        """Compare and set the epoch, then look at each lease."""
        params = {"session_id": self.session_id, "old_epoch": self.epoch, "broker_id": self.broker_id}
        if tx.run(q.resume_session, {**params, "timestamp": tx.now}) == 0:
            return None
        tx.flush()
        unreported = dict(tx.rows(qk.read_unreported, {"session_id": self.session_id}))
        silent = {run_id for run_id, acknowledged in unreported.items() if not acknowledged} - self.acknowledged
        freeing = Freeing(lost=False, max_losses=0)
        leases = session_leases(tx, self.session_id)
        for lease in leases:
            if lease.id in silent:
                freeing.free(tx, lease, "The run had not been acknowledged when the connection broke.")
        held = tuple(held_record(lease) for lease in leases if lease.id not in silent)
        return Resumption(
            self.epoch + 1, "", held, (), (), freeing.freed(), silent=frozenset(unreported.keys() - silent)
        )


@dataclass(frozen=True, slots=True)
class AcknowledgeRun(Operation[None]):
    """A worker has received a run. A broker that is started anew finds here what it need not send again."""

    session_id: str
    run_id: str
    attempt: int

    @property
    def urgent(self) -> bool:
        """Nobody waits for it, so it need not have a commit of its own."""
        return False

    def execute(self, tx: Transaction) -> None:
        """Change nothing if the lease has ended meanwhile."""
        lease = {"id": self.run_id, "attempt": self.attempt, "session_id": self.session_id}
        tx.run(qk.acknowledge_run, lease)
