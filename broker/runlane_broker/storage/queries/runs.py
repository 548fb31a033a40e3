"""The writer's statements on runs: create, lease, start, end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Insert,
    Integer,
    Update,
    and_,
    case,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import FINAL, StateName, StateType

from ...orchestration.states import LEASABLE
from ..tables import task_run, task_run_payload, task_run_state
from .base import ONE, const, one_of, param


def insert_run() -> Insert:
    """Insert a run unless its id is there; the caller looks at the row count."""
    columns = list(task_run.c)
    values = select(*(param(c.name) for c in columns)).where(~exists().where(task_run.c.id == param("id")))
    return insert(task_run).from_select(columns, values)


def insert_payload() -> Insert:
    """Insert the parameters of a new run."""
    return insert(task_run_payload).values(task_run_id=param("id"), parameters=param("parameters"))


def insert_state() -> Insert:
    """Append to the state history."""
    return insert(task_run_state).values({c.name: param(c.name) for c in task_run_state.c})


def read_hash() -> Executable:
    """Return the payload hash of a run."""
    return select(task_run.c.payload_hash).where(task_run.c.id == param("id"))


def read_idempotent() -> Executable:
    """Return id and payload hash of the run that has an idempotency key."""
    return select(task_run.c.id, task_run.c.payload_hash).where(
        task_run.c.task_key == param("task_key"),
        task_run.c.idempotency_key == param("idempotency_key"),
        task_run.c.idempotency_key.is_not(None),
    )


def read_natural() -> Executable:
    """Return the id of the run without a flow run that has a client's own name."""
    t = task_run.c
    return select(t.id).where(
        t.task_key == param("task_key"),
        t.dynamic_key == param("dynamic_key"),
        t.flow_run_id.is_(None),
        t.dynamic_key != t.id,
    )


def _is_held_as_given() -> ColumnElement[bool]:
    """The fence: this run, under this very lease."""
    return and_(
        task_run.c.id == param("id"),
        task_run.c.attempt == param("attempt"),
        task_run.c.session_id == param("session_id"),
    )


def lease_run() -> Update:
    """Give a queued run to a session: PENDING, attempt + 1."""
    return (
        update(task_run)
        .where(
            task_run.c.id == param("id"),
            task_run.c.state_type == const(StateType.SCHEDULED),
            task_run.c.withheld.is_(None),
            task_run.c.due <= param("now"),
            task_run.c.expires.is_(None) | (task_run.c.expires > param("now")),
        )
        .values(
            state_type=const(StateType.PENDING),
            state_name=const(StateName.PENDING),
            state_id=param("state_id"),
            state_timestamp=param("timestamp"),
            session_id=param("session_id"),
            attempt=task_run.c.attempt + ONE,
            updated=param("timestamp"),
        )
        .returning(
            task_run.c.attempt,
            task_run.c.task_key,
            task_run.c.timeout,
            task_run.c.expires,
            task_run.c.headers,
        )
    )


def read_parameters() -> Executable:
    """Return a run's parameters."""
    return select(task_run_payload.c.parameters).where(task_run_payload.c.task_run_id == param("id"))


def expire_run() -> Update:
    """End a queued run whose start-by time has passed."""
    return (
        update(task_run)
        .where(
            task_run.c.id == param("id"),
            task_run.c.state_type == const(StateType.SCHEDULED),
            task_run.c.withheld.is_(None),
            task_run.c.expires <= param("now"),
        )
        .values(
            state_type=const(StateType.CANCELLED),
            state_name=const(StateName.EXPIRED),
            state_id=param("state_id"),
            state_timestamp=param("timestamp"),
            end_time=param("timestamp"),
            updated=param("timestamp"),
        )
        .returning(task_run.c.task_key, task_run.c.attempt)
    )


def start_run() -> Executable:
    """A worker has begun: RUNNING, at the time it said so, but after the state before."""
    t = task_run.c
    name = case(
        (t.failures > literal_column("0", Integer), const(StateName.RETRYING)), else_=const(StateName.RUNNING)
    )
    timestamp = case((t.state_timestamp < param("at"), param("at")), else_=t.state_timestamp + ONE)
    return (
        update(task_run)
        .where(_is_held_as_given(), t.state_type == const(StateType.PENDING))
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


def _lease_columns() -> Any:
    t = task_run.c
    return select(
        t.id,
        t.task_key,
        t.priority,
        t.due,
        t.state_type,
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
    )


def read_lease() -> Executable:
    """Return what a decision on a run needs (see `operations.LeaseRow`)."""
    return _lease_columns().where(task_run.c.id == param("id"))


def read_session_leases() -> Executable:
    """Return the same for all that a session holds."""
    return _lease_columns().where(task_run.c.session_id == param("session_id")).order_by(task_run.c.id)


def end_lease() -> Update:
    """Move a run out of its lease, under the fence."""
    return (
        update(task_run)
        .where(_is_held_as_given(), one_of(task_run.c.state_type, LEASABLE) | task_run.c.withheld.is_not(None))
        .values(
            state_type=param("state_type"),
            state_name=param("state_name"),
            state_id=param("state_id"),
            state_timestamp=param("timestamp"),
            session_id=null(),
            lane=param("lane"),
            due=param("due"),
            failures=param("failures"),
            losses=param("losses"),
            end_time=param("end_time"),
            total_run_time=param("total_run_time"),
            withheld=null(),
            updated=param("timestamp"),
        )
    )


def write_outcome() -> Update:
    """Keep what a task returned or raised."""
    return (
        update(task_run_payload)
        .where(task_run_payload.c.task_run_id == param("id"))
        .values(result=param("result"), error=param("error"))
    )


def find_report() -> Executable:
    """Return a row if this very lease has reported an end before (only reports carry both)."""
    s = task_run_state.c
    return select(ONE).where(
        s.task_run_id == param("id"),
        s.attempt == param("attempt"),
        s.session_id == param("session_id"),
        one_of(s.type, FINAL) | (s.name == const(StateName.AWAITING_RETRY)),
    )


def read_newest_state() -> Executable:
    """Return the time of the newest state of all: ids sort by time."""
    newest = select(func.max(task_run_state.c.id)).scalar_subquery()
    return select(task_run_state.c.timestamp).where(task_run_state.c.id == newest)
