"""Marking runs late, a few at a time.

Runs are chosen in the transaction that marks them, and each statement says again what it must find: one that has
started meanwhile is not touched. A step begins where the one before it ended, so that runs that are not to be
marked (their queue or key has more patience) are passed by once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Final, Self, TypeAlias

import msgspec

from ..queries import Query
from ..queries import late as q
from ..queries import queues as qq
from ..queue_records import POLLED_RECENTLY, FullFilter, full_filters
from ..transaction import Transaction
from .base import Chore
from .pushing import start_limits

#: Runs that are looked at in one step. A run takes 9 to 11 µs of CPU: so who comes waits for 0.3 ms.
STEP: Final = 25
#: Microseconds for which the steps of a pass rely on what the first of them has found out about queues.
KNOWN_FOR: Final = 1_000_000

#: Where a step ends: the due time and the id of its last run. The first one begins after this.
Place: TypeAlias = tuple[int, str]
BEGINNING: Final[Place] = (-(2**62), "")

NO_WORKER: Final = "no worker serves this task"
NO_QUEUE: Final = "it has no work queue"
QUEUE_PAUSED: Final = "the work queue is paused"
POOL_PAUSED: Final = "the work pool is paused"
QUEUE_FULL: Final = "the concurrency limit of the work queue is reached"
POOL_FULL: Final = "the concurrency limit of the work pool is reached"
#: Of a queue that finds the run by its filter.
FILTER_FULL: Final = "the concurrency limit of the work queue {!r}, which finds it by its filter, is reached"
NOT_POLLED: Final = "nobody polls the work queue"
NOT_TAKEN: Final = "those who poll the work queue have not started it"

#: For these a run is refused before anybody looks at filters.
_CLOSED: Final = frozenset((QUEUE_PAUSED, POOL_PAUSED, QUEUE_FULL, POOL_FULL))

_decode_task_runs = msgspec.json.Decoder(list[tuple[str, int, str]]).decode
_decode_flow_runs = msgspec.json.Decoder(list[tuple[str, int, str | None, int | None, str, str | None]]).decode
_encode = msgspec.json.Encoder().encode
_place = itemgetter(1, 0)


@dataclass(frozen=True, slots=True)
class Marked:
    """How many runs have been marked so far; `next` is where the next step begins, None at the end."""

    marked: int
    next: Place | None


@dataclass(frozen=True, slots=True)
class _MarkLate(Chore[Marked]):
    """Mark runs that should have started `patience` microseconds ago, from a place on."""

    patience: int
    after: Place = field(default=BEGINNING, kw_only=True)
    marked: int = field(default=0, kw_only=True)

    def then(self, outcome: Marked) -> Self | None:
        """Go on behind the last run that was looked at."""
        return None if outcome.next is None else replace(self, after=outcome.next, marked=outcome.marked)

    def execute(self, tx: Transaction) -> Marked:
        """Choose and mark."""
        tx.flush()
        why = self._judge(tx)
        runs = self._page(tx, self.after)
        late: dict[str, list[str]] = {}
        for run in runs:
            if (reason := why(*run)) is not None:
                late.setdefault(reason, []).append(run[0])
        marked = sum(self._mark(tx, ids, reason) for reason, ids in late.items())
        return Marked(self.marked + marked, max(map(_place, runs)) if len(runs) == STEP else None)

    @abstractmethod
    def _page(self, tx: Transaction, place: Place) -> list[Any]:
        """Return the next runs that may be late: for each its id, when it was due, and what else tells."""

    @abstractmethod
    def _judge(self, tx: Transaction) -> Callable[..., str | None]:
        """Return what says of one of them why it has not started; None if it is not late."""

    @abstractmethod
    def _mark(self, tx: Transaction, ids: Sequence[str], reason: str) -> int:
        """Mark them, and return how many still waited."""


@dataclass(frozen=True, slots=True)
class MarkTaskRunsLate(_MarkLate):
    """Mark task runs that should have started `patience` microseconds ago, or as long as their key is given.

    `reasons` says by task key what keeps its runs waiting, as the dispatcher knows it.
    """

    patience_of: Mapping[str, int] = field(default_factory=dict[str, int])
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])

    def _page(self, tx: Transaction, place: Place) -> list[Any]:
        shortest = min(self.patience, *self.patience_of.values(), self.patience)
        return _decode_task_runs(_read(tx, q.overdue_task_runs, shortest, place))

    def _judge(self, tx: Transaction) -> Callable[..., str | None]:
        def why(_run_id: str, due: int, task_key: str) -> str | None:
            if due > tx.now - self.patience_of.get(task_key, self.patience):
                return None
            return self.reasons.get(task_key, NO_WORKER)

        return why

    def _mark(self, tx: Transaction, ids: Sequence[str], reason: str) -> int:
        return _write(tx, q.insert_task_run_states, q.mark_task_runs, ids, reason)


@dataclass(slots=True)
class _Known:
    """What keeps flow runs waiting, as the steps of a pass find it: to count slots can take longer than a step."""

    since: int = -KNOWN_FOR
    reasons: dict[str | None, str] = field(default_factory=dict[str | None, str])
    full: tuple[FullFilter, ...] = ()

    def renew(self, tx: Transaction) -> None:
        """Look again, unless it was only just looked at."""
        if not 0 <= tx.now - self.since < KNOWN_FOR:
            self.since, self.reasons, self.full = tx.now, {None: NO_QUEUE}, _full_filters(tx)


@dataclass(frozen=True, slots=True)
class MarkFlowRunsLate(_MarkLate):
    """Mark flow runs that should have started `patience` microseconds ago, or as long as their queue says.

    `reasons` says by the id of a work queue what keeps its runs waiting, where they are pushed to somebody.
    """

    shortest: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    known: _Known = field(default_factory=_Known, kw_only=True)

    def _page(self, tx: Transaction, place: Place) -> list[Any]:
        return _decode_flow_runs(_read(tx, q.overdue_flow_runs, self.shortest, place))

    def _judge(self, tx: Transaction) -> Callable[..., str | None]:
        self.known.renew(tx)
        reasons, full = self.known.reasons, self.known.full

        def why(
            run_id: str, due: int, queue_id: str | None, patience: int | None, tags: str, deployment_id: str | None
        ) -> str | None:
            if due > tx.now - (self.patience if patience is None else patience):
                return None
            if queue_id is not None and queue_id not in reasons:
                reasons[queue_id] = _reason(tx, run_id, queue_id, self.reasons)
            if full and reasons[queue_id] not in _CLOSED:
                for one in full:
                    if one.filter.takes(tags, deployment_id):
                        return FILTER_FULL.format(one.name)
            return reasons[queue_id]

        return why

    def _mark(self, tx: Transaction, ids: Sequence[str], reason: str) -> int:
        return _write(tx, q.insert_flow_run_states, q.mark_flow_runs, ids, reason)


def _read(tx: Transaction, query: Query, patience: int, after: Place) -> str:
    params = {"before": tx.now - patience, "after_due": after[0], "after_id": after[1], "limit": STEP}
    ((text,),) = tx.rows(query, params)
    return text or "[]"


def _write(tx: Transaction, insert_states: Query, mark: Query, ids: Sequence[str], reason: str) -> int:
    """Append to the histories of those that still wait, and mark them: each statement looks for itself."""
    timestamp = tx.tick(len(ids))
    prefix, number = _numbered(tx.new_id(timestamp))
    states = {
        "runs": _encode(ids).decode(),
        "prefix": prefix,
        "number": number,
        "message": f"The run has not started in time: {reason}.",
        "timestamp": timestamp,
    }
    tx.run(insert_states, states)
    last = number + len(ids) - 1
    return tx.run(mark, {"first": f"{prefix}{number:012x}", "last": f"{prefix}{last:012x}"})


def _numbered(first: str) -> tuple[str, int]:
    """Return an id's prefix and, of the random digits behind it, a number from which to count on."""
    return first[:24], int(first[24:], 16) >> 1


def _full_filters(tx: Transaction) -> tuple[FullFilter, ...]:
    """Return the queues that hold back what they find by their filters."""
    return full_filters(tx.rows(qq.read_limited_filters, {}), lambda: tx.rows(qq.read_started, {}))


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
    if (pushed := reasons.get(queue_id)) is not None:
        return pushed
    (last_polled,) = row
    if last_polled is None or tx.now - last_polled > POLLED_RECENTLY:
        return NOT_POLLED
    return NOT_TAKEN
