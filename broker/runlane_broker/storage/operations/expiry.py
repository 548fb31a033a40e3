"""Ending runs that wait and have expired, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..queries import expiry as q
from ..records import FinalRun
from ..transaction import Transaction
from .base import Operation
from .leasing import expire

#: Runs that are ended in one transaction: whoever comes waits for so many at most.
BATCH: Final = 25


@dataclass(frozen=True, slots=True)
class ExpireRuns(Operation[tuple[FinalRun, ...]]):
    """End the runs that expired first, and return them. As many as a batch has: there may be more."""

    @property
    def weight(self) -> int:
        """As many rows as there may be."""
        return BATCH

    def execute(self, tx: Transaction) -> tuple[FinalRun, ...]:
        """Choose and end: each statement says again what it must find."""
        ids = tx.rows(q.expired_runs, {"now": tx.now, "limit": BATCH})
        ended = (expire(tx, run_id) for (run_id,) in ids)
        return tuple(run for run in ended if run is not None)
