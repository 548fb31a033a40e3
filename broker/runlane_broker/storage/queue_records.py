"""Work pools and work queues as they go into the store and come out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

#: Where a queue is whose pool nobody names, of which type that pool is, and which queue of a pool it is if nobody
#: names one.
DEFAULT_POOL: Final = "default-agent-pool"
DEFAULT_POOL_TYPE: Final = "prefect-agent"
DEFAULT_QUEUE: Final = "default"
DEFAULT_QUEUE_DESCRIPTION: Final = "The work pool's default queue."

#: How the keys begin under which work queues are dispatched. For its space no task key looks like that.
QUEUE_KEY: Final = "queue "

#: For how long after a poll a queue counts as served, in microseconds.
POLLED_RECENTLY: Final = 60_000_000


def queue_key(pool_id: str, queue_id: str) -> str:
    """Return the key under which a work queue's runs are dispatched, beside task keys."""
    return f"{QUEUE_KEY}{pool_id} {queue_id}"


def is_queue_key(key: str) -> bool:
    """Say whether a key is a work queue's."""
    return key.startswith(QUEUE_KEY)


def split_queue_key(key: str) -> tuple[str, str]:
    """Return the ids of pool and queue of a work queue's key; both are empty of a run that is in none."""
    pool_id, _, queue_id = key.removeprefix(QUEUE_KEY).partition(" ")
    return pool_id, queue_id


class QueueStatus(StrEnum):
    """Whether somebody serves a queue, or one of a pool's."""

    READY = "READY"
    NOT_READY = "NOT_READY"
    PAUSED = "PAUSED"


class QueueFilter(msgspec.Struct, frozen=True, kw_only=True):
    """How the old queues choose runs: those that have all the tags, of these deployments (None: of any)."""

    tags: tuple[str, ...] | None = None
    deployment_ids: tuple[str, ...] | None = None

    def takes(self, tags: str, deployment_id: str | None) -> bool:
        """Say whether it is for a run with these tags (JSON). Runs without a deployment are none of a filter's."""
        if deployment_id is None:
            return False
        if self.deployment_ids is not None and deployment_id not in self.deployment_ids:
            return False
        return set(self.tags or ()) <= set(_tags(tags))


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A work pool. Times in microseconds UTC; `base_job_template` is a JSON object.

    `is_ready`: one of its queues is READY.
    """

    id: str
    name: str
    type: str
    description: str | None
    base_job_template: bytes
    is_paused: bool
    concurrency_limit: int | None
    default_queue_id: str | None
    is_ready: bool
    created: int
    updated: int

    @property
    def status(self) -> QueueStatus:
        """Whether somebody serves one of its queues; PAUSED comes first."""
        if self.is_paused:
            return QueueStatus.PAUSED
        return QueueStatus.READY if self.is_ready else QueueStatus.NOT_READY


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A work queue. Times and `late_after` in microseconds; `priority` 1 goes first."""

    id: str
    pool_id: str
    pool_name: str
    name: str
    description: str
    is_default: bool
    is_paused: bool
    concurrency_limit: int | None
    priority: int
    filter: QueueFilter | None
    last_polled: int | None
    status: QueueStatus
    late_after: int | None
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """How a queue is: when somebody asked for its runs last, and how many of them are late."""

    late_runs: int
    last_polled: int | None


@dataclass(frozen=True, slots=True)
class HolderRecord:
    """A flow run that has a slot: the columns of `queries.queues.read_holders`, in order."""

    id: str
    name: str
    state_type: str
    state_name: str
    start_time: int | None
    state_timestamp: int


@dataclass(frozen=True, slots=True)
class QueueChange:
    """What a change has done to a queue's status; the two are the same if nothing."""

    queue_id: str
    name: str
    before: QueueStatus
    after: QueueStatus


@dataclass(frozen=True, slots=True)
class ServedQueue:
    """A work queue as dispatch needs it: its key, and its place among those of its pool, 0 first."""

    key: str
    place: int
    is_paused: bool
    limit: int | None


@dataclass(frozen=True, slots=True)
class ServedPool:
    """A work pool as dispatch needs it, with all its queues."""

    id: str
    is_paused: bool
    limit: int | None
    queues: tuple[ServedQueue, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """The work queues that a session serves: their keys, their pools, and whose status has changed by that.

    `gone` are names under which there is none any more, where that was let pass.
    """

    keys: tuple[str, ...] = ()
    pools: tuple[ServedPool, ...] = ()
    changes: tuple[QueueChange, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A run that was handed out, and whose it is."""

    pool_id: str
    queue_id: str
    run_id: str


def status_after(status: QueueStatus, is_paused: bool, last_polled: int | None, now: int) -> QueueStatus:
    """Return a queue's status after it was paused or resumed; the same twice changes nothing more."""
    if is_paused:
        return QueueStatus.PAUSED
    if status is not QueueStatus.PAUSED:
        return status
    polled = last_polled is not None and now - last_polled <= POLLED_RECENTLY
    return QueueStatus.READY if polled else QueueStatus.NOT_READY


_decode_filter = msgspec.json.Decoder(QueueFilter).decode
_tags = msgspec.json.Decoder(tuple[str, ...]).decode
_encode = msgspec.json.Encoder().encode


def filter_text(filter_: QueueFilter | None) -> str | None:
    """Return a filter as it is stored."""
    return None if filter_ is None else _encode(filter_).decode()


def read_filter(text: str) -> QueueFilter:
    """Return a filter that was stored."""
    return _decode_filter(text)


def count_taken(filter_: QueueFilter, started: Iterable[Any]) -> int:
    """Return how many of these rows of `queries.queues.read_started` are a filter's."""
    return sum(filter_.takes(row[2], row[3]) for row in started)


class FullFilter(NamedTuple):
    """A queue with a filter that has no slot left."""

    name: str
    filter: QueueFilter
    limit: int


def full_filters(limited: Iterable[Any], started: Callable[[], Sequence[Any]]) -> tuple[FullFilter, ...]:
    """Return which of these rows of `queries.queues.read_limited_filters` are full.

    `started` reads the rows of `queries.queues.read_started`; it is not called where there is nothing to count.
    """
    filters = [FullFilter(name, read_filter(text), limit) for name, text, limit in limited]
    rows = started() if filters else ()
    return tuple(one for one in filters if count_taken(one.filter, rows) >= one.limit)


def first_not_held(rows: Iterable[Any], full: Sequence[FullFilter], limit: int) -> tuple[list[Any], bool]:
    """Return the first `limit` rows whose runs no full filter takes, and whether any was passed over on the way.

    `rows` end with the tags (JSON) and the deployment of a run, and are read no further than need be.
    """
    found: list[Any] = []
    held: dict[tuple[str, str | None], bool] = {}
    for row in rows:
        tags, deployment_id = kind = (row[-2], row[-1])
        if kind not in held:  # the runs of one deployment are mostly alike
            held[kind] = any(one.filter.takes(tags, deployment_id) for one in full)
        if held[kind]:
            continue
        found.append(row)
        if len(found) == limit:
            break
    return found, any(held.values())


def pool_record(row: Any) -> PoolRecord:
    """Return a row of `queries.queues.read_pools` as a record."""
    return PoolRecord(
        id=row.id,
        name=row.name,
        type=row.type,
        description=row.description,
        base_job_template=row.base_job_template,
        is_paused=bool(row.is_paused),
        concurrency_limit=row.concurrency_limit,
        default_queue_id=row.default_queue_id,
        is_ready=bool(row.is_ready),
        created=row.created,
        updated=row.updated,
    )


def queue_record(row: Any) -> QueueRecord:
    """Return a row of `queries.queues.read_queues` as a record."""
    return QueueRecord(
        id=row.id,
        pool_id=row.work_pool_id,
        pool_name=row.work_pool_name,
        name=row.name,
        description=row.description,
        is_default=bool(row.is_default),
        is_paused=bool(row.is_paused),
        concurrency_limit=row.concurrency_limit,
        priority=row.priority,
        filter=None if row.filter is None else read_filter(row.filter),
        last_polled=row.last_polled,
        status=QueueStatus(row.status),
        late_after=row.late_after,
        created=row.created,
        updated=row.updated,
    )
