"""Statements on work pools and work queues: the writer's, and what the edges read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    Insert,
    Integer,
    Select,
    Table,
    Update,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import FINAL, StateType

from ...orchestration.common_rules import LATE
from ...orchestration.states import IN_PROCESS, LEASABLE
from ..queue_records import DEFAULT_POOL, QueueStatus
from ..tables import flow_run, work_pool, work_queue
from .base import ONE, const, one_of, param
from .dispatch import NEVER
from .leases import flow_waits

# What the edges read ------------------------------------------------------------------------------------------


def read_pools() -> Select[Any]:
    """Return work pools, each with the id of its default queue, and whether one of its queues is READY."""
    default = and_(work_queue.c.work_pool_id == work_pool.c.id, work_queue.c.is_default)
    any_ = work_queue.alias("any")
    ready = select(any_.c.id).where(
        any_.c.work_pool_id == work_pool.c.id, any_.c.status == const(QueueStatus.READY)
    )
    columns = (*work_pool.c, work_queue.c.id.label("default_queue_id"), ready.exists().label("is_ready"))
    return select(*columns).outerjoin(work_queue, default)


def read_queues() -> Select[Any]:
    """Return work queues, each with its pool's name."""
    return select(*work_queue.c, work_pool.c.name.label("work_pool_name")).join(work_pool)


def first_named(name: str) -> Select[Any]:
    """Return the queues with a name, that of the default pool first, then by their pools' names."""
    foreign = case((work_pool.c.name == DEFAULT_POOL, 0), else_=1)
    return read_queues().where(work_queue.c.name == name).order_by(foreign, work_pool.c.name).limit(1)


def has_default_pool() -> Select[Any]:
    """Return a row if the default pool is there."""
    return select(work_pool.c.id).where(work_pool.c.name == DEFAULT_POOL)


def count_active(queue_ids: list[str]) -> Executable:
    """Return how many runs of each of these queues have a slot: see `retries_by_itself` for those that wait."""
    t = flow_run.c
    active = one_of(t.state_type, LEASABLE)
    having = [
        select(t.work_queue_id).where(t.work_queue_id.in_(queue_ids), has)
        for has in (active, retries_by_itself(t))
    ]
    both = union_all(*having).subquery()
    return select(both.c.work_queue_id, func.count()).group_by(both.c.work_queue_id)


def read_holders(queue_id: str, limit: int, offset: int) -> Executable:
    """Return the runs of a queue that have a slot, those first that have been in their state for longest."""
    t = flow_run.c
    ways = (one_of(t.state_type, LEASABLE), retries_by_itself(t))
    both = union_all(*(select(*_holder()).where(t.work_queue_id == queue_id, way) for way in ways)).subquery()
    return select(both).order_by(both.c.state_timestamp, both.c.id).limit(limit).offset(offset)


def read_holders_of(run_ids: list[str]) -> Executable:
    """Return the same of these runs."""
    t = flow_run.c
    return select(*_holder()).where(t.id.in_(run_ids)).order_by(t.state_timestamp, t.id)


def _holder() -> tuple[ColumnElement[Any], ...]:
    t = flow_run.c
    return t.id, t.name, t.state_type, t.state_name, t.start_time, t.state_timestamp


def retries_by_itself(t: Any) -> ColumnElement[bool]:
    """Of a flow run that waits for its next try in the process that runs it: it keeps its slot meanwhile.

    Such runs are counted beside those that are under way: an index finds either, and not both at once.
    """
    return and_(t.state_type == const(StateType.SCHEDULED), t.retry_type == literal_column(f"'{IN_PROCESS}'"))


def count_late(queue_id: str) -> Select[Any]:
    """Count a queue's late runs."""
    t = flow_run.c
    late = t.state_name == literal_column(f"'{LATE}'")
    return select(func.count()).where(
        t.work_queue_id == queue_id, t.state_type == const(StateType.SCHEDULED), late
    )


# What the writer does -----------------------------------------------------------------------------------------


def insert_pool() -> Insert:
    """Insert a pool."""
    return _insert(work_pool)


def insert_queue() -> Insert:
    """Insert a queue."""
    return _insert(work_queue)


def _insert(table: Table) -> Insert:
    return insert(table).values({c.name: param(c.name) for c in table.c})


def find_pool() -> Executable:
    """Return a pool's row, by its name."""
    return select(work_pool).where(work_pool.c.name == param("name"))


def get_pool_limits() -> Executable:
    """Return whether a pool is paused, and its limit."""
    p = work_pool.c
    return select(p.is_paused, p.concurrency_limit).where(p.id == param("id"))


def find_queue() -> Executable:
    """Return a queue's row, by the names of the pool and its own."""
    w = work_queue.c
    return select(work_queue).join(work_pool).where(work_pool.c.name == param("pool"), w.name == param("name"))


def find_sibling() -> Executable:
    """Return the id of a pool's queue with a name."""
    w = work_queue.c
    return select(w.id).where(w.work_pool_id == param("pool_id"), w.name == param("name"))


def get_queue() -> Executable:
    """Return a queue's row."""
    return select(work_queue).where(work_queue.c.id == param("id"))


def find_default_queue() -> Executable:
    """Return the row of a pool's default queue."""
    w = work_queue.c
    return select(work_queue).where(w.work_pool_id == param("pool_id"), w.is_default)


def read_priorities() -> Executable:
    """Return id and priority of a pool's queues."""
    w = work_queue.c
    return select(w.id, w.priority).where(w.work_pool_id == param("pool_id"))


def set_priority() -> Update:
    """Give a queue another priority."""
    w = work_queue.c
    return (
        update(work_queue).where(w.id == param("id")).values(priority=param("priority"), updated=param("updated"))
    )


def update_pool() -> Update:
    """Write a pool anew."""
    return _update(work_pool, {"id", "created"})


def update_queue() -> Update:
    """Write a queue anew, but for its priority, which others have to make room for."""
    return _update(work_queue, {"id", "work_pool_id", "is_default", "priority", "created"})


def _update(table: Table, fixed: set[str]) -> Update:
    values = {c.name: param(c.name) for c in table.c if c.name not in fixed}
    return update(table).where(table.c.id == param("id")).values(values)


def delete_pool() -> Delete:
    """Delete a pool with its queues. Runs and deployments stay, without a queue."""
    return delete(work_pool).where(work_pool.c.name == param("name"))


def delete_queue() -> Delete:
    """Delete a queue. Its runs and deployments stay, and keep its name."""
    return delete(work_queue).where(work_queue.c.id == param("id"))


def poll_queue() -> Update:
    """Somebody has asked for a queue's runs: it is READY, unless it is paused."""
    w = work_queue.c
    waking = and_(w.status == const(QueueStatus.NOT_READY), ~w.is_paused)
    status = case((waking, const(QueueStatus.READY)), else_=w.status)
    return update(work_queue).where(w.id == param("id")).values(last_polled=param("now"), status=status)


def forget_polls() -> Update:
    """Nobody has asked for these queues' runs since `before`, or as somebody says ever: NOT_READY.

    Returns ids and names.
    """
    w = work_queue.c
    polled = and_(w.last_polled.is_not(None), w.last_polled >= param("before"))
    silent = and_(w.status == const(QueueStatus.READY), ~polled)
    changed = update(work_queue).where(silent).values(status=const(QueueStatus.NOT_READY), updated=param("now"))
    return changed.returning(w.id, w.name)


def read_start_limits() -> Executable:
    """Return of the queue and the pool of a run: name, limit, how many other runs have a slot, if it is paused."""
    t = flow_run.c
    return _limits(select(t.work_queue_id).where(t.id == param("id")).scalar_subquery())


def read_create_limits() -> Executable:
    """Return the same for a run that is to be created in a queue."""
    return _limits(param("queue_id"))


def _limits(queue_id: ColumnElement[Any]) -> Executable:
    other, sibling = flow_run.alias("other"), work_queue.alias("sibling")
    is_other = other.c.id != param("id")
    of_queue = select(func.count()).where(other.c.work_queue_id == work_queue.c.id, is_other)
    queues = select(sibling.c.id).where(sibling.c.work_pool_id == work_pool.c.id).correlate(work_pool)
    of_pool = select(func.count()).where(other.c.work_queue_id.in_(queues), is_other)
    none = literal_column("0", Integer)
    queue_limit, pool_limit = work_queue.c.concurrency_limit, work_pool.c.concurrency_limit

    def taken(runs: Select[Any], limited: Table) -> ColumnElement[int]:
        held, retried = (
            runs.where(has).correlate(limited).scalar_subquery()
            for has in (one_of(other.c.state_type, LEASABLE), retries_by_itself(other.c))
        )
        return case((limited.c.concurrency_limit.is_not(None), held + retried), else_=none)

    return (
        select(
            work_queue.c.name,
            queue_limit,
            taken(of_queue, work_queue),
            work_queue.c.is_paused,
            work_pool.c.name,
            pool_limit,
            taken(of_pool, work_pool),
            work_pool.c.is_paused,
        )
        .select_from(work_queue)
        .join(work_pool, work_pool.c.id == work_queue.c.work_pool_id)
        .where(work_queue.c.id == queue_id)
    )


# Handing out runs ----------------------------------------------------------------------------------------------


def read_pool_queues() -> Executable:
    """Return a pool's queues, the first in line first: id, name, whether it is paused, limit."""
    w = work_queue.c
    of_pool = w.work_pool_id == param("pool_id")
    return select(w.id, w.name, w.is_paused, w.concurrency_limit).where(of_pool).order_by(w.priority)


def count_started() -> Executable:
    """Count the runs of a queue that are PENDING, RUNNING, claimed, or about to be retried by their process."""
    return _count(StateType.PENDING, StateType.RUNNING)


def count_started_or_stopping() -> Executable:
    """Count the same, and those that are CANCELLING."""
    return _count(StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


def _count(*states: StateType) -> Executable:
    t, retried, claimed = flow_run.c, flow_run.alias("retried").c, flow_run.alias("claimed").c
    is_claimed = and_(claimed.state_type == const(StateType.SCHEDULED), claimed.claimed_until > param("now"))
    held, waiting, promised = (
        select(func.count()).where(run.work_queue_id == param("queue_id"), has).scalar_subquery()
        for run, has in (
            (t, one_of(t.state_type, states)),
            (retried, retries_by_itself(retried)),
            (claimed, is_claimed),
        )
    )
    return select(held + waiting + promised)


def first_scheduled() -> Executable:
    """Return id and due time of a queue's first runs that wait, by the time at which they are due."""
    t = flow_run.c
    return _scheduled(t.id, t.due).limit(param("limit"))


def all_scheduled() -> Executable:
    """Return id, due time, tags and deployment of all of them, in the same order."""
    t = flow_run.c
    return _scheduled(t.id, t.due, t.tags, t.deployment_id)


def _scheduled(*columns: ColumnElement[Any]) -> Select[Any]:
    t = flow_run.c
    return (
        select(*columns)
        .where(
            t.work_queue_id == param("queue_id"),
            t.state_type == const(StateType.SCHEDULED),
            t.due >= param("after"),
            t.due <= param("before"),
            flow_waits(),
        )
        .order_by(t.due, t.id)
    )


def next_due() -> Executable:
    """Return when the next of a queue's runs comes due, or its claim ends; `NEVER` if none does."""
    t, claimed = flow_run.c, flow_run.alias("claimed").c
    first = select(func.min(t.due)).where(
        t.work_queue_id == param("queue_id"), t.state_type == const(StateType.SCHEDULED), t.due > param("now")
    )
    free = select(func.min(claimed.claimed_until)).where(
        claimed.work_queue_id == param("queue_id"),
        claimed.state_type == const(StateType.SCHEDULED),
        claimed.claimed_until.is_not(None),
        claimed.claimed_until > param("now"),
    )
    never = literal_column(str(NEVER), BigInteger)
    times = [func.coalesce(times.scalar_subquery(), never).label("due") for times in (first, free)]
    both = union_all(*(select(time) for time in times)).subquery()
    return select(func.min(both.c.due))


def claim_run() -> Update:
    """Keep a run that waits from being handed out again before `until`."""
    return update(flow_run).where(flow_run.c.id == param("id")).values(claimed_until=param("until"))


def read_scheduled(after: tuple[int, str], before: int, limit: int) -> Executable:
    """Return what a filter looks at of runs that wait and have a deployment, by the time they are due."""
    t = flow_run.c
    waits = t.state_type == const(StateType.SCHEDULED)
    behind = tuple_(t.due, t.id) > tuple_(*(literal(value) for value in after))
    columns = select(t.id, t.due, t.tags, t.deployment_id)
    return (
        columns.where(waits, t.deployment_id.is_not(None), t.due <= before, behind)
        .order_by(t.due, t.id)
        .limit(limit)
    )


def read_started() -> Executable:
    """Return id, time of the state, tags and deployment of all runs that have a slot, in any order."""
    t = flow_run.c
    ways = (one_of(t.state_type, (StateType.PENDING, StateType.RUNNING)), retries_by_itself(t))
    columns = select(t.id, t.state_timestamp, t.tags, t.deployment_id).where(t.deployment_id.is_not(None))
    return union_all(*(columns.where(way) for way in ways))


def read_filtered() -> Executable:
    """Return the same of one run."""
    t = flow_run.c
    return select(t.id, t.state_timestamp, t.tags, t.deployment_id).where(t.id == param("id"))


def read_limited_filters() -> Executable:
    """Return name, filter and limit of the queues that have both."""
    w = work_queue.c
    limited = and_(w.filter.is_not(None), w.concurrency_limit.is_not(None))
    return select(w.name, w.filter, w.concurrency_limit).where(limited)


def has_live_run() -> Executable:
    """Return a row if a queue has a run that has not ended."""
    t = flow_run.c
    live = one_of(t.state_type, set(StateType) - FINAL)
    return select(ONE).where(t.work_queue_id == param("id"), live).limit(1)
