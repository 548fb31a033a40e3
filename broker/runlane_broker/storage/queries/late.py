"""Statements on runs that were not started in time.

Runs are read and marked a page at a time, each page as one value: Python has next to nothing to do for a run. What
tells the states of a page apart, their ids and times, are numbers that are counted on from the first.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Text,
    Update,
    and_,
    cast,
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
from ..json_rows import HexDigits, as_json, numbered_texts
from ..spellings import spelt
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
    run = kind.run.c
    return (
        select(run.id, run.due, *others)
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
    """Return id, due time and key of task runs, as one JSON text."""
    return as_json(_overdue(TASK_RUN, task_run.c.task_key))


def overdue_flow_runs() -> Executable:
    """Return flow runs, as one JSON text.

    Id, due time, queue, the queue's own patience, and what filters look at: tags and deployment.
    """
    queue = work_queue.c
    run = flow_run.c
    runs = _overdue(FLOW_RUN, run.work_queue_id, queue.late_after, run.tags, run.deployment_id)
    return as_json(runs.outerjoin(work_queue, queue.id == run.work_queue_id))


#: The details of a state, but for the id of the transition that led to it.
_WithoutTransition: Final = spelt(
    "runlane_without_transition",
    Text(),
    sqlite="json_remove({}, '$.transition_id')",
    postgresql="CAST(CAST({} AS jsonb) - 'transition_id' AS text)",
)

#: What `runs` holds: the ids of runs.
_MARKS: Final = numbered_texts(param("runs")).alias("mark")


def _insert(kind: RunKind) -> Insert:
    run, state = kind.run.c, kind.state.alias("state")
    digits = HexDigits(cast(param("number"), BigInteger) + _MARKS.c.key)
    values: dict[str, Any] = {
        "id": cast(param("prefix"), Text) + digits,
        kind.run_of_state.name: run.id,
        "type": const(StateType.SCHEDULED),
        "name": literal_column(f"'{LATE}'"),
        "message": cast(param("message"), Text),
        "timestamp": cast(param("timestamp"), BigInteger) + _MARKS.c.key,
        "due": run.due,
        "attempt": run.attempt,
        "session_id": null(),
        # What the run's state knows, but for the client's own word for how it came to that state.
        "details": _WithoutTransition(state.c.details),
        "data": null(),
    }
    runs = (
        select(*values.values())
        .join_from(_MARKS, kind.run, run.id == _MARKS.c.value)
        .join(state, state.c.id == run.state_id)
        .where(unindexed(_waits(kind)))
    )
    return insert(kind.state).from_select(list(values), runs)


def _mark(kind: RunKind) -> Update:
    """Give runs the states that have just been appended, from `first` to `last`."""
    run, state = kind.run.c, kind.state.alias("state")
    values: dict[str, Any] = {
        "state_name": state.c.name,
        "state_id": state.c.id,
        "state_timestamp": state.c.timestamp,
        "updated": state.c.timestamp,
    }
    appended = state.c.id.between(param("first"), param("last"))
    its_run = run.id == state.c[kind.run_of_state.name]
    return update(kind.run).where(appended, its_run, unindexed(_waits(kind))).values(values)


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
