"""Work pools and work queues: made, changed, polled, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ...errors import Conflict, Invalid, NotFound
from ...orchestration.ranking import free_priority, rank, steps
from ..queries import queues as q
from ..queue_records import (
    DEFAULT_POOL,
    DEFAULT_POOL_TYPE,
    DEFAULT_QUEUE,
    DEFAULT_QUEUE_DESCRIPTION,
    POLLED_RECENTLY,
    FullFilter,
    QueueChange,
    QueueStatus,
    status_after,
)
from ..tables import work_pool, work_queue
from ..transaction import Params, Transaction
from .base import Operation
from .pushing import StartLimits, create_limits, full_filter, full_filter_of, start_limits

_POOL_COLUMNS: Final = tuple(column.name for column in work_pool.c)
_QUEUE_COLUMNS: Final = tuple(column.name for column in work_queue.c)
#: A queue has the runs that were put into it, or those that a filter finds, not both.
NO_FILTER: Final = "A queue of a work pool has runs of its own, and no filter for others"


@dataclass(frozen=True, slots=True)
class QueueKey:
    """Which queue: by its id, or by its name and that of its pool."""

    id: str | None = None
    pool: str = DEFAULT_POOL
    name: str = DEFAULT_QUEUE

    def __str__(self) -> str:
        return self.id or f"{self.pool}/{self.name}"


# Pools --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreatePool(Operation[str]):
    """Make a pool with its default queue, and return its id. Raises `Conflict` for a name that is taken."""

    name: str
    type: str = DEFAULT_POOL_TYPE
    description: str | None = None
    base_job_template: bytes = b"{}"
    is_paused: bool = False
    concurrency_limit: int | None = None

    def execute(self, tx: Transaction) -> str:
        """Insert both."""
        if tx.row(q.find_pool, {"name": self.name}) is not None:
            raise Conflict("A work pool with this name already exists.")
        pool_id = self.insert(tx)
        insert_queue(tx, pool_id, {"name": DEFAULT_QUEUE, "description": DEFAULT_QUEUE_DESCRIPTION})
        return pool_id

    def insert(self, tx: Transaction) -> str:
        """Insert the pool alone, and return its id."""
        values = {name: getattr(self, name) for name in self.__slots__}
        pool_id = tx.new_id(tx.now)
        tx.run(q.insert_pool, {**values, "id": pool_id, "created": tx.now, "updated": tx.now})
        return pool_id


@dataclass(frozen=True, slots=True)
class UpdatePool(Operation[None]):
    """Change columns of a pool. Raises `NotFound`."""

    name: str
    changes: Mapping[str, Any]

    def execute(self, tx: Transaction) -> None:
        """Write it anew."""
        pool = find_pool(tx, self.name)
        tx.run(q.update_pool, {**pool, **self.changes, "updated": tx.now})


@dataclass(frozen=True, slots=True)
class DeletePool(Operation[None]):
    """Delete a pool with its queues. Raises `NotFound`."""

    name: str

    def execute(self, tx: Transaction) -> None:
        """Delete it; its runs and deployments stay, without a queue."""
        tx.flush()
        if tx.run(q.delete_pool, {"name": self.name}) == 0:
            raise NotFound(_no_pool(self.name))


def find_pool(tx: Transaction, name: str) -> dict[str, Any]:
    """Return a pool's columns. Raises `NotFound`."""
    row = tx.row(q.find_pool, {"name": name})
    if row is None:
        raise NotFound(_no_pool(name))
    return dict(zip(_POOL_COLUMNS, row, strict=True))


def _no_pool(name: str) -> str:
    return f'Work pool "{name}" not found.'


# Queues -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateQueue(Operation[str]):
    """Make a queue and return its id. `values` are columns; a `priority` moves others down.

    Without a pool it goes to the default pool, which is made on the way. Raises `NotFound` for a pool that is not
    there, `Conflict` for a name that its pool has.
    """

    pool: str | None
    name: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def execute(self, tx: Transaction) -> str:
        """Insert it."""
        pool_id = ensure_default_pool(tx, self.name) if self.pool is None else find_pool(tx, self.pool)["id"]
        if tx.row(q.find_queue, {"pool": self.pool or DEFAULT_POOL, "name": self.name}) is not None:
            where = "" if self.pool is None else f" in work pool {self.pool!r}"
            raise Conflict(f"A work queue with this name already exists{where}.")
        return insert_queue(tx, pool_id, {**self.values, "name": self.name})


@dataclass(frozen=True, slots=True)
class EnsureQueue(Operation[str]):
    """Return the id of a queue of the default pool; where it is missing it is made, before all others."""

    name: str

    def execute(self, tx: Transaction) -> str:
        """Find it or make it."""
        return _find_or_make(tx, None, self.name)["id"]


@dataclass(frozen=True, slots=True)
class UpdateQueue(Operation[QueueChange]):
    """Change columns of a queue, on whichever route.

    Raises `NotFound`, `Conflict` for a name that is taken, `Invalid` for a filter where one
    cannot be (outside of the default pool, or on a queue that has runs of its own), and for a poll in the future.
    """

    key: QueueKey
    changes: Mapping[str, Any]

    def execute(self, tx: Transaction) -> QueueChange:
        """Write it anew; its pool's other queues make room for its priority."""
        queue = find_queue(tx, self.key)
        changes = dict(self.changes)
        priority = changes.pop("priority", None)
        before = QueueStatus(queue["status"])
        new: dict[str, Any] = {**queue, **changes, "updated": tx.now}
        if "is_paused" in changes:
            new["status"] = status_after(before, changes["is_paused"], new["last_polled"], tx.now).value
        self._check_name(tx, queue, new["name"])
        self._check_filter(tx, queue)
        if (self.changes.get("last_polled") or 0) > tx.now:
            raise Invalid("It is in the future: nobody can have polled then", "last_polled")
        tx.run(q.update_queue, new)
        if priority is not None:
            _place(tx, queue["work_pool_id"], queue["id"], priority)
        return QueueChange(queue["id"], new["name"], before, QueueStatus(new["status"]))

    def _check_name(self, tx: Transaction, queue: Params, name: str) -> None:
        if name == queue["name"]:
            return
        taken = tx.row(q.find_sibling, {"pool_id": queue["work_pool_id"], "name": name})
        if taken is not None:
            raise Conflict("A work queue with this name already exists.")

    def _check_filter(self, tx: Transaction, queue: Params) -> None:
        if self.changes.get("filter") is None:
            return
        default = tx.row(q.find_pool, {"name": DEFAULT_POOL})
        if default is None or default[0] != queue["work_pool_id"]:
            raise Invalid(NO_FILTER, "filter")
        if tx.row(q.has_live_run, {"id": queue["id"]}) is not None:
            raise Invalid("The queue has runs of its own, which no filter would find", "filter")


@dataclass(frozen=True, slots=True)
class DeleteQueue(Operation[None]):
    """Delete a queue; its runs and deployments stay. Raises `NotFound`, and `Conflict` for a default queue."""

    key: QueueKey

    def execute(self, tx: Transaction) -> None:
        """Delete it. The priorities of the others stay: a gap does no harm."""
        tx.flush()
        queue = find_queue(tx, self.key)
        if queue["is_default"]:
            raise Conflict("The default queue of a work pool cannot be deleted.")
        tx.run(q.delete_queue, {"id": queue["id"]})


@dataclass(frozen=True, slots=True)
class RecordPolls(Operation[tuple[QueueChange, ...]]):
    """Somebody has asked for these queues' runs. Returns whose status has changed by that."""

    queue_ids: tuple[str, ...]

    @property
    def urgent(self) -> bool:
        """Nobody waits for it."""
        return False

    def execute(self, tx: Transaction) -> tuple[QueueChange, ...]:
        """Note the time."""
        return poll(tx, self.queue_ids)


@dataclass(frozen=True, slots=True)
class ForgetPolls(Operation[tuple[QueueChange, ...]]):
    """What nobody has polled for a minute is NOT_READY. Returns what has changed."""

    def execute(self, tx: Transaction) -> tuple[QueueChange, ...]:
        """Change them all at once."""
        rows = tx.rows(q.forget_polls, {"before": tx.now - POLLED_RECENTLY, "now": tx.now})
        return tuple(QueueChange(id_, name, QueueStatus.READY, QueueStatus.NOT_READY) for id_, name in rows)


# Parts of other operations ------------------------------------------------------------------------------------


def resolve_queue(tx: Transaction, pool: str | None, queue: str | None) -> tuple[str, str]:
    """Return id and name of a queue for a run or a deployment; one that is not there is made.

    Without a pool it is one of the default pool, made before all its others; without a queue it is the pool's
    default one. Raises `NotFound` for a pool that is not there, `Invalid` for a queue that has a filter.
    """
    found = _find_or_make(tx, pool, queue)
    if found["filter"] is not None:
        reason = f"The work queue {found['name']!r} finds its runs by a filter: none can be put into it"
        raise Invalid(reason, "work_queue_name")
    return found["id"], found["name"]


def _find_or_make(tx: Transaction, pool: str | None, queue: str | None) -> dict[str, Any]:
    """Return a queue's columns, or those of the pool's default queue, which may have another name by now."""
    if queue is None and (default := _default_queue(tx, pool or DEFAULT_POOL)) is not None:
        return default
    name = queue or DEFAULT_QUEUE
    found = tx.row(q.find_queue, {"pool": pool or DEFAULT_POOL, "name": name})
    if found is not None:
        return dict(zip(_QUEUE_COLUMNS, found, strict=True))
    if pool is None:
        queue_id = insert_queue(tx, ensure_default_pool(tx, name), {"name": name, "priority": 1})
    else:
        queue_id = insert_queue(tx, find_pool(tx, pool)["id"], {"name": name})
    return find_queue(tx, QueueKey(queue_id))


def _default_queue(tx: Transaction, pool: str) -> dict[str, Any] | None:
    """Return the columns of a pool's default queue; None without its pool."""
    found = tx.row(q.find_pool, {"name": pool})
    row = None if found is None else tx.row(q.find_default_queue, {"pool_id": found[0]})
    return None if row is None else dict(zip(_QUEUE_COLUMNS, row, strict=True))


def may_start(tx: Transaction, run_id: str) -> str | None:
    """Say why a flow run must not start now, by the limits of queues and of its pool; None: it may."""
    return _no_slot(start_limits(tx, run_id)) or _none_by_filter(full_filter(tx, run_id))


def may_be_created(
    tx: Transaction, run_id: str, queue_id: str | None, tags: str, deployment_id: str | None
) -> str | None:
    """Say why a flow run must not be created in a state that takes a slot; None: it may."""
    limits = None if queue_id is None else create_limits(tx, run_id, queue_id)
    return _no_slot(limits) or _none_by_filter(full_filter_of(tx, run_id, tags, deployment_id))


def _no_slot(limits: StartLimits | None) -> str | None:
    if limits is not None and limits.queue_full:
        return f"Concurrency limit reached: the work queue {limits.queue!r} has {limits.queue_limit} slots."
    if limits is not None and limits.pool_full:
        return f"Concurrency limit reached: the work pool {limits.pool!r} has {limits.pool_limit} slots."
    return None


def _none_by_filter(full: FullFilter | None) -> str | None:
    if full is None:
        return None
    return f"Concurrency limit reached: the work queue {full.name!r}, by its filter, has {full.limit} slots."


def poll(tx: Transaction, queue_ids: tuple[str, ...]) -> tuple[QueueChange, ...]:
    """Note that somebody has asked for these queues' runs; return whose status has changed by that."""
    changes: list[QueueChange] = []
    for queue_id in queue_ids:
        row = tx.row(q.get_queue, {"id": queue_id})
        if row is None:
            continue
        queue = dict(zip(_QUEUE_COLUMNS, row, strict=True))
        tx.run(q.poll_queue, {"id": queue_id, "now": tx.now})
        if queue["status"] == QueueStatus.NOT_READY and not queue["is_paused"]:
            changes.append(QueueChange(queue_id, queue["name"], QueueStatus.NOT_READY, QueueStatus.READY))
    return tuple(changes)


def find_queue(tx: Transaction, key: QueueKey) -> dict[str, Any]:
    """Return a queue's columns. Raises `NotFound`."""
    if key.id is not None:
        row = tx.row(q.get_queue, {"id": key.id})
    else:
        row = tx.row(q.find_queue, {"pool": key.pool, "name": key.name})
    if row is None:
        raise NotFound(f"Work Queue {key} not found" if key.id else f"Work pool queue '{key}' not found.")
    return dict(zip(_QUEUE_COLUMNS, row, strict=True))


def ensure_default_pool(tx: Transaction, asked: str) -> str:
    """Return the id of the default pool, which is made if need be.

    It comes with its default queue, unless that is what was asked for and so on its way.
    """
    row = tx.row(q.find_pool, {"name": DEFAULT_POOL})
    if row is not None:
        return row[0]
    pool = CreatePool(DEFAULT_POOL)
    return pool.insert(tx) if asked == DEFAULT_QUEUE else pool.execute(tx)


def insert_queue(tx: Transaction, pool_id: str, values: Mapping[str, Any]) -> str:
    """Insert a queue and return its id. Without a `priority` it gets the first that is free."""
    queue_id = tx.new_id(tx.now)
    priorities = _priorities(tx, pool_id)
    wanted = values.get("priority") or free_priority(priorities.values())
    changes = rank(priorities, queue_id, wanted)
    own = changes.pop(queue_id)
    _apply(tx, priorities, changes)
    row: dict[str, Any] = {
        "description": "",
        "is_paused": False,
        "concurrency_limit": None,
        "filter": None,
        "late_after": None,
        **values,
        "id": queue_id,
        "work_pool_id": pool_id,
        "is_default": values["name"] == DEFAULT_QUEUE
        and tx.row(q.find_default_queue, {"pool_id": pool_id}) is None,
        "priority": own,
        "last_polled": None,
        "status": QueueStatus.NOT_READY.value,
        "created": tx.now,
        "updated": tx.now,
    }
    tx.run(q.insert_queue, row)
    return queue_id


def _place(tx: Transaction, pool_id: str, queue_id: str, priority: int) -> None:
    priorities = _priorities(tx, pool_id)
    _apply(tx, priorities, rank(priorities, queue_id, priority))


def _priorities(tx: Transaction, pool_id: str) -> dict[str, int]:
    return dict(tx.rows(q.read_priorities, {"pool_id": pool_id}))


def _apply(tx: Transaction, priorities: Mapping[str, int], changes: Mapping[str, int]) -> None:
    for queue_id, priority in steps(priorities, changes):
        tx.run(q.set_priority, {"id": queue_id, "priority": priority, "updated": tx.now})
