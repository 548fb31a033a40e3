"""Marking runs late, a batch at a time.

The runs of a batch are chosen in the transaction that marks them, and each statement says again what it must find:
one that has started meanwhile is not touched. A batch begins where the one before it ended, so that runs that are
not to be marked (their queue or key has more patience) are passed by once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from runlane.protocol.states import StateType

from ...orchestration.common_rules import LATE
from ..queries import Query
from ..queries import late as q
from ..queries import queues as queues_q
from ..queue_records import POLLED_RECENTLY
from ..transaction import Transaction
from .base import Operation

#: Runs that are looked at in one transaction. A run takes 21 to 29 µs of CPU, in any number but for 10 (39 µs): so
#: 50 of them hold the writer for 1.2 ms, 100 for 1.9, and 400 for 11, while many are marked no sooner.
BATCH: Final = 50
#: And as long as nobody else has anything to write, for fewer commits and pauses: 5 ms.
LARGEST_BATCH: Final = 200

#: Where a batch ends: the due time and the id of its last run. The first one begins after this.
Place: TypeAlias = tuple[int, str]
BEGINNING: Final[Place] = (-(2**62), "")

NO_WORKER: Final = "no worker serves this task"
NO_QUEUE: Final = "it has no work queue"
QUEUE_PAUSED: Final = "the work queue is paused"
POOL_PAUSED: Final = "the work pool is paused"
QUEUE_FULL: Final = "the concurrency limit of the work queue is reached"
POOL_FULL: Final = "the concurrency limit of the work pool is reached"
NOT_POLLED: Final = "nobody polls the work queue"
NOT_TAKEN: Final = "those who poll the work queue have not started it"

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Marked:
    """What a batch has done; `next` is where the one after it begins, None where there is none."""

    marked: int
    next: Place | None


@dataclass(frozen=True, slots=True)
class MarkTaskRunsLate(Operation[Marked]):
    """Mark task runs that should have started `patience` microseconds ago, or as long as their key is given.

    `reasons` says by task key what keeps its runs waiting, as the dispatcher knows it.
    """

    patience: int
    patience_of: Mapping[str, int] = field(default_factory=dict[str, int])
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    after: Place = BEGINNING
    limit: int = BATCH

    @property
    def weight(self) -> int:
        """As many rows as there may be."""
        return self.limit

    def execute(self, tx: Transaction) -> Marked:
        """Choose and mark."""
        shortest = min(self.patience, *self.patience_of.values(), self.patience)
        rows = tx.rows(q.overdue_task_runs, _page(tx, shortest, self.after, self.limit))
        marked = 0
        for run_id, due, attempt, details, task_key in rows:
            if due <= tx.now - self.patience_of.get(task_key, self.patience):
                reason = self.reasons.get(task_key, NO_WORKER)
                marked += _mark(tx, _TASK_RUNS, run_id, due, attempt, details, reason)
        return Marked(marked, _next(rows, self.limit))


@dataclass(frozen=True, slots=True)
class MarkFlowRunsLate(Operation[Marked]):
    """Mark flow runs that should have started `patience` microseconds ago, or as long as their queue says.

    `reasons` says by work queue (`pool/queue`) what keeps its runs waiting, where they are pushed to somebody.
    """

    patience: int
    shortest: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    after: Place = BEGINNING
    limit: int = BATCH

    @property
    def weight(self) -> int:
        """As many rows as there may be."""
        return self.limit

    def execute(self, tx: Transaction) -> Marked:
        """Choose and mark."""
        reasons: dict[str | None, str] = {None: NO_QUEUE}
        rows = tx.rows(q.overdue_flow_runs, _page(tx, self.shortest, self.after, self.limit))
        marked = 0
        for run_id, due, attempt, details, queue_id, patience in rows:
            if due > tx.now - (self.patience if patience is None else patience):
                continue
            if queue_id not in reasons:
                reasons[queue_id] = _reason(tx, queue_id, self.reasons)
            marked += _mark(tx, _FLOW_RUNS, run_id, due, attempt, details, reasons[queue_id])
        return Marked(marked, _next(rows, self.limit))


def _page(tx: Transaction, patience: int, after: Place, limit: int) -> dict[str, Any]:
    return {"before": tx.now - patience, "after_due": after[0], "after_id": after[1], "limit": limit}


def _next(rows: list[Any], limit: int) -> Place | None:
    return (rows[-1][1], rows[-1][0]) if len(rows) == limit else None


_TASK_RUNS: Final[tuple[Query, Query]] = (q.mark_task_run, q.insert_task_run_state)
_FLOW_RUNS: Final[tuple[Query, Query]] = (q.mark_flow_run, q.insert_flow_run_state)


def _mark(
    tx: Transaction,
    kind: tuple[Query, Query],
    run_id: str,
    due: int,
    attempt: int,
    details: str | None,
    reason: str,
) -> int:
    """Mark one run and append to its history; 0 if it does not wait any more."""
    mark, insert_state = kind
    timestamp = tx.tick()
    state_id = tx.new_id(timestamp)
    if tx.run(mark, {"id": run_id, "state_id": state_id, "timestamp": timestamp}) == 0:
        return 0
    tx.later(
        insert_state,
        {
            "id": state_id,
            "run_id": run_id,
            "type": StateType.SCHEDULED.value,
            "name": LATE,
            "message": f"The run has not started in time: {reason}.",
            "timestamp": timestamp,
            "due": due,
            "attempt": attempt,
            "session_id": None,
            "details": _without_transition(details),
            "data": None,
        },
    )
    return 1


def _without_transition(details: str | None) -> str | None:
    """Keep what the run's state knows, but for the client's own word for how it came to that state."""
    if details is None or "transition_id" not in details:
        return details
    known = _decode(details)
    known.pop("transition_id", None)
    return _encode(known).decode()


def _reason(tx: Transaction, queue_id: str, reasons: Mapping[str, str]) -> str:
    """Say what keeps a queue's runs from starting."""
    row = tx.row(q.read_queue_situation, {"id": queue_id})
    if row is None:
        return NO_QUEUE
    is_paused, pool_is_paused, limit, pool_limit, last_polled, pool_id, name = row
    if is_paused:
        return QUEUE_PAUSED
    if pool_is_paused:
        return POOL_PAUSED
    if limit is not None and _started(tx, queue_id) >= limit:
        return QUEUE_FULL
    if pool_limit is not None:
        queues = tx.rows(queues_q.read_pool_queues, {"pool_id": pool_id})
        if sum(_started(tx, queue[0]) for queue in queues) >= pool_limit:
            return POOL_FULL
    if name in reasons:
        return reasons[name]
    if last_polled is None or tx.now - last_polled > POLLED_RECENTLY:
        return NOT_POLLED
    return NOT_TAKEN


def _started(tx: Transaction, queue_id: str) -> int:
    row = tx.row(queues_q.count_started, {"queue_id": queue_id, "now": tx.now})
    return 0 if row is None else row[0]
