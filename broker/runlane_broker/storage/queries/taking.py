"""The writer's statements on runs that go to workers who read them as they are shown, and acknowledge each."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

from ..tables import TASK_RUN, task_run, task_run_state
from .base import const, param
from .showing import read_runs


def read_shown_run() -> Executable:
    """Return a task run as it is shown."""
    return read_runs(TASK_RUN).where(task_run.c.id == param("id"))


def read_scheduled_details() -> Executable:
    """Return the details of a task run's last SCHEDULED state that had any."""
    s = task_run_state.c
    return (
        select(s.details)
        .where(s.task_run_id == param("id"), s.type == const(StateType.SCHEDULED), s.details.is_not(None))
        .order_by(s.timestamp.desc())
        .limit(param("limit"))
    )


def read_unreported() -> Executable:
    """Return the runs of a session of which nothing has been said since they were leased; whether they arrived."""
    t, s = task_run.c, task_run_state.c
    return (
        select(t.id, t.acknowledged.is_not(None) & (t.acknowledged >= t.attempt))
        .join_from(task_run, task_run_state, s.id == t.state_id)
        .where(t.session_id == param("session_id"), t.state_type == const(StateType.PENDING), s.details.is_(None))
    )


def acknowledge_run() -> Executable:
    """Note that a run has arrived, under this very lease."""
    t = task_run.c
    given = (t.id == param("id"), t.attempt == param("attempt"), t.session_id == param("session_id"))
    return update(task_run).where(*given).values(acknowledged=t.attempt)
