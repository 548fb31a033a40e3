"""What the edges read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

from ..tables import task_run, task_run_payload, task_run_state, worker_session
from .base import const, param


def _outcomes() -> Executable:
    state = task_run_state.alias("state")
    return (
        select(
            task_run.c.id,
            task_run.c.task_key,
            task_run.c.state_type,
            task_run.c.state_name,
            state.c.message,
            task_run_payload.c.result,
            task_run_payload.c.error,
        )
        .join(state, state.c.id == task_run.c.state_id)
        .join(task_run_payload, task_run_payload.c.task_run_id == task_run.c.id)
        .where(task_run.c.id.in_(param("ids", expanding=True)))
    )


#: State and, where final, outcome of the runs `ids_`. Built once: there is a read of it for nearly every watch.
OUTCOMES: Final = _outcomes()


def read_sessions() -> Executable:
    """Return all sessions."""
    s = worker_session.c
    return select(s.id, s.epoch, s.client_id, s.dialect)


def count_queued_of(task_keys: Sequence[str]) -> Executable:
    """Count the runs that wait, of each of these keys that has any."""
    t = task_run.c
    queued = t.state_type == const(StateType.SCHEDULED), t.withheld.is_(None)
    return select(t.task_key, func.count()).where(*queued, t.task_key.in_(task_keys)).group_by(t.task_key)


def count_queued() -> Executable:
    """Count the runs that wait."""
    t = task_run.c
    queued = t.state_type == const(StateType.SCHEDULED), t.withheld.is_(None)
    return select(func.count()).select_from(task_run).where(*queued)


def count_leased() -> Executable:
    """Count the runs that sessions hold."""
    return select(func.count()).select_from(task_run).where(task_run.c.session_id.is_not(None))
