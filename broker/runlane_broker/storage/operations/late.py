"""Marking runs late, a few at a time.

Runs are chosen in the transaction that marks them, and each statement says again what it must find: one that has
started meanwhile is not touched. A step begins where the one before it ended, so that runs that are not to be
marked (their queue or key has more patience) are passed by once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from runlane.protocol.states import StateType

from ...orchestration.common_rules import LATE
from ..queries import Query
from ..queries import late as q
from ..queue_records import POLLED_RECENTLY
from ..transaction import Row, Transaction
from .base import Chore
from .pushing import start_limits

#: Runs that are looked at in one step. A run takes 21 to 29 µs of CPU: so who comes waits for 1.5 ms at most.
STEP: Final = 50
#: And in one transaction, while nobody comes: 8 to 12 ms.
LONGEST: Final = 400

#: Where a transaction ends: the due time and the id of its last run. The first one begins after this.
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
    """What a transaction has done; `next` is where the one after it begins, None where there is none."""

    marked: int
    next: Place | None


@dataclass(frozen=True, slots=True)
class _MarkLate(Chore[Marked]):
    """Mark runs that should have started `patience` microseconds ago, from a place on."""

    patience: int
    after: Place = field(default=BEGINNING, kw_only=True)

    def execute(self, tx: Transaction) -> Marked:
        """Choose and mark, step by step."""
        marked = 0
        place = self.after
        mark = self._marker(tx)
        for _ in range(LONGEST // STEP):
            rows = self._page(tx, place)
            marked += sum(mark(*row) for row in rows)
            tx.flush()
            if len(rows) < STEP:
                return Marked(marked, None)
            place = (rows[-1][1], rows[-1][0])
            if tx.is_wanted():
                break
        return Marked(marked, place)

    @abstractmethod
    def _page(self, tx: Transaction, place: Place) -> list[Row]:
        """Return the next runs that may be late."""

    @abstractmethod
    def _marker(self, tx: Transaction) -> Callable[..., int]:
        """Return what marks one of them, and says how many that were."""


@dataclass(frozen=True, slots=True)
class MarkTaskRunsLate(_MarkLate):
    """Mark task runs that should have started `patience` microseconds ago, or as long as their key is given.

    `reasons` says by task key what keeps its runs waiting, as the dispatcher knows it.
    """

    patience_of: Mapping[str, int] = field(default_factory=dict[str, int])
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])

    def _page(self, tx: Transaction, place: Place) -> list[Row]:
        shortest = min(self.patience, *self.patience_of.values(), self.patience)
        return tx.rows(q.overdue_task_runs, _params(tx, shortest, place))

    def _marker(self, tx: Transaction) -> Callable[..., int]:
        def mark(run_id: str, due: int, attempt: int, details: str | None, task_key: str) -> int:
            if due > tx.now - self.patience_of.get(task_key, self.patience):
                return 0
            return _mark(tx, _TASK_RUNS, run_id, due, attempt, details, self.reasons.get(task_key, NO_WORKER))

        return mark


@dataclass(frozen=True, slots=True)
class MarkFlowRunsLate(_MarkLate):
    """Mark flow runs that should have started `patience` microseconds ago, or as long as their queue says.

    `reasons` says by work queue (`pool/queue`) what keeps its runs waiting, where they are pushed to somebody.
    """

    shortest: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])

    def _page(self, tx: Transaction, place: Place) -> list[Row]:
        return tx.rows(q.overdue_flow_runs, _params(tx, self.shortest, place))

    def _marker(self, tx: Transaction) -> Callable[..., int]:
        reasons: dict[str | None, str] = {None: NO_QUEUE}

        def mark(
            run_id: str, due: int, attempt: int, details: str | None, queue_id: str | None, patience: int | None
        ) -> int:
            if due > tx.now - (self.patience if patience is None else patience):
                return 0
            if queue_id is not None and queue_id not in reasons:
                reasons[queue_id] = _reason(tx, run_id, queue_id, self.reasons)
            return _mark(tx, _FLOW_RUNS, run_id, due, attempt, details, reasons[queue_id])

        return mark


def _params(tx: Transaction, patience: int, after: Place) -> dict[str, Any]:
    return {"before": tx.now - patience, "after_due": after[0], "after_id": after[1], "limit": STEP}


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


def _reason(tx: Transaction, run_id: str, queue_id: str, reasons: Mapping[str, str]) -> str:
    """Say what keeps a run of a queue from starting: what it would be refused for, or who does not start it."""
    limits = start_limits(tx, run_id)
    row = tx.row(q.read_last_polled, {"id": queue_id})
    if limits is None or row is None:
        return NO_QUEUE
    if limits.queue_paused:
        return QUEUE_PAUSED
    if limits.pool_paused:
        return POOL_PAUSED
    if limits.queue_full:
        return QUEUE_FULL
    if limits.pool_full:
        return POOL_FULL
    if (pushed := reasons.get(f"{limits.pool}/{limits.queue}")) is not None:
        return pushed
    (last_polled,) = row
    if last_polled is None or tx.now - last_polled > POLLED_RECENTLY:
        return NOT_POLLED
    return NOT_TAKEN
