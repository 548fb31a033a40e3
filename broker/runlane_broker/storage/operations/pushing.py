"""What it takes to push a flow run: room wherever it takes a slot, and what its worker has to know of it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .. import queries as q
from ..queries import queues as qq
from ..queue_records import FullFilter, full_filters, read_filter
from ..records import LeasedRun, PushedFlow, Refusal
from ..transaction import Row, Transaction

_tags = msgspec.json.Decoder(tuple[str, ...]).decode


class StartLimits(NamedTuple):
    """What keeps a run from starting: the columns of `read_start_limits`, in order."""

    queue: str
    queue_limit: int | None
    queue_taken: int
    queue_paused: bool
    pool: str
    pool_limit: int | None
    pool_taken: int
    pool_paused: bool

    @property
    def queue_full(self) -> bool:
        """Whether the queue has no slot left."""
        return self.queue_limit is not None and self.queue_taken >= self.queue_limit

    @property
    def pool_full(self) -> bool:
        """Whether the pool has no slot left."""
        return self.pool_limit is not None and self.pool_taken >= self.pool_limit


def start_limits(tx: Transaction, run_id: str) -> StartLimits | None:
    """Return what may keep a run from starting; None if it waits in no queue."""
    row = tx.row(qq.read_start_limits, {"id": run_id})
    return None if row is None else StartLimits._make(row)


def create_limits(tx: Transaction, run_id: str, queue_id: str) -> StartLimits | None:
    """Return the same of a run that is to be created in a queue."""
    row = tx.row(qq.read_create_limits, {"id": run_id, "queue_id": queue_id})
    return None if row is None else StartLimits._make(row)


def refuse_push(tx: Transaction, run_id: str) -> Refusal | None:
    """Say why a run of a work queue cannot be leased, as far as that is up to queues and its pool."""
    limits = start_limits(tx, run_id)
    if limits is None:  # its queue was deleted
        return Refusal.TAKEN
    if limits.queue_paused or limits.queue_full:
        return Refusal.QUEUE_CLOSED
    if limits.pool_paused or limits.pool_full:
        return Refusal.POOL_CLOSED
    return None if full_filter(tx, run_id) is None else Refusal.HELD_BACK


def full_filter(tx: Transaction, run_id: str) -> FullFilter | None:
    """Return a queue that finds the run by its filter and has no slot left for it, if there is one."""
    limited = tx.rows(qq.read_limited_filters, {})
    run = tx.row(qq.read_filtered, {"id": run_id}) if limited else None
    return None if run is None else _first_full(tx, limited, run_id, *run[2:])


def full_filter_of(tx: Transaction, run_id: str, tags: str, deployment_id: str | None) -> FullFilter | None:
    """Return the same of a run that is to be created with these tags (JSON), of this deployment."""
    return _first_full(tx, tx.rows(qq.read_limited_filters, {}), run_id, tags, deployment_id)


def _first_full(
    tx: Transaction, limited: list[Row], run_id: str, tags: str, deployment_id: str | None
) -> FullFilter | None:
    taking = [row for row in limited if read_filter(row[1]).takes(tags, deployment_id)]
    full = full_filters(taking, lambda: [row for row in tx.rows(qq.read_started, {}) if row[0] != run_id])
    return next(iter(full), None)


def read_pushed(tx: Transaction, run_id: str, attempt: int) -> LeasedRun:
    """Return a flow run that was just leased."""
    row = tx.row(q.read_leased_flow_run, {"id": run_id})
    assert row is not None, "it has a flow and a payload, and it was in a queue a statement ago"
    key, name, flow_id, flow_name, deployment_id, pool, queue, tags, parameters = row
    flow = PushedFlow(flow_id, flow_name, name, deployment_id, f"{pool}/{queue}", _tags(tags))
    return LeasedRun(run_id, attempt, key, parameters, None, None, {}, flow=flow)
