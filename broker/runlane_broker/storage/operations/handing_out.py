"""Handing out flow runs to who polls for them.

That claims nothing by itself: two who ask at once get the same runs, and the first who makes one PENDING has it.
The limits are looked at twice: here, so that nobody is given what cannot start, and when a run becomes PENDING
(`queues.may_start`), so that they hold at any instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from ..queries import Query
from ..queries import queues as q
from ..queue_records import HandedOut, QueueChange
from ..transaction import Transaction
from .base import Operation
from .queues import QueueKey, find_pool, find_queue, poll

_MICROS: Final = 1_000_000
#: Before and after any time.
EARLIEST: Final = -(2**62)
LATEST: Final = 2**62


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for. Times in microseconds UTC; runs that are due later than `before` are left out.

    `claim_seconds`: for so long nobody else is to be given what is returned. `is_poll`: whether who asks serves
    the queue, and does not merely look at it.
    """

    limit: int
    before: int = LATEST
    after: int = EARLIEST
    claim_seconds: float | None = None
    is_poll: bool = True

    def until(self, now: int) -> int | None:
        """Return when the claims end that are made now; None if nothing is claimed."""
        return None if self.claim_seconds is None else now + round(self.claim_seconds * _MICROS)


@dataclass(frozen=True, slots=True)
class HandOut:
    """Runs that were handed out, in order, and the queues whose status has changed because somebody asked.

    `claimed_until` is given where they were claimed.
    """

    runs: tuple[HandedOut, ...]
    changes: tuple[QueueChange, ...] = ()
    claimed_until: int | None = None


class _Line(NamedTuple):
    """A queue, as far as handing out goes."""

    id: str
    name: str
    is_paused: bool
    limit: int | None


@dataclass(frozen=True, slots=True)
class HandOutOfQueue(Operation[HandOut]):
    """Hand out runs of one queue. Its pool's limit and pause count, too. Raises `NotFound`."""

    queue_id: str
    asked: Asked

    def execute(self, tx: Transaction) -> HandOut:
        """Note the poll, then choose."""
        queue = find_queue(tx, QueueKey(self.queue_id))
        pool = tx.row(q.get_pool_limits, {"id": queue["work_pool_id"]})
        assert pool is not None, "a queue has a pool"
        line = _Line(queue["id"], queue["name"], queue["is_paused"], queue["concurrency_limit"])
        changes = poll(tx, (line.id,)) if self.asked.is_poll else ()
        slots = _pool_slots(tx, queue["work_pool_id"], *pool)
        runs = _choose(tx, queue["work_pool_id"], (line,), slots, self.asked, _STOPPING_COUNTS)
        return HandOut(runs, changes, self.asked.until(tx.now))


@dataclass(frozen=True, slots=True)
class HandOutOfPool(Operation[HandOut]):
    """Hand out runs of a pool: by the queues' priorities, then by time. `names` None: of all its queues.

    Raises `NotFound` for the pool, and for a name that none of its queues has.
    """

    pool: str
    names: tuple[str, ...] | None
    asked: Asked

    def execute(self, tx: Transaction) -> HandOut:
        """Note the poll, then choose."""
        pool = find_pool(tx, self.pool)
        if self.names is not None:
            for name in self.names:
                find_queue(tx, QueueKey(pool=self.pool, name=name))
        lines = [_Line._make(row) for row in tx.rows(q.read_pool_queues, {"pool_id": pool["id"]})]
        lines = [line for line in lines if self.names is None or line.name in self.names]
        changes = poll(tx, tuple(line.id for line in lines)) if self.asked.is_poll else ()
        slots = _pool_slots(tx, pool["id"], pool["is_paused"], pool["concurrency_limit"])
        runs = _choose(tx, pool["id"], lines, slots, self.asked, q.count_started)
        return HandOut(runs, changes, self.asked.until(tx.now))


#: A queue that is asked by itself counts what is CANCELLING, too: so do the documents.
_STOPPING_COUNTS: Final[Query] = q.count_started_or_stopping


def _pool_slots(tx: Transaction, pool_id: str, is_paused: bool, limit: int | None) -> int | None:
    """Return how many more runs a pool may have; None: as many as there are."""
    if is_paused:
        return 0
    if limit is None:
        return None
    queues = tx.rows(q.read_pool_queues, {"pool_id": pool_id})
    taken = sum(_count(tx, q.count_started, queue[0]) for queue in queues)
    return max(limit - taken, 0)


def _choose(
    tx: Transaction,
    pool_id: str,
    lines: tuple[_Line, ...] | list[_Line],
    slots: int | None,
    asked: Asked,
    counted: Query,
) -> tuple[HandedOut, ...]:
    """Take what there is of each queue in turn, as long as there is room for it."""
    room = asked.limit if slots is None else min(asked.limit, slots)
    chosen: list[HandedOut] = []
    for line in lines:
        take = room - len(chosen)
        if line.is_paused:
            continue
        if line.limit is not None and take > 0:
            take = min(take, line.limit - _count(tx, counted, line.id))
        if take > 0:
            chosen += _first(tx, pool_id, line.id, asked, take)
    if (until := asked.until(tx.now)) is not None:
        for run in chosen:
            tx.run(q.claim_run, {"id": run.run_id, "until": until})
    return tuple(chosen)


def _first(tx: Transaction, pool_id: str, queue_id: str, asked: Asked, limit: int) -> list[HandedOut]:
    params = {"queue_id": queue_id, "after": asked.after, "before": asked.before, "now": tx.now, "limit": limit}
    return [HandedOut(pool_id, queue_id, run_id) for run_id, _ in tx.rows(q.first_scheduled, params)]


def _count(tx: Transaction, query: Query, queue_id: str) -> int:
    row = tx.row(query, {"queue_id": queue_id, "now": tx.now})
    return 0 if row is None else row[0]
