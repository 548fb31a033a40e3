"""Statements on runs that were not started in time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Insert,
    Update,
    and_,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateName, StateType

from ...orchestration.common_rules import LATE
from ..tables import FLOW_RUN, TASK_RUN, RunKind, flow_run, task_run, work_queue
from .base import const, param


def _waits(kind: RunKind) -> ColumnElement[bool]:
    """As the partial index has it: a task run whose client waits by itself is nobody else's business."""
    run = kind.run.c
    named = and_(run.state_type == const(StateType.SCHEDULED), run.state_name == const(StateName.SCHEDULED))
    return and_(named, task_run.c.withheld.is_(None)) if kind is TASK_RUN else named


def _overdue(kind: RunKind, *others: Any) -> Any:
    """Return a kind's runs that were due before `before`, by time, from a place on."""
    run, state = kind.run.c, kind.state.alias("state")
    return (
        select(run.id, run.due, run.attempt, state.c.details, *others)
        .join_from(kind.run, state, state.c.id == run.state_id)
        .where(
            _waits(kind),
            run.due <= param("before"),
            tuple_(run.due, run.id) > tuple_(param("after_due"), param("after_id")),
        )
        .order_by(run.due, run.id)
        .limit(param("limit"))
    )


def first_due(kind: RunKind) -> Executable:
    """Return when the first of a kind's runs that wait is due; null if none waits."""
    return select(func.min(kind.run.c.due)).where(_waits(kind))


def overdue_task_runs() -> Executable:
    """Return id, due time, attempt, details and key of task runs."""
    return _overdue(TASK_RUN, task_run.c.task_key)


def overdue_flow_runs() -> Executable:
    """Return id, due time, attempt, details, queue and the queue's own patience of flow runs."""
    queue = work_queue.c
    runs = _overdue(FLOW_RUN, flow_run.c.work_queue_id, queue.late_after)
    return runs.outerjoin(work_queue, queue.id == flow_run.c.work_queue_id)


def _mark(kind: RunKind) -> Update:
    run = kind.run.c
    values: dict[str, Any] = {
        "state_name": literal_column(f"'{LATE}'"),
        "state_id": param("state_id"),
        "state_timestamp": param("timestamp"),
        "updated": param("timestamp"),
    }
    return update(kind.run).where(run.id == param("id"), _waits(kind)).values(values)


def mark_task_run() -> Update:
    """Mark a task run that still waits."""
    return _mark(TASK_RUN)


def mark_flow_run() -> Update:
    """Mark a flow run that still waits."""
    return _mark(FLOW_RUN)


def read_last_polled() -> Executable:
    """Return when somebody asked for a queue's runs last."""
    return select(work_queue.c.last_polled).where(work_queue.c.id == param("id"))


def insert_task_run_state() -> Insert:
    """Append to the history of a task run."""
    return _insert(TASK_RUN)


def insert_flow_run_state() -> Insert:
    """Append to the history of a flow run."""
    return _insert(FLOW_RUN)


def _insert(kind: RunKind) -> Insert:
    return insert(kind.state).values(
        {c.name: param("run_id" if c is kind.run_of_state else c.name) for c in kind.state.c}
    )
