"""Statements on runs that were not started in time.

Runs are read and marked a page at a time, each page as one value: Python has next to nothing to do for a run.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Insert,
    Update,
    and_,
    func,
    insert,
    literal_column,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateName, StateType

from ...orchestration.common_rules import LATE
from ..json_rows import as_json, json_rows, number_of, text_of
from ..tables import FLOW_RUN, TASK_RUN, RunKind, flow_run, task_run, work_queue
from ..unindexed import unindexed
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
        select(run.id, run.due, state.c.details, *others)
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
    """Return id, due time, details and key of task runs, as one JSON text."""
    return as_json(_overdue(TASK_RUN, task_run.c.task_key))


def overdue_flow_runs() -> Executable:
    """Return id, due time, details, queue and the queue's own patience of flow runs, as one JSON text."""
    queue = work_queue.c
    runs = _overdue(FLOW_RUN, flow_run.c.work_queue_id, queue.late_after)
    return as_json(runs.outerjoin(work_queue, queue.id == flow_run.c.work_queue_id))


#: What `runs` holds, a list for each run: its id, and the id, time, message and details of its new state.
_MARKS: Final = json_rows(param("runs")).alias("mark")
_RUN_ID, _STATE_ID, _MESSAGE, _DETAILS = (text_of(_MARKS, index) for index in (0, 1, 3, 4))
_TIMESTAMP: Final = number_of(_MARKS, 2)


def _insert(kind: RunKind) -> Insert:
    run = kind.run.c
    values: dict[str, Any] = {
        "id": _STATE_ID,
        kind.run_of_state.name: run.id,
        "type": const(StateType.SCHEDULED),
        "name": literal_column(f"'{LATE}'"),
        "message": _MESSAGE,
        "timestamp": _TIMESTAMP,
        "due": run.due,
        "attempt": run.attempt,
        "session_id": null(),
        "details": _DETAILS,
        "data": null(),
    }
    runs = select(*values.values()).join_from(_MARKS, kind.run, run.id == _RUN_ID).where(unindexed(_waits(kind)))
    return insert(kind.state).from_select(list(values), runs)


def _mark(kind: RunKind) -> Update:
    run = kind.run.c
    values: dict[str, Any] = {
        "state_name": literal_column(f"'{LATE}'"),
        "state_id": _STATE_ID,
        "state_timestamp": _TIMESTAMP,
        "updated": _TIMESTAMP,
    }
    return update(kind.run).where(run.id == _RUN_ID, unindexed(_waits(kind))).values(values)


def insert_task_run_states() -> Insert:
    """Append to the history of those of these task runs that still wait."""
    return _insert(TASK_RUN)


def insert_flow_run_states() -> Insert:
    """Append to the history of those of these flow runs that still wait."""
    return _insert(FLOW_RUN)


def mark_task_runs() -> Update:
    """Mark those of these task runs that still wait."""
    return _mark(TASK_RUN)


def mark_flow_runs() -> Update:
    """Mark those of these flow runs that still wait."""
    return _mark(FLOW_RUN)


def read_last_polled() -> Executable:
    """Return when somebody asked for a queue's runs last."""
    return select(work_queue.c.last_polled).where(work_queue.c.id == param("id"))
