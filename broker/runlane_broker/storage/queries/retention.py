"""Statements that delete what is over for long."""

from __future__ import annotations

from sqlalchemy import Delete, and_, delete, or_, select
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import FINAL, StateType

from ..tables import FLOW_RUN, TASK_RUN, RunKind, flow_run, task_run
from .base import const, one_of, param

_FAILURES = FINAL - {StateType.COMPLETED}


def walk(kind: RunKind, after: str, limit: int) -> Executable:
    """Return id, state and end of a kind's runs by id, from a place on: that is how the table itself is kept."""
    run = kind.run.c
    return select(run.id, run.state_type, run.end_time).where(run.id > after).order_by(run.id).limit(limit)


def _delete_states(kind: RunKind) -> Delete:
    return delete(kind.state).where(kind.run_of_state == param("id"))


def _delete_payload(kind: RunKind) -> Delete:
    return delete(kind.payload).where(kind.run_of_payload == param("id"))


def _read_old(kind: RunKind) -> Executable:
    run = kind.run.c
    success = and_(run.state_type == const(StateType.COMPLETED), run.end_time < param("successes_before"))
    failure = and_(one_of(run.state_type, _FAILURES), run.end_time < param("failures_before"))
    return select(run.id).where(run.id == param("id"), or_(success, failure))


def read_old_task_run() -> Executable:
    """Return a row if a task run has ended long enough ago."""
    return _read_old(TASK_RUN)


def read_old_flow_run() -> Executable:
    """Return a row if a flow run has ended long enough ago."""
    return _read_old(FLOW_RUN)


def read_live_child() -> Executable:
    """Return a row if a flow run has a task run that has not ended."""
    t = task_run.c
    live = ~one_of(t.state_type, FINAL)
    return select(t.id).where(t.flow_run_id == param("id"), live).limit(param("limit"))


def read_children() -> Executable:
    """Return the ids of task runs of a flow run."""
    t = task_run.c
    return select(t.id).where(t.flow_run_id == param("id")).limit(param("limit"))


def delete_task_run_states() -> Delete:
    """Delete a task run's history, and with it the results that are cached of it."""
    return _delete_states(TASK_RUN)


def delete_flow_run_states() -> Delete:
    """Delete a flow run's history."""
    return _delete_states(FLOW_RUN)


def delete_task_run_payload() -> Delete:
    """Delete a task run's payload."""
    return _delete_payload(TASK_RUN)


def delete_flow_run_payload() -> Delete:
    """Delete a flow run's payload."""
    return _delete_payload(FLOW_RUN)


def delete_task_run() -> Delete:
    """Delete a task run, with the slots that it may have left."""
    return delete(task_run).where(task_run.c.id == param("id"))


def delete_flow_run() -> Delete:
    """Delete a flow run."""
    return delete(flow_run).where(flow_run.c.id == param("id"))
