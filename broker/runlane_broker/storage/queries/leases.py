"""The writer's statements on leases, for runs of either kind: taken, started, ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Insert,
    Integer,
    String,
    Update,
    and_,
    case,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import FINAL, StateName, StateType

from ...orchestration.states import IN_PROCESS, LEASABLE
from ..queue_records import QUEUE_KEY
from ..tables import (
    FLOW_RUN,
    TASK_RUN,
    RunKind,
    flow,
    flow_run,
    flow_run_payload,
    task_run,
    work_pool,
    work_queue,
)
from .base import ONE, Query, const, one_of, param


@dataclass(frozen=True, slots=True, eq=False)
class LeaseStatements:
    """The statements on the leases of one kind of run. Each is one object, by which it is compiled once."""

    kind: RunKind
    lease: Query
    start: Query
    read: Query
    read_of_session: Query
    end: Query
    find_report: Query
    insert_state: Query


def _is_held_as_given(kind: RunKind) -> ColumnElement[bool]:
    """The fence: this run, under this very lease."""
    run = kind.run.c
    return and_(run.id == param("id"), run.attempt == param("attempt"), run.session_id == param("session_id"))


def _lease(kind: RunKind) -> Update:
    """Give a queued run to a session: PENDING, attempt + 1."""
    run = kind.run.c
    waits = task_waits() if kind is TASK_RUN else flow_waits()
    return (
        update(kind.run)
        .where(run.id == param("id"), run.state_type == const(StateType.SCHEDULED), run.due <= param("now"), waits)
        .values(
            state_type=const(StateType.PENDING),
            state_name=const(StateName.PENDING),
            state_id=param("state_id"),
            state_timestamp=param("timestamp"),
            session_id=param("session_id"),
            attempt=run.attempt + ONE,
            updated=param("timestamp"),
        )
        .returning(run.attempt, *_leased_columns(kind))
    )


def _leased_columns(kind: RunKind) -> tuple[ColumnElement[Any], ...]:
    t = task_run.c
    return (t.task_key, t.timeout, t.expires, t.headers) if kind is TASK_RUN else ()


def task_waits() -> ColumnElement[bool]:
    """A task run waits for nothing else, and has not expired."""
    t = task_run.c
    return and_(t.withheld.is_(None), t.expires.is_(None) | (t.expires > param("now")))


def flow_waits() -> ColumnElement[bool]:
    """A flow run is not retried by who executes it, and nobody has claimed it."""
    t = flow_run.c
    return and_(
        t.retry_type.is_(None) | (t.retry_type != literal_column(f"'{IN_PROCESS}'")),
        t.claimed_until.is_(None) | (t.claimed_until <= param("now")),
    )


def _start(kind: RunKind) -> Executable:
    """A worker has begun: RUNNING, at the time it said so, but after the state before."""
    t = kind.run.c
    name = case(
        (t.failures > literal_column("0", Integer), const(StateName.RETRYING)), else_=const(StateName.RUNNING)
    )
    timestamp = case((t.state_timestamp < param("at"), param("at")), else_=t.state_timestamp + ONE)
    return (
        update(kind.run)
        .where(_is_held_as_given(kind), t.state_type == const(StateType.PENDING))
        .values(
            state_type=const(StateType.RUNNING),
            state_name=name,
            state_id=param("state_id"),
            state_timestamp=timestamp,
            run_count=t.run_count + ONE,
            start_time=func.coalesce(t.start_time, timestamp),
            updated=timestamp,
        )
        .returning(t.state_name, t.state_timestamp)
    )


def dispatch_key() -> ColumnElement[str]:
    """Return the key under which the runs of a `work_queue` are dispatched (see `queue_records.queue_key`)."""
    space, prefix = literal_column("' '", String), literal_column(f"'{QUEUE_KEY}'", String)
    return func.coalesce(prefix + work_queue.c.work_pool_id + space + work_queue.c.id, prefix)


def _decided(kind: RunKind) -> Any:
    """Return what a decision on a lease needs (see `operations.leasing.LeaseRow`)."""
    t = kind.run.c
    task = kind is TASK_RUN
    zero = literal_column("0", Integer)
    columns = select(
        t.id,
        t.task_key if task else dispatch_key(),
        t.priority if task else zero,
        t.due,
        t.state_type,
        t.state_name,
        t.state_timestamp,
        t.session_id,
        t.attempt,
        t.failures,
        t.losses,
        t.retries,
        t.retry_delay,
        t.retry_jitter,
        t.total_run_time,
        t.tags,
        null() if task else flow_run.c.retry_type,
    )
    return columns if task else columns.outerjoin(work_queue, work_queue.c.id == flow_run.c.work_queue_id)


def _read(kind: RunKind) -> Executable:
    """Return what a decision on a run's lease needs."""
    return _decided(kind).where(kind.run.c.id == param("id"))


def _read_of_session(kind: RunKind) -> Executable:
    """Return the same for all that a session holds."""
    return _decided(kind).where(kind.run.c.session_id == param("session_id")).order_by(kind.run.c.id)


def read_live_flow_runs() -> Executable:
    """Return the same for all runs of a flow that wait, or are under way."""
    live = one_of(flow_run.c.state_type, {StateType.SCHEDULED, *LEASABLE})
    return _decided(FLOW_RUN).where(flow_run.c.flow_id == param("flow_id"), live)


def _end(kind: RunKind) -> Update:
    """Move a run out of its lease, under the fence."""
    ends = one_of(kind.run.c.state_type, LEASABLE)
    own: dict[str, Any] = {"retry_type": param("retry_type")}
    if kind is TASK_RUN:
        ends = ends | task_run.c.withheld.is_not(None)
        own = {"lane": param("lane"), "withheld": null()}
    return (
        update(kind.run)
        .where(_is_held_as_given(kind), ends)
        .values(
            state_type=param("state_type"),
            state_name=param("state_name"),
            state_id=param("state_id"),
            state_timestamp=param("timestamp"),
            session_id=null(),
            due=param("due"),
            failures=param("failures"),
            losses=param("losses"),
            end_time=param("end_time"),
            total_run_time=param("total_run_time"),
            updated=param("timestamp"),
            **own,
        )
    )


def _find_report(kind: RunKind) -> Executable:
    """Return a row if this very lease has reported an end before (only reports carry both)."""
    s = kind.state.c
    return select(ONE).where(
        kind.run_of_state == param("id"),
        s.attempt == param("attempt"),
        s.session_id == param("session_id"),
        one_of(s.type, FINAL) | (s.name == const(StateName.AWAITING_RETRY)),
    )


def _insert_state(kind: RunKind) -> Insert:
    """Append to the state history."""
    names = {c.name: "run_id" if c is kind.run_of_state else c.name for c in kind.state.c}
    return insert(kind.state).values({column: param(name) for column, name in names.items()})


def _statements(kind: RunKind) -> LeaseStatements:
    def of(build: Callable[[RunKind], Executable]) -> Query:
        return partial(build, kind)

    return LeaseStatements(
        kind,
        of(_lease),
        of(_start),
        of(_read),
        of(_read_of_session),
        of(_end),
        of(_find_report),
        of(_insert_state),
    )


TASK_LEASES: Final = _statements(TASK_RUN)
FLOW_LEASES: Final = _statements(FLOW_RUN)
#: Those of the many first.
ALL_LEASES: Final = (TASK_LEASES, FLOW_LEASES)


def read_leased_flow_run() -> Executable:
    """Return what a worker needs of a flow run that it is given."""
    t = flow_run.c
    return (
        select(
            dispatch_key(),
            t.name,
            t.flow_id,
            flow.c.name,
            t.deployment_id,
            work_pool.c.name,
            work_queue.c.name,
            t.tags,
            flow_run_payload.c.parameters,
        )
        .select_from(flow_run)
        .join(flow, flow.c.id == t.flow_id)
        .join(flow_run_payload, flow_run_payload.c.flow_run_id == t.id)
        .join(work_queue, work_queue.c.id == t.work_queue_id)
        .join(work_pool, work_pool.c.id == work_queue.c.work_pool_id)
        .where(t.id == param("id"))
    )
