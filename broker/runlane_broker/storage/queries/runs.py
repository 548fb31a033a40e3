"""The writer's statements on task runs: create, expire, keep what came out."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Insert, Update, and_, exists, func, insert, select, update
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateName, StateType

from ..tables import task_run, task_run_payload, task_run_state
from .base import const, param


def insert_run() -> Insert:
    """Insert a run unless its id is there; the caller looks at the row count."""
    return _insert_run_unless(_has_id())


def insert_named_run() -> Insert:
    """Insert a run of no flow run, unless its id is there, or the name that its client has given it."""
    return _insert_run_unless(_has_id(), _has_name())


def _insert_run_unless(*conditions: ColumnElement[bool]) -> Insert:
    columns = list(task_run.c)
    taken = (~exists().where(condition) for condition in conditions)
    return insert(task_run).from_select(columns, select(*(param(c.name) for c in columns)).where(*taken))


def _has_id() -> ColumnElement[bool]:
    return task_run.c.id == param("id")


def _has_name() -> ColumnElement[bool]:
    """It is of no flow run, and has a client's own name."""
    t = task_run.c
    return and_(
        t.task_key == param("task_key"),
        t.dynamic_key == param("dynamic_key"),
        t.flow_run_id.is_(None),
        t.dynamic_key != t.id,
    )


def insert_payload() -> Insert:
    """Insert the parameters of a new run."""
    return insert(task_run_payload).values(task_run_id=param("id"), parameters=param("parameters"))


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
    return select(task_run.c.id).where(_has_name())


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


def write_outcome() -> Update:
    """Keep what a task returned or raised."""
    return (
        update(task_run_payload)
        .where(task_run_payload.c.task_run_id == param("id"))
        .values(result=param("result"), error=param("error"))
    )


def read_newest_state() -> Executable:
    """Return the time of the newest state of all: ids sort by time."""
    newest = select(func.max(task_run_state.c.id)).scalar_subquery()
    return select(task_run_state.c.timestamp).where(task_run_state.c.id == newest)
