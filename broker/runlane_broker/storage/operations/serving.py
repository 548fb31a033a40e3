"""Serving work queues: what a session has asked for, and how queues and pools stand after a change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from runlane.protocol.errors import ErrorCode

from ...errors import Refused
from ..queries import queues as q
from ..queue_records import Served, ServedPool, ServedQueue, queue_key
from ..tables import work_queue
from ..transaction import Transaction
from .base import Operation
from .queues import poll

T = TypeVar("T")

_COLUMNS = tuple(column.name for column in work_queue.c)


@dataclass(frozen=True, slots=True)
class ChangeQueues(Operation["tuple[T, tuple[ServedPool, ...]]"], Generic[T]):
    """Do something to pools or queues; the outcome, and how these pools stand then."""

    operation: Operation[T]
    pool_ids: tuple[str, ...]

    def execute(self, tx: Transaction) -> tuple[T, tuple[ServedPool, ...]]:
        """Do it, then look."""
        outcome = self.operation.execute(tx)
        return outcome, ReadPools(self.pool_ids).execute(tx)


@dataclass(frozen=True, slots=True)
class ReadPools(Operation["tuple[ServedPool, ...]"]):
    """Look how pools stand, in step with what is being written."""

    pool_ids: tuple[str, ...]

    def execute(self, tx: Transaction) -> tuple[ServedPool, ...]:
        """Read each."""
        return tuple(_read_pool(tx, pool_id) for pool_id in self.pool_ids)


def serve(tx: Transaction, names: tuple[str, ...]) -> Served:
    """Return the queues of these names (`pool/queue`), and note that somebody asks for their runs.

    Raises `Refused` for one that is not there: it is a typing error. Nothing is made here.
    """
    return _serve(tx, [_find(tx, name, f"queues[{i}]") for i, name in enumerate(names)])


def serve_again(tx: Transaction, names: tuple[str, ...]) -> Served:
    """Return the same for a session that comes back: a queue that is gone since must not cost it what it holds."""
    queues: list[dict[str, Any]] = []
    gone: list[str] = []
    for name in names:
        try:
            queues.append(_find(tx, name, "queues"))
        except Refused:
            gone.append(name)
    return replace(_serve(tx, queues), gone=tuple(gone))


def _serve(tx: Transaction, queues: list[dict[str, Any]]) -> Served:
    keys = tuple(queue_key(queue["work_pool_id"], queue["id"]) for queue in queues)
    pool_ids = dict.fromkeys(queue["work_pool_id"] for queue in queues)
    changes = poll(tx, tuple(queue["id"] for queue in queues))
    return Served(keys, ReadPools(tuple(pool_ids)).execute(tx), changes)


def _find(tx: Transaction, name: str, field: str) -> dict[str, Any]:
    pool, _, queue = name.partition("/")
    row = tx.row(q.find_queue, {"pool": pool, "name": queue})
    if row is None:
        what = "work pool" if tx.row(q.find_pool, {"name": pool}) is None else "work queue"
        raise Refused(ErrorCode.NOT_FOUND, f"there is no {what} {pool if what == 'work pool' else name!r}", field)
    found = dict(zip(_COLUMNS, row, strict=True))
    if found["filter"] is not None:
        reason = f"the work queue {name!r} finds its runs by a filter, and can only be polled"
        raise Refused(ErrorCode.INVALID_FIELD, reason, field)
    return found


def _read_pool(tx: Transaction, pool_id: str) -> ServedPool:
    row = tx.row(q.get_pool_limits, {"id": pool_id})
    if row is None:
        return ServedPool(pool_id, is_paused=True, limit=None, queues=())
    queues = tx.rows(q.read_pool_queues, {"pool_id": pool_id})
    return ServedPool(
        pool_id,
        bool(row[0]),
        row[1],
        tuple(
            ServedQueue(queue_key(pool_id, queue_id), place, bool(is_paused), limit)
            for place, (queue_id, _, is_paused, limit) in enumerate(queues)
        ),
    )
